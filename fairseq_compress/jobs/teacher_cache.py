"""A split of binarized data to a teacher cache: the job of ``fairseq-compress cache-teacher``.

Memory does not grow with the corpus, apart from fairseq's table of sentence lengths (16 bytes per sentence).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from fairseq.data import LanguagePairDataset

from fairseq_compress.errors import DataError
from fairseq_compress.teachers.cache import CacheManifest, TeacherCache, record_dtype
from fairseq_compress.teachers.cache_records import CacheOptions, make_records, unread_records
from fairseq_compress.teachers.frozen import FrozenTeachers
from fairseq_compress.work.files import atomic_write, file_sha256
from fairseq_compress.work.manifest import difference
from fairseq_compress.work.sharded import Job
from fairseq_compress.work.windows import WINDOW, cut_batches
from fairseq_compress.work.work_folder import work_folder


class SplitBatch(NamedTuple):
    """One unit: sentences that the teachers read at once."""

    unit: int
    indices: list[int]
    tokens: list[int]
    """Target tokens of each sentence."""
    starts: list[int]
    """Number of each sentence's first record in the file."""
    read: bool
    """False for a sentence that is too long for the teachers."""


def split_batches(
    source_sizes: np.ndarray, target_sizes: np.ndarray, longest: Sequence[int], max_tokens: int, window: int = WINDOW
) -> Iterator[SplitBatch]:
    """The batches of a split; they depend on the sentence lengths only.

    Args:
        source_sizes, target_sizes: (N,) tokens of each sentence.
        longest: the most source and target tokens of the teachers. A longer sentence is a batch alone, which no teacher
            reads; training must leave it out.
        max_tokens: of a batch on either side, padding counted.
    """
    unit = written = 0
    for first in range(0, len(target_sizes), window):
        source, target = (sizes[first : first + window].astype(np.int64) for sizes in (source_sizes, target_sizes))
        starts = written + np.cumsum(target) - target
        written += int(target.sum())
        fits = (source <= longest[0]) & (target <= longest[1])
        readable = np.flatnonzero(fits)
        batches = [readable[batch] for batch in cut_batches(np.maximum(source, target)[readable].tolist(), max_tokens)]
        for members in (*batches, *np.flatnonzero(~fits)[:, None]):
            columns = (first + members, target[members], starts[members])
            indices, tokens, places = (column.tolist() for column in columns)
            yield SplitBatch(unit, indices, tokens, places, read=bool(fits[members[0]]))
            unit += 1


class TeacherCacheJob(Job[SplitBatch, CacheManifest]):
    """Write the cache of a split.

    Args:
        output: the folder of the split.
        dataset: the split as training loads it, padded on the right.
        facts: ``split``, ``data``, ``dictionaries``, ``teachers``, ``settings`` of the manifest.
        open_teachers: not called if the cache is up to date.
    """

    name, items = "cache-teacher", "tokens"
    output: Path
    window = WINDOW

    def __init__(
        self, output: Path, dataset: LanguagePairDataset, facts: Mapping[str, Any],
        open_teachers: Callable[[], FrozenTeachers], options: CacheOptions,
    ) -> None:  # fmt: skip
        self.output, self.dataset, self.options = output, dataset, options
        self.facts = {**facts, **options.facts()}
        self.record = record_dtype(options.top_k, len(dataset.tgt_dict), options.dtype)
        self._open_teachers = open_teachers

    @cached_property
    def teachers(self) -> FrozenTeachers:
        return self._open_teachers()

    @cached_property
    def longest(self) -> list[int]:
        """The most source and target tokens of all teachers."""
        return [min(limits) for limits in zip(*(model.max_positions() for model in self.teachers.models), strict=True)]

    @property
    def metadata(self) -> Mapping[str, Any]:
        others = {"longest": self.longest, "max_tokens": self.options.max_tokens, "device": self.options.device}
        return {**_flat(self.facts), **others}

    def is_up_to_date(self) -> bool:
        if not (self.output / "meta.json").is_file():
            return False
        manifest = TeacherCache(self.output).meta
        if differs := difference(self.facts, {name: getattr(manifest, name) for name in self.facts}):
            name, here, there = differs
            raise DataError(
                f"{self.output}: holds another cache: {name} is {there} there, {here} here; remove it first"
            )
        return True

    def units(self) -> Iterator[SplitBatch]:
        sizes = self.dataset.src_sizes, self.dataset.tgt_sizes
        return split_batches(*sizes, self.longest, self.options.max_tokens, self.window)

    def size(self, unit: SplitBatch) -> int:
        return sum(unit.tokens)

    def compute(self, unit: SplitBatch) -> bytes:
        if not unit.read:
            return unread_records(sum(unit.tokens), self.record).tobytes()
        made = make_records(self.teachers, self.dataset, unit.indices, unit.tokens, self.record, self.options)
        return made.tobytes()

    def join(self, results: Iterator[tuple[int, bytes]]) -> CacheManifest:
        """Put the records of all units in their places: ``records.bin``, then ``meta.json``."""
        sentences = tokens = unread = 0
        size = self.record.itemsize
        for path in self.output.glob("*.tmp-*"):  # of a join that was killed
            path.unlink(missing_ok=True)
        with atomic_write(self.output / "records.bin", "wb") as stream:
            for batch, (unit, payload) in zip(self.units(), results, strict=True):
                expected = sum(batch.tokens) * size
                if len(payload) != expected:
                    folder = work_folder(self.output)
                    raise DataError(f"{folder}: unit {unit} must have {expected} bytes, has {len(payload)}")
                sentences, tokens = sentences + len(batch.indices), tokens + sum(batch.tokens)
                unread += not batch.read
                _place(stream, payload, batch, size)
        manifest = CacheManifest(
            **self.facts, longest=self.longest, sentences=sentences, tokens=tokens, unread=unread,
            bytes_per_token=size, sha256=file_sha256(self.output / "records.bin"),
        )  # fmt: skip
        manifest.write(self.output / "meta.json")
        return manifest


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten nested mappings, so that a message can name the entry that differs."""
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        inner = _flat(value) if isinstance(value, Mapping) else {"": value}
        flat |= {f"{name} {key}".strip(): found for key, found in inner.items()}
    return flat


def _place(stream: Any, payload: bytes, batch: SplitBatch, itemsize: int) -> None:
    view, taken = memoryview(payload), 0
    for start, tokens in zip(batch.starts, batch.tokens, strict=True):
        stream.seek(start * itemsize)
        stream.write(view[taken : taken + tokens * itemsize])
        taken += tokens * itemsize
