"""Text in two vocabularies, the teacher's and the student's: words are stored, and segmented when they are read.

One folder for all parts (train, valid, ...) of a pair of languages. A type is a word that is cut in one way by each
vocabulary; T types have R pieces in both vocabularies together. All integers are little-endian.

======================================================================  ===============================================
``PART.LANG.types.bin``                                                 int32, the type of every word
``PART.LANG.offsets.bin``                                               int64 (N + 1,): where its N sentences begin
``pieces.bin``                                                          int32 (R,): pieces of all types by the teacher,
                                                                        then of all by the student, as union ids
``pieces.offsets.bin``                                                  int64 (2 T + 1,): where their pieces begin
``dict.teacher.txt``, ``dict.student.txt``                              the dictionaries of the two vocabularies
``dict.union.txt``                                                      the teacher's entries, then the student's others
``teacher_to_union.bin``, ``student_to_union.bin``                      int32, the union id of every dictionary id
``meta.json``                                                           counts, SHA-256 of all files and of the models
======================================================================  ===============================================

Ids are those of fairseq: four special entries, :data:`SPECIALS`, then the lines of the dictionary.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fairseq_compress.errors import DataError
from fairseq_compress.work.files import PathLike
from fairseq_compress.work.manifest import Manifest, check_checksums, count

Integers: TypeAlias = NDArray[np.integer[Any]]

META = "meta.json"
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
PAD, EOS, UNK = map(SPECIALS.index, SPECIALS[1:])
VOCABULARIES = ("teacher", "student")
DICTIONARIES = tuple(f"dict.{name}.txt" for name in (*VOCABULARIES, "union"))
SENTENCES_AT_ONCE = 1 << 16


@dataclass(frozen=True, kw_only=True)
class DualTextManifest(Manifest, name="dual text", written_by="encode-dual"):
    """``meta.json`` of a folder."""

    languages: list[str]
    parts: dict[str, dict[str, Any]]
    """Sentences of each part, and its words by language."""
    models: dict[str, str]
    """SHA-256 of the SentencePiece models."""
    entries: dict[str, int]
    """Of the dictionaries, fairseq's special entries included."""
    types: int = count()
    pieces: dict[str, int]
    unknown_pieces: dict[str, int]
    sha256: dict[str, str]
    """Of all other files."""

    @classmethod
    def of(cls, folder: PathLike) -> "DualTextManifest":
        """The manifest of a folder."""
        return cls.read(Path(folder) / META)

    def problems(self) -> Iterator[str]:
        rules = (
            ("languages", len(self.languages) == 2, "two languages", self.languages),
            ("pieces", set(self.pieces) == set(VOCABULARIES), f"for {' and '.join(VOCABULARIES)}", list(self.pieces)),
            ("sha256", self.sha256.keys() >= set(DICTIONARIES), f"of {', '.join(DICTIONARIES)}", list(self.sha256)),
        )
        yield from (f"{name}: must be {rule}, got {found}" for name, holds, rule, found in rules if not holds)
        counts: list[Any] = [*self.entries.values(), *self.pieces.values()]
        for part in self.parts.values():
            words = part.get("words") or {}
            counts += [part.get("sentences"), *(words.get(language) for language in self.languages)]
        if not all(type(count) is int and count >= 0 for count in counts):
            yield f"parts, entries and pieces: must be counts of at least 0, got {counts}"


class Sizes(NamedTuple):
    """Sizes of N sentences, each (N,) int32, the end of the sentence not counted."""

    words: Integers
    teacher: Integers
    """Pieces of the teacher's vocabulary."""
    student: Integers
    longest: Integers
    """Pieces where each word has its longer segmentation: an upper bound of all mixtures."""


class DualText:
    """One language of one part (such as ``train``) of a folder of ``encode-dual``, memory-mapped."""

    def __init__(self, folder: PathLike, part: str, language: str) -> None:
        self.folder, self.part, self.language = Path(folder), part, language
        self.meta = DualTextManifest.of(folder)
        languages, parts = self.meta.languages, self.meta.parts
        if language not in languages or part not in parts:
            raise DataError(
                f"{folder}: has no part {part!r} in {language!r}, but {', '.join(parts)} in {' and '.join(languages)}"
            )
        names = (*DICTIONARIES, *(f"{name}_to_union.bin" for name in VOCABULARIES))
        check_checksums({name: self.meta.sha256[name] for name in names}, f"{self.folder}{os.sep}", META)
        self.types: int = self.meta.types
        self._words = self._map(f"{part}.{language}.types.bin", np.int32, parts[part]["words"][language])
        self._offsets = self._map(f"{part}.{language}.offsets.bin", np.int64, parts[part]["sentences"] + 1)
        self._piece_offsets = self._map("pieces.offsets.bin", np.int64, 2 * self.types + 1)
        self._pieces = self._map("pieces.bin", np.int32, sum(self.meta.pieces.values()))
        self.entries: dict[str, int] = self.meta.entries
        self.teacher_to_union, self.student_to_union = (
            self._map(f"{name}_to_union.bin", np.int32, self.entries[name]) for name in VOCABULARIES
        )

    def __reduce__(self) -> tuple[type["DualText"], tuple[Path, str, str]]:
        return DualText, (self.folder, self.part, self.language)  # a worker process maps the files itself

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def word_types(self, index: int) -> Integers:
        """The types of the words of a sentence, (W,) int32."""
        return self._words[self._offsets[index] : self._offsets[index + 1]]

    def batch(self, indices: Integers) -> tuple[Integers, Integers]:
        """The types of the words of B sentences, one after the other, (W,), and the words of each, (B,) int64."""
        starts = self._offsets[indices]
        counts = self._offsets[indices + 1] - starts
        return self._words[ragged_places(starts, counts)], counts

    @cached_property
    def sizes(self) -> Sizes:
        """Words and pieces of all sentences; reads the whole text once."""
        found = Sizes(*(np.zeros(len(self), dtype=np.int32) for _ in Sizes._fields))
        pieces = np.diff(self._piece_offsets).astype(np.int32)
        teacher, student = pieces[: self.types], pieces[self.types :]
        self._check_offsets(self._piece_offsets, len(self._pieces), "pieces.offsets.bin")
        if len(self._pieces) and not UNK <= self._pieces.min() <= self._pieces.max() < self.entries["union"]:
            raise DataError(f"{self.folder}/pieces.bin: damaged, a piece is no entry of dict.union.txt")
        self._check_offsets(self._offsets, len(self._words), f"{self.part}.{self.language}.offsets.bin")
        for start in range(0, len(self), SENTENCES_AT_ONCE):
            part = slice(start, min(start + SENTENCES_AT_ONCE, len(self)))
            offsets = self._offsets[part.start : part.stop + 1]
            types = self._words[offsets[0] : offsets[-1]]
            if len(types) and not 0 <= types.min() <= types.max() < self.types:
                raise DataError(f"{self.folder}/{self.part}.{self.language}.types.bin: damaged, a word is of no type")
            found.words[part] = np.diff(offsets)
            for total, counts in zip(found[1:], (teacher, student, np.maximum(teacher, student)), strict=True):
                sums = np.concatenate([[0], np.cumsum(counts[types], dtype=np.int64)])
                total[part] = np.diff(sums[offsets - offsets[0]])
        return found

    def segment(self, types: Integers, use_teacher: NDArray[np.bool_]) -> tuple[Integers, Integers]:
        """Segment words of ``types`` (W,), by the teacher's vocabulary where ``use_teacher`` (W,) is true.

        Returns:
            (P,) union ids of the pieces, int32, and (P,) the numbers of their words, from 0.
        """
        rows = np.where(use_teacher, types, types + self.types)
        starts = self._piece_offsets[rows]
        counts = self._piece_offsets[rows + 1] - starts
        return self._pieces[ragged_places(starts, counts)], np.repeat(np.arange(len(types)), counts)

    def teacher(self, types: Integers) -> tuple[Integers, Integers]:
        """As :meth:`segment` with the teacher's vocabulary only, as ids of its dictionary."""
        ids, words = self.segment(types, np.ones(len(types), dtype=bool))
        return self._from_union[0][ids], words

    def student(self, types: Integers) -> tuple[Integers, Integers]:
        """As :meth:`segment` with the student's vocabulary only, as ids of its dictionary."""
        ids, words = self.segment(types, np.zeros(len(types), dtype=bool))
        return self._from_union[1][ids], words

    @cached_property
    def _from_union(self) -> Integers:
        inverse = np.full((2, self.entries["union"]), UNK, dtype=np.int32)
        for row, to_union in zip(inverse, (self.teacher_to_union, self.student_to_union), strict=True):
            row[to_union] = np.arange(len(to_union), dtype=np.int32)
        return inverse

    def _map(self, name: str, dtype: type[np.integer[Any]], count: int) -> Integers:
        path, kind = self.folder / name, np.dtype(dtype).newbyteorder("<")
        try:
            size = path.stat().st_size
            if size != count * kind.itemsize:
                raise DataError(f"{path}: must have {count * kind.itemsize:,} bytes by {META}, got {size:,}")
            # Slices of np.memmap itself cost more than what is read; and an empty file cannot be mapped.
            return np.asarray(np.memmap(path, kind, mode="r")) if count else np.empty(0, kind)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from None

    def _check_offsets(self, offsets: Integers, end: int, name: str) -> None:
        if offsets[0] != 0 or offsets[-1] != end or (np.diff(offsets) < 0).any():
            raise DataError(f"{self.folder / name}: damaged, offsets must rise from 0 to {end:,}")


def ragged_places(starts: Integers, counts: Integers) -> Integers:
    """The concatenated ranges start, start + 1, ..., start + count - 1."""
    before = np.cumsum(counts) - counts
    return np.arange(counts.sum()) + np.repeat(starts - before, counts)
