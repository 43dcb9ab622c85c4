"""Writing a teacher cache: batches of a split, shared by processes, resumable at the batch, joined in its order.

Memory does not grow with the corpus, beside fairseq's own table of sentence lengths (16 bytes a sentence): batches are
cut in windows of sentences, each is on the disk before the next begins, and the join holds one at a time.
"""

import contextlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq import utils
from fairseq.data import LanguagePairDataset

from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.functional.autocast import warn_if_emulated
from fairseq_compress.functional.losses.outputs import shape_of
from fairseq_compress.jobs.cache_plan import Batch, BatchPlan
from fairseq_compress.teachers.cache import TeacherCache
from fairseq_compress.teachers.cache_format import CacheMeta, record_dtype
from fairseq_compress.teachers.cache_records import top_k_records, unread_records
from fairseq_compress.teachers.frozen import FrozenTeachers
from fairseq_compress.work.files import atomic_write, file_sha256
from fairseq_compress.work.progress import WorkProgress
from fairseq_compress.work.sharded import Shard, ShardedWork


@dataclass(frozen=True)
class CacheOptions:
    """How the records are made; everything here may change their bytes."""

    top_k: int = 8
    temperature: float = 1.0
    dtype: str = "float16"
    precision: str = "float32"
    max_tokens: int = 8000
    device: str = "cpu"

    def facts(self) -> dict[str, Any]:
        """Those that ``meta.json`` tells; the others change the last digits only."""
        return {"k": self.top_k, "dtype": self.dtype, "temperature": self.temperature, "precision": self.precision}


def longest_positions(teachers: FrozenTeachers) -> list[int]:
    """The most source and target tokens that all teachers take."""
    return [min(limits) for limits in zip(*(model.max_positions() for model in teachers.models), strict=True)]


def make_records(
    teachers: FrozenTeachers,
    dataset: LanguagePairDataset,
    batch: Batch,
    record: np.dtype[Any],
    options: CacheOptions,
) -> np.ndarray:
    """Records of a batch, sentence after sentence in its order, without padding."""
    if not batch.read:
        return unread_records(sum(batch.tokens), record)
    sample = dataset.collater([dataset[index] for index in batch.indices])
    places = _places(sample, batch)
    if options.device == "cuda":
        sample, places = utils.move_to_cuda(sample), places.cuda()
    if low := options.precision == "bfloat16":
        warn_if_emulated("--precision", options.device)
    with torch.autocast(options.device, torch.bfloat16) if low else contextlib.nullcontext():
        outputs = teachers.outputs(sample)
    vocabulary = len(dataset.tgt_dict)
    if any(shape_of(output)[1] != vocabulary for output in outputs):
        raise ConfigError(f"--teacher-path: the output of a teacher must have the dictionary's {vocabulary} entries")
    return top_k_records(outputs, places, options.temperature, record)


def _places(sample: dict[str, Any], batch: Batch) -> torch.Tensor:
    """Which rows of the flattened (B * T) output belong to the target tokens of the batch's sentences, in its order."""
    width = sample["target"].size(1)
    row = {index: number for number, index in enumerate(sample["id"].tolist())}
    rows = zip(batch.indices, batch.tokens, strict=True)
    return torch.cat([torch.arange(tokens) + row[index] * width for index, tokens in rows])


def write_split(
    output: Path,
    dataset: LanguagePairDataset,
    facts: Mapping[str, Any],
    teachers: Callable[[], FrozenTeachers],
    options: CacheOptions,
    shard: Shard,
    join_only: bool = False,
) -> CacheMeta | None:
    """Write this process's share of a split; the process that finishes last joins all shares.

    Args:
        output: the folder of the split.
        dataset: the split as training loads it, padded on the right.
        facts: what the cache is made from: ``split``, ``data``, ``dictionaries``, ``teachers``, ``settings``.
        teachers: loads them; not called when the cache is there already.
        join_only: write no share, only join those that are there.

    Returns:
        the facts of the finished cache, or None when other processes have not finished yet.

    Raises:
        DataError: a finished cache made from something else is in the way; a share is missing, cut or altered.
    """
    record = record_dtype(options.top_k, len(dataset.tgt_dict), options.dtype)
    facts = {**facts, **options.facts()}
    if (output / "meta.json").is_file():
        meta = _check_finished(output, facts)
        shutil.rmtree(f"{output}.work", ignore_errors=True)  # of a run that was killed behind its last step
        return meta
    models = teachers()
    facts["longest"] = longest_positions(models)
    plan = BatchPlan(dataset.src_sizes, dataset.tgt_sizes, facts["longest"], options.max_tokens)
    all_facts = _flat(facts | {"max_tokens": options.max_tokens, "device": options.device})
    work = ShardedWork(output, all_facts, shard, join_only=join_only)
    if not join_only:
        write_share(work, plan, lambda batch: make_records(models, dataset, batch, record, options))
    if not work.finished_by_all() and not (join_only and work.missing_ranks()):  # of a missing one the join tells
        return None
    meta = join_shares(work, plan, output, facts, record)
    work.remove()
    return meta


def _check_finished(output: Path, facts: Mapping[str, Any]) -> CacheMeta:
    meta = TeacherCache(output).meta
    ours, theirs = _flat(facts), _flat({name: getattr(meta, name) for name in facts})
    for name in [*theirs, *ours]:
        if theirs.get(name) != ours.get(name):
            values = f"{name} is {theirs.get(name)} there, {ours.get(name)} here"
            raise DataError(f"{output}: holds another cache: {values}; remove it first")
    return meta


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The same facts without facts inside of facts, so that a message can name the one that differs."""
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        inner = _flat(value) if isinstance(value, Mapping) else {"": value}
        flat |= {f"{name} {key}".strip(): found for key, found in inner.items()}
    return flat


def write_share(work: ShardedWork, plan: BatchPlan, records: Callable[[Batch], np.ndarray]) -> None:
    """Append the records of this process's batches to its log, and seal it. What is there already is not made again."""
    units = total = resumed = 0
    for batch in plan:
        units += 1
        if work.mine(batch.unit):
            total += sum(batch.tokens)
            resumed += sum(batch.tokens) if work.has(batch.unit) else 0
    progress = WorkProgress(total, f"cache-teacher {work.rank}/{work.world_size}", resumed=resumed, unit="tokens")
    for batch in plan:
        if work.mine(batch.unit) and not work.has(batch.unit):
            work.write(batch.unit, records(batch).tobytes())
            progress.add(sum(batch.tokens))
    progress.close()
    work.finish(units)


def join_shares(
    work: ShardedWork, plan: BatchPlan, output: Path, facts: Mapping[str, Any], record: np.dtype[Any]
) -> CacheMeta:
    """Put the records of all shares where they belong: ``records.bin``, then ``meta.json``.

    Raises:
        DataError: a share is missing, cut, altered or from another run.
    """
    sentences = tokens = unread = 0
    for path in output.glob("*.tmp-*"):  # of a join that was killed
        path.unlink(missing_ok=True)
    with atomic_write(output / "records.bin", "wb") as stream:
        for batch, (unit, payload) in zip(plan, work.payloads(), strict=True):
            expected = sum(batch.tokens) * record.itemsize
            if len(payload) != expected:
                raise DataError(f"{work.folder}: unit {unit} must have {expected} bytes, has {len(payload)}")
            sentences, tokens = sentences + len(batch.indices), tokens + sum(batch.tokens)
            unread += 0 if batch.read else 1
            _place(stream, payload, batch, record.itemsize)
    meta = CacheMeta(
        **facts, sentences=sentences, tokens=tokens, unread=unread, bytes_per_token=record.itemsize,
        sha256=file_sha256(output / "records.bin"),
    )  # fmt: skip
    with atomic_write(output / "meta.json") as stream:
        stream.write(meta.to_json())
    return meta


def _place(stream: Any, payload: bytes, batch: Batch, itemsize: int) -> None:
    view, taken = memoryview(payload), 0
    for start, tokens in zip(batch.starts, batch.tokens, strict=True):
        stream.seek(start * itemsize)
        stream.write(view[taken : taken + tokens * itemsize])
        taken += tokens * itemsize
