"""A teacher cache: the teacher's k most probable entries for every target token, on disk.

One folder per split. ``records.bin`` holds one little-endian record per target token (EOS included), sentences in the
order of the dataset, nothing between them:

    ids            k x uint16 (dictionaries of at most 65,536 entries) or uint32, the most probable entries
    probabilities  k x float16 or float32, softmax(z / T) of those entries, descending; the mean over an ensemble
    rest           float16 or float32, the tail mass: that of all other entries

With k = 8, uint16 and float16 that is 34 bytes per token. ``meta.json`` holds the checksums of all inputs and is
written last.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.teachers.agreement import Entries, Reading, differences
from fairseq_compress.work.files import PathLike, check_sha256
from fairseq_compress.work.manifest import Manifest, count, difference

DTYPES = {"float16": "<f2", "float32": "<f4"}


def record_dtype(k: int, vocabulary: int, dtype: str) -> np.dtype[Any]:
    """The record of one target token, without padding bytes."""
    if not 1 <= k <= vocabulary:
        raise ConfigError(f"--top-k: must be in [1, {vocabulary}], the entries of the dictionary, got {k}")
    if (number := DTYPES.get(dtype)) is None:
        raise ConfigError(f"--dtype: must be one of {', '.join(DTYPES)}, got {dtype!r}")
    return np.dtype(
        [("ids", "<u2" if vocabulary <= 2**16 else "<u4", (k,)), ("probabilities", number, (k,)), ("rest", number)]
    )


@dataclass(frozen=True, kw_only=True)
class CacheManifest(Manifest, name="teacher cache", written_by="cache-teacher"):
    """``meta.json`` of the cache of one split."""

    split: str
    k: int = count()
    dtype: str
    temperature: float
    precision: str
    """Type of the teacher's matrix products."""
    longest: list[int]
    """The most source and target tokens of the teachers."""
    sentences: int = count()
    unread: int = count()
    """Longer sentences, whose mass is all in the tail."""
    tokens: int = count()
    """Target tokens, one record each."""
    bytes_per_token: int = count()
    sha256: str
    """Of ``records.bin``."""
    data: dict[str, str]
    dictionaries: dict[str, dict[str, Any]]
    teachers: list[str]
    settings: dict[str, Any]

    def problems(self) -> Iterator[str]:
        for side in ("source", "target"):
            if type(self.dictionaries.get(side, {}).get("entries")) is not int:
                yield f"dictionaries.{side}: must have entries and sha256, got {self.dictionaries.get(side)}"
                return
        try:
            size = self.record.itemsize
        except ConfigError as error:
            yield str(error)
            return
        if self.bytes_per_token != size:
            yield f"bytes_per_token: must be {size}, got {self.bytes_per_token}"

    @property
    def record(self) -> np.dtype[Any]:
        """The type of one record."""
        return record_dtype(self.k, self.dictionaries["target"]["entries"], self.dtype)


class TeacherCache:
    """The records of one split, memory-mapped. Call :meth:`align` before :meth:`records`."""

    def __init__(self, folder: PathLike) -> None:
        self.folder = Path(folder)
        self.meta = CacheManifest.read(self.folder / "meta.json", f"--teacher-cache {folder}: no finished cache there")
        self._path = self.folder / "records.bin"
        self._offsets = np.zeros(1, dtype=np.int64)
        expected = self.meta.tokens * self.meta.bytes_per_token
        try:
            size = self._path.stat().st_size
        except OSError as error:
            raise DataError(f"{self._path}: {error.strerror}") from None
        if size != expected:
            raise DataError(f"{self._path}: must have {expected} bytes as meta.json says, has {size}")
        self._records = self._open()

    def _open(self) -> np.ndarray:
        # a plain view: slicing a np.memmap costs ten times as much
        return np.asarray(np.memmap(self._path, dtype=self.meta.record, mode="r"))

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the map: a worker process opens the file itself."""
        return {**self.__dict__, "_records": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._records = self._open()

    def align(self, target_sizes: np.ndarray) -> None:
        """Set the lengths of all target sentences (EOS included), which locate their records."""
        found = (len(target_sizes), int(np.sum(target_sizes, dtype=np.int64)))
        if found != (self.meta.sentences, self.meta.tokens):
            raise DataError(
                f"{self}: has {self.meta.sentences} sentences of {self.meta.tokens} target tokens, "
                f"the data have {found[0]} of {found[1]}"
            )
        self._offsets = np.concatenate([[0], np.cumsum(target_sizes, dtype=np.int64)])

    def records(self, index: int) -> np.ndarray:
        """The records of sentence ``index``, (target tokens,) of the type ``meta.record``; a view of the file."""
        return self._records[self._offsets[index] : self._offsets[index + 1]]

    def check_records(self) -> None:
        """Compare the checksum of ``records.bin``."""
        check_sha256(self._path, self.meta.sha256, "meta.json")

    def check_data(self, data: Mapping[str, str]) -> None:
        """Compare with :func:`~fairseq_compress.teachers.cache_checksums.data_checksums` of the data in use."""
        if differs := difference(self.meta.data, data):
            name, was, now = differs
            raise DataError(
                f"{self}: made from other data: {name} has {_short(now)}, the cache was made from {_short(was)}"
            )

    def reading(self) -> Reading:
        """Inputs and outputs of its teachers."""
        meta, settings = self.meta, self.meta.settings
        sides = (meta.dictionaries[side] for side in ("source", "target"))
        source, target = (Entries(facts["entries"], facts["sha256"]) for facts in sides)
        return Reading(
            languages=(settings.get("source_lang"), settings.get("target_lang")),
            entries=(source, target),
            truncated_to=settings.get("source_truncated_to"),
            longest=(meta.longest[0], meta.longest[1]) if meta.unread else None,
            unread=meta.unread,
        )

    def differences(self, student: Reading, temperature: float, teacher: str | None, checksums: list[str]) -> list[str]:
        """A message for each incompatibility with a training.

        Args:
            temperature: of its distillation term.
            teacher: its checkpoints, separated by ``:``, and their ``checksums``; None for any.
        """
        problems = differences(str(self), self.reading(), student)
        if not math.isclose(temperature, self.meta.temperature, rel_tol=1e-6):
            problems.append(
                f"--kd-temperature: must be {self.meta.temperature}, the temperature of {self}, got {temperature}"
            )
        if teacher and checksums != self.meta.teachers:
            problems.append(
                f"--teacher-path {teacher}: is not the teacher of {self}: {_short(*checksums)}, "
                f"the cache was made with {_short(*self.meta.teachers)}"
            )
        return problems

    def __str__(self) -> str:
        return f"--teacher-cache {self.folder}"


def _short(*checksums: str | None) -> str:
    """The first digits of each checksum."""
    return ", ".join(f"sha256 {checksum[:16]}" if checksum else "no such file" for checksum in checksums)
