"""Reading a teacher cache through a memory map, and checking that it belongs to the training."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_compress.errors import DataError
from fairseq_compress.teachers.agreement import Entries, Reading, differences
from fairseq_compress.teachers.cache_format import CacheManifest
from fairseq_compress.work.files import PathLike, check_sha256
from fairseq_compress.work.manifest import difference


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
