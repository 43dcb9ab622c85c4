r"""Teachers' logits -> records of a teacher cache (:mod:`fairseq_compress.teachers.cache`).

For M teachers with logits z^m over V entries and temperature T (the mean of probabilities: arXiv:1702.01802):

    q = mean_m softmax(z^m / T),   K = the k most probable entries,   rest = Σ_{v not in K} q_v

``rest`` is a sum of what is outside, in float32: 1 - Σ_K q would lose all its digits where the teacher is certain.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairseq_compress.errors import CheckpointError

CHUNK_ELEMENTS = {"cpu": 2**22, "cuda": 2**27}  # float32 probabilities that exist at a time: 16 and 512 MiB


def top_k_records(
    logits: Sequence[Tensor], rows: Tensor, temperature: float, record: np.dtype[Any], chunk_rows: int | None = None
) -> np.ndarray:
    """Records of some rows, one chunk of rows after the other.

    Args:
        logits: one (N, V) tensor per teacher.
        rows: (R,) indices into the N rows, in the order that the records shall have.
        temperature: T > 0.
        record: see :func:`~fairseq_compress.teachers.cache.record_dtype`.
        chunk_rows: rows of the probabilities that exist at a time.

    Returns:
        (R,) of ``record``.

    Raises:
        CheckpointError: a probability is no number.
    """
    chunk_rows = chunk_rows or max(1, CHUNK_ELEMENTS[rows.device.type] // logits[0].size(-1))
    records = np.empty(len(rows), dtype=record)
    k = record["ids"].shape[0]
    for start in range(0, len(rows), chunk_rows):
        part = slice(start, start + chunk_rows)
        q = _mean_probabilities(logits, rows[part], temperature)
        probabilities, ids = torch.topk(q, k, dim=-1)
        rest = q.scatter_(1, ids, 0.0).sum(dim=-1)
        if not bool(torch.isfinite(rest).all()):
            raise CheckpointError("--teacher-path: the teacher gives probabilities that are no numbers")
        records["ids"][part] = ids.cpu().numpy()
        records["probabilities"][part] = probabilities.cpu().numpy()
        records["rest"][part] = rest.cpu().numpy()
    return records


def unread_records(tokens: int, record: np.dtype[Any]) -> np.ndarray:
    """Records of a sentence that no teacher read: nothing is known, all the mass is left."""
    records = np.zeros(tokens, dtype=record)
    records["rest"] = 1
    return records


def _mean_probabilities(logits: Sequence[Tensor], rows: Tensor, temperature: float) -> Tensor:
    total: Tensor | None = None
    for teacher in logits:
        scaled = teacher[rows].float()
        if temperature != 1:
            scaled = scaled.div_(temperature)
        q = torch.softmax(scaled, dim=-1)
        total = q if total is None else total.add_(q)
    assert total is not None
    return total.div_(len(logits)) if len(logits) > 1 else total
