"""Lines as words, and each word as its pieces in two sentencepiece vocabularies.

A word is what white space separates in the line as the models normalize it. Pieces of a model that was trained with
sentencepiece's defaults never cross white space, and the mark U+2581 that begins a piece begins a word.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import takewhile, tee

from fairseq_compress.corpus.normalization import PIECE_SPACE, normalize_line
from fairseq_compress.corpus.segmentation.sentencepiece_model import SentencePiece
from fairseq_compress.errors import DataError
from fairseq_compress.work.files import PathLike

Word = str
"""The pieces of a word, separated by spaces; the mark of the word begins the first one."""

BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
# Planes 4 to 13 have no characters, and those of planes 15 and 16 mean nothing to a normalizer.
CHARACTERS = (*range(0x20, 0xD800), *range(0xE000, 0x40000), *range(0xE0000, 0xE1000))
PROBE_WORDS = 256  # in a line
REMEMBERED_PAIRS = 1 << 18


class WordSegmenter(SentencePiece):
    """A sentencepiece model that cuts lines into words and these into pieces."""

    def __init__(self, model: PathLike) -> None:
        super().__init__(model)
        pieces = self.entries()
        if crossing := [piece for piece in pieces if PIECE_SPACE in piece[1:]]:
            raise DataError(
                f"{self.path}: {PIECE_SPACE} may only begin a piece (split_by_whitespace on, "
                f"treat_whitespace_as_suffix off), got {len(crossing)} others, such as {crossing[0]!r}"
            )
        if PIECE_SPACE not in pieces:
            raise DataError(f"{self.path}: needs the piece {PIECE_SPACE}, so that a piece can begin with every word")
        self._has_bytes = any(self._processor.is_byte(index) for index in range(len(self._processor)))

    def words(self, lines: Iterable[str]) -> Iterator[list[Word]]:
        """Yield the words of each line; an empty line has none."""
        boundary, cut = f" {PIECE_SPACE}", f"\n{PIECE_SPACE}"  # no normalized line has a line feed
        for line in self.encode(lines):
            yield line.replace(boundary, cut).split("\n") if line else []

    def normalize(self, lines: Iterable[str]) -> list[str]:
        """Each line as the model sees it: by :func:`normalize_line`, then by the rules inside the model."""
        normalized: list[str] = self._processor.normalize([normalize_line(line) for line in lines])
        return normalized

    def spelling(self, word: Word) -> bytes:
        """The text of a word in UTF-8; pieces ``<0x..>`` are bytes if the model has such, an unknown one is itself."""
        pieces = word.removeprefix(PIECE_SPACE).split(" ")
        if not self._has_bytes:
            return "".join(pieces).encode()
        return b"".join(
            bytes.fromhex(match[1]) if (match := BYTE_PIECE.fullmatch(piece)) else piece.encode() for piece in pieces
        )


class DualSegmenter:
    """Two sentencepiece models, teacher's and student's, that agree on the words of every line."""

    def __init__(self, teacher: PathLike, student: PathLike) -> None:
        self.teacher, self.student = WordSegmenter(teacher), WordSegmenter(student)
        self._agreed: set[tuple[Word, Word]] = set()
        self._check_normalizers()

    def pairs(self, lines: Iterable[str], name: str) -> Iterator[list[tuple[Word, Word]]]:
        """Yield the words of each line, each in the teacher's and in the student's pieces; ``name``: for messages."""
        first, second = tee(lines)
        both = zip(self.teacher.words(first), self.student.words(second), strict=True)
        for number, (teacher, student) in enumerate(both, start=1):
            pairs = list(zip(teacher, student, strict=False))
            if not self._agreed.issuperset(pairs):
                self._check_spelling(pairs, f"{name}, line {number}")
            if len(teacher) != len(student):
                raise DataError(
                    f"{name}, line {number}: both models must find the same words, {self.teacher.path} finds "
                    f"{len(teacher)}, {self.student.path} {len(student)}"
                )
            yield pairs

    def _check_spelling(self, pairs: list[tuple[Word, Word]], place: str) -> None:
        for number, (teacher, student) in enumerate(pairs, start=1):
            if self.teacher.spelling(teacher) != self.student.spelling(student):
                raise DataError(
                    f"{place}, word {number}: both models must spell it alike, {self.teacher.path} has {teacher!r}, "
                    f"{self.student.path} {student!r}"
                )
        if len(self._agreed) > REMEMBERED_PAIRS:  # they are remembered for speed only
            self._agreed.clear()
        self._agreed.update(pairs)

    def _check_normalizers(self) -> None:
        for probe in probes():
            teacher, student = (model.normalize([probe])[0] for model in (self.teacher, self.student))
            if teacher != student:
                same = (one == other for one, other in zip(teacher, student, strict=False))
                start = max(0, sum(takewhile(bool, same)) - 2)
                one, other = (text[start : start + 10] for text in (teacher, student))
                raise DataError(
                    f"{self.teacher.path} and {self.student.path}: must normalize text alike, got {one!r} and {other!r}"
                )


@cache
def probes() -> tuple[str, ...]:
    """Lines with every character, each at the start and at the end of a word."""
    words = [f"{chr(code)}x{chr(code)}" for code in CHARACTERS]
    return tuple(" ".join(words[start : start + PROBE_WORDS]) for start in range(0, len(words), PROBE_WORDS))
