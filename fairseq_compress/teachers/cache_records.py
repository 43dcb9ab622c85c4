r"""Teachers' outputs -> records of a teacher cache (:mod:`fairseq_compress.teachers.cache`).

For M teachers with logits z^m over V entries and temperature T (the mean of probabilities: arXiv:1702.01802):

    q = mean_m softmax(z^m / T),   K = the k most probable entries,   tail mass = Σ_{v not in K} q_v

The tail mass is summed in float32: 1 - Σ_K q would lose all its digits where the teacher is certain.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fairseq import utils
from fairseq.data import LanguagePairDataset
from torch import Tensor

from fairseq_compress.errors import CheckpointError, ConfigError
from fairseq_compress.functional.autocast import warn_if_emulated
from fairseq_compress.functional.losses.blocks import LogitRows
from fairseq_compress.functional.losses.outputs import Output, shape_of
from fairseq_compress.options import check, option
from fairseq_compress.teachers.cache import DTYPES
from fairseq_compress.teachers.frozen import FrozenTeachers

CHUNK_ELEMENTS = {"cpu": 2**23, "cuda": 2**27}  # float32 probabilities that exist at a time: 32 and 512 MiB


@dataclass(frozen=True)
class CacheOptions:
    """Options of the records, all of which may change their bytes."""

    top_k: int = option(8, "entries kept for each target token", range="[1, inf)")
    temperature: float = option(1.0, "of the probabilities", range="(0, inf)")
    dtype: str = option("float16", "type of the probabilities", choices=tuple(DTYPES))
    precision: str = option("float32", "of the teacher's matrix products", choices=("float32", "bfloat16"))
    max_tokens: int = option(8000, "of a batch, padding counted", range="[1, inf)")
    device: str = "cpu"

    def __post_init__(self) -> None:
        check(self)

    def facts(self) -> dict[str, Any]:
        """Those in ``meta.json``; the others change the last digits only."""
        return {"k": self.top_k, "dtype": self.dtype, "temperature": self.temperature, "precision": self.precision}


def make_records(
    teachers: FrozenTeachers, dataset: LanguagePairDataset, indices: Sequence[int], tokens: Sequence[int],
    record: np.dtype[Any], options: CacheOptions,
) -> np.ndarray:  # fmt: skip
    """Records of the sentences ``indices``, with the numbers ``tokens`` of target tokens, without padding."""
    sample = dataset.collater([dataset[index] for index in indices])
    width, row = sample["target"].size(1), {index: number for number, index in enumerate(sample["id"].tolist())}
    # of the flattened (B * T) output, the rows of the target tokens of each sentence
    rows = torch.cat([torch.arange(count) + row[index] * width for index, count in zip(indices, tokens, strict=True)])
    if options.device == "cuda":
        sample, rows = utils.move_to_cuda(sample), rows.cuda()
    if low := options.precision == "bfloat16":
        warn_if_emulated("--precision", options.device)
    with torch.autocast(options.device, torch.bfloat16) if low else contextlib.nullcontext():
        outputs = teachers.outputs(sample)
    vocabulary = len(dataset.tgt_dict)
    if any(shape_of(output)[1] != vocabulary for output in outputs):
        raise ConfigError(f"--teacher-path: the output of a teacher must have the dictionary's {vocabulary} entries")
    return top_k_records(outputs, rows, options.temperature, record)


def top_k_records(
    outputs: Sequence[Output], rows: Tensor, temperature: float, record: np.dtype[Any], chunk_rows: int | None = None
) -> np.ndarray:
    """Records (R,) of the ``rows`` (R,) of N, computed chunk by chunk.

    Args:
        outputs: logits (N, V), or hidden states with their output matrix, of each teacher.
        record: see :func:`~fairseq_compress.teachers.cache.record_dtype`.
        chunk_rows: rows of probabilities in memory at a time.
    """
    chunk_rows = chunk_rows or max(1, CHUNK_ELEMENTS[rows.device.type] // shape_of(outputs[0])[1])
    records = np.empty(len(rows), dtype=record)
    k = record["ids"].shape[0]
    teachers = [LogitRows(output, rows) for output in outputs]
    for start in range(0, len(rows), chunk_rows):
        part = slice(start, start + chunk_rows)
        q = _mean_probabilities([teacher.block(part) for teacher in teachers], temperature)
        probabilities, ids = torch.topk(q, k, dim=-1)
        tail = q.scatter_(1, ids, 0.0).sum(dim=-1)
        if not bool(torch.isfinite(probabilities).all()):  # one in a row makes all of them so
            raise CheckpointError("--teacher-path: the teacher gives probabilities that are no numbers")
        for name, values in (("ids", ids), ("probabilities", probabilities), ("rest", tail)):
            records[name][part] = values.cpu().numpy()
    return records


def unread_records(tokens: int, record: np.dtype[Any]) -> np.ndarray:
    """Records of a sentence that no teacher read: all mass is in the tail."""
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
