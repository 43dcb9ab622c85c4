r"""Teachers' logits -> records of a teacher cache (:mod:`fairseq_compress.teachers.cache_format`).

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
from fairseq_compress.functional.losses.blocks import LogitRows
from fairseq_compress.functional.losses.outputs import Output, shape_of

CHUNK_ELEMENTS = {"cpu": 2**23, "cuda": 2**27}  # float32 probabilities that exist at a time: 32 and 512 MiB


def top_k_records(
    outputs: Sequence[Output], rows: Tensor, temperature: float, record: np.dtype[Any], chunk_rows: int | None = None
) -> np.ndarray:
    """Records of some rows, one chunk of rows after the other: of hidden states, the logits never exist whole.

    Args:
        outputs: logits (N, V), or hidden states with their output matrix, of each teacher.
        rows: (R,) indices into the N rows, in the order that the records shall have.
        temperature: T > 0.
        record: see :func:`~fairseq_compress.teachers.cache_format.record_dtype`.
        chunk_rows: rows of the probabilities that exist at a time.

    Returns:
        (R,) of ``record``.

    Raises:
        CheckpointError: a probability is no number.
    """
    chunk_rows = chunk_rows or max(1, CHUNK_ELEMENTS[rows.device.type] // shape_of(outputs[0])[1])
    records = np.empty(len(rows), dtype=record)
    k = record["ids"].shape[0]
    teachers = [LogitRows(output, rows) for output in outputs]
    for start in range(0, len(rows), chunk_rows):
        part = slice(start, start + chunk_rows)
        q = _mean_probabilities([teacher.block(part) for teacher in teachers], temperature)
        probabilities, ids = torch.topk(q, k, dim=-1)
        rest = q.scatter_(1, ids, 0.0).sum(dim=-1)
        if not bool(torch.isfinite(probabilities).all()):  # one in a row makes all of them so
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


def _mean_probabilities(logits: Sequence[Tensor], temperature: float) -> Tensor:
    """(R, V) in float32; a new tensor."""
    first, *others = (
        torch.softmax(teacher.float() if temperature == 1 else teacher.float() / temperature, dim=-1)
        for teacher in logits
    )
    for q in others:
        first += q
    return first.div_(len(logits)) if others else first
