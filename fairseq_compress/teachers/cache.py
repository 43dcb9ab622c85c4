"""Reading a teacher cache through a memory map, and refusing one that is of something else."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from fairseq.data import Dictionary

from fairseq_compress.corpus.files import PathLike, file_sha256
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.teachers.cache_checksums import dictionary_facts, teacher_checksums
from fairseq_compress.teachers.cache_format import read_meta


class TeacherCache:
    """The records of one split. Nothing but the records that are asked for is read into memory.

    Each ``check_...`` refuses, with one line, a cache that is not of what the training uses. Call :meth:`align`
    before :meth:`records`.

    Raises:
        DataError: no finished cache there, a damaged ``meta.json``, or ``records.bin`` has another size than it says.
    """

    def __init__(self, folder: PathLike) -> None:
        self.folder = Path(folder)
        self.meta = read_meta(folder)
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
        """A worker process opens the file itself; pickling a map would copy the file."""
        return {**self.__dict__, "_records": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._records = self._open()

    def align(self, target_sizes: np.ndarray) -> None:
        """Take the lengths of all target sentences (EOS included), which say where each one's records begin.

        Raises:
            DataError: the lengths are not those of the cache.
        """
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
        """Read ``records.bin`` through and compare its checksum.

        Raises:
            DataError: it was altered.
        """
        found = file_sha256(self._path)
        if found != self.meta.sha256:
            raise DataError(f"{self._path}: altered, its sha256 must be {self.meta.sha256}, is {found}")

    def check_data(self, data: Mapping[str, str]) -> None:
        """Compare with :func:`~fairseq_compress.teachers.cache_checksums.data_checksums` of the data in use.

        Raises:
            DataError: other files, or other parts of a split.
        """
        for name in [*self.meta.data, *data]:
            ours, theirs = self.meta.data.get(name), data.get(name)
            if ours != theirs:
                raise DataError(
                    f"{self}: made from other data: {name} has {_short(theirs)}, the cache was made from {_short(ours)}"
                )

    def check_dictionaries(self, source: Dictionary, target: Dictionary) -> None:
        """Compare with the dictionaries of a task, entry by entry in their order.

        Raises:
            DataError: one of them is another.
        """
        for side, dictionary in (("source", source), ("target", target)):
            ours, theirs = self.meta.dictionaries[side], dictionary_facts(dictionary)
            if ours != theirs:
                raise DataError(
                    f"{self}: made with another {side} dictionary, of {ours['entries']} entries and "
                    f"{_short(ours['sha256'])}; the task has {theirs['entries']} entries and {_short(theirs['sha256'])}"
                )

    def check_teacher(self, paths: str, checksums: list[str] | None = None) -> None:
        """Compare with checkpoints separated by ``:``, or with their checksums where those are known already.

        Raises:
            DataError: the cache was made with others.
        """
        found = teacher_checksums(paths) if checksums is None else checksums
        if found != self.meta.teachers:
            raise DataError(
                f"--teacher-path {paths}: is not the teacher of {self}: {_short(*found)}, "
                f"the cache was made with {_short(*self.meta.teachers)}"
            )

    def check_temperature(self, temperature: float) -> None:
        """Compare with the temperature of a training.

        Raises:
            ConfigError: the records hold probabilities at another one.
        """
        if not math.isclose(temperature, self.meta.temperature, rel_tol=1e-6):
            raise ConfigError(
                f"--kd-temperature: must be {self.meta.temperature}, the temperature of {self}, got {temperature}"
            )

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Compare with :func:`~fairseq_compress.teachers.cache_checksums.task_settings` of a task.

        Raises:
            ConfigError: an option of the task gives the teacher something else to read.
        """
        for name, theirs in settings.items():
            ours = self.meta.settings.get(name)
            if ours != theirs:
                raise ConfigError(f"{self}: made with {name}={ours}, the task has {name}={theirs}")

    def check_lengths(self, longest: tuple[int, int]) -> None:
        """Compare the longest sentence of each side that the task lets through with what the teachers read.

        Raises:
            ConfigError: the training may use a sentence whose records say nothing.
        """
        names = ("--max-source-positions", "--max-target-positions")
        for name, ours, theirs in zip(names, self.meta.longest, longest, strict=True):
            if self.meta.unread and theirs > ours:
                raise ConfigError(
                    f"{name}: must be at most {ours}, got {theirs}: {self.meta.unread} longer sentences of {self} "
                    f"were not read by the teacher"
                )

    def __str__(self) -> str:
        return f"--teacher-cache {self.folder}"


def _short(*checksums: str | None) -> str:
    """As much of each checksum as a reader can compare."""
    return ", ".join(f"sha256 {checksum[:16]}" if checksum else "no such file" for checksum in checksums)
