"""The n-best file: a teacher's hypotheses in source order, each bound to its source line by a checksum.

UTF-8, one hypothesis per line, those of a source together and best first::

    index<TAB>checksum<TAB>score<TAB>hypothesis

``index`` is the number of the source line from 0; ``checksum`` the CRC-32 of that line (8 hexadecimal digits);
``score`` the log-probability divided by length**lenpen in nats, EOS counted. A source that was not translated has one
record with the score ``-inf`` and no text. ``FILE.json`` holds counts and the SHA-256 of both files.
"""

import hashlib
import math
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import IO, Any, NamedTuple

from fairseq_compress.errors import DataError
from fairseq_compress.work.files import HashedStream, PathLike, read_lines
from fairseq_compress.work.manifest import Sidecar, count, sidecar_path

RECORD = re.compile(r"(0|[1-9]\d*)\t([0-9a-f]{8})\t(-?\d+\.\d{6}|-inf)\t(.*)", re.DOTALL)  # the text may hold tabs


class NBestEntry(NamedTuple):
    """One translation of a source, text or pieces."""

    score: float
    text: str


class NBestList(NamedTuple):
    """The translations of one source, best first."""

    index: int  # type: ignore[assignment]  # hides tuple.index
    checksum: str
    hypotheses: list[NBestEntry]

    @property
    def translated(self) -> bool:
        """Whether the source was translated."""
        return self.hypotheses[0].score != -math.inf


@dataclass(frozen=True, kw_only=True)
class NBestManifest(Sidecar, name="n-best"):
    """``FILE.json`` of an n-best file."""

    sentences: int = count()
    hypotheses: int = count()
    source_sha256: str


def source_checksum(line: str) -> str:
    """CRC-32 of a line in UTF-8 without its line end, as 8 hexadecimal digits."""
    return f"{zlib.crc32(line.encode()):08x}"


def untranslated(index: int, checksum: str) -> NBestList:
    """The list of a source that was not translated."""
    return NBestList(index, checksum, [NBestEntry(-math.inf, "")])


def format_list(nbest: NBestList) -> str:
    """The lines of one list, each with its line feed."""
    _check_list(nbest, f"list {nbest.index}")
    return "".join(f"{nbest.index}\t{nbest.checksum}\t{score:.6f}\t{text}\n" for score, text in nbest.hypotheses)


class NBestWriter:
    """Writes lists into a binary stream, then their sidecar."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.sentences = self.hypotheses = 0
        self._stream = HashedStream(stream)

    def write(self, nbest: NBestList) -> None:
        """Append one list."""
        if nbest.index != self.sentences:
            raise DataError(f"n-best lists come in source order: {self.sentences} is next, got {nbest.index}")
        self._stream.write(format_list(nbest))
        self.sentences += 1
        self.hypotheses += len(nbest.hypotheses)

    def write_sidecar(self, path: PathLike, source_sha256: str, facts: Mapping[str, Any]) -> None:
        """Write ``PATH.json``, after the n-best file itself."""
        counts: dict[str, Any] = {"sentences": self.sentences, "hypotheses": self.hypotheses, "sha256": self.sha256}
        NBestManifest(**counts, source_sha256=source_sha256, facts=dict(facts)).write(sidecar_path(path))

    @property
    def sha256(self) -> str:
        """Of the lists written so far."""
        return self._stream.sha256


def read_nbest(path: PathLike, source: PathLike | None = None) -> Iterator[NBestList]:
    """Yield the lists of an n-best file, and verify the file and the translated text ``source``.

    The SHA-256 is known at the end only: discard all results if this raises.
    """
    return (nbest for nbest, _ in _read(path, source))


def read_with_source(path: PathLike, source: PathLike) -> Iterator[tuple[NBestList, str]]:
    """As :func:`read_nbest`, each list with its source line."""
    return _read(path, source)


def _read(path: PathLike, source: PathLike | None) -> Iterator[tuple[NBestList, str]]:
    sidecar, digest, source_digest = NBestManifest.of(path), hashlib.sha256(), hashlib.sha256()
    sentences = hypotheses = 0
    lines = iter(()) if source is None else read_lines(source, source_digest)
    for nbest, place in _lists(path, read_lines(path, digest)):
        line = "" if source is None else _source_line(nbest, lines, place, source)
        sentences, hypotheses = sentences + 1, hypotheses + len(nbest.hypotheses)
        yield nbest, line
    if source is not None and next(lines, None) is not None:
        raise DataError(f"{os.fspath(path)} has {sentences} lists, {os.fspath(source)} has more lines")
    found = {"sentences": sentences, "hypotheses": hypotheses, "sha256": digest.hexdigest()}
    sidecar.check(path, found | ({} if source is None else {"source_sha256": source_digest.hexdigest()}))


def _source_line(nbest: NBestList, lines: Iterator[str], place: str, source: PathLike) -> str:
    line = next(lines, None)
    if line is None:
        raise DataError(f"{place}: list {nbest.index} has no source line, {os.fspath(source)} ends before")
    if (expected := source_checksum(line)) != nbest.checksum:
        raise DataError(
            f"{place}: list {nbest.index} is of another source line than {os.fspath(source)}, line {nbest.index + 1}: "
            f"checksum {nbest.checksum}, that line's is {expected} ({line[:60]!r})"
        )
    return line


def _lists(path: PathLike, lines: Iterable[str]) -> Iterator[tuple[NBestList, str]]:
    """Consecutive records of one index and checksum as a list, and where it starts, for messages."""
    records = (_parse(line, path, number) for number, line in enumerate(lines, start=1))
    for expected, ((index, checksum), group) in enumerate(groupby(records, key=lambda record: record[1:3])):
        members = list(group)
        place = f"{os.fspath(path)}, line {members[0][0]}"
        if index != expected:
            raise DataError(f"{place}: index {expected} must be next, got {index}")
        nbest = NBestList(index, checksum, [entry for *_, entry in members])
        _check_list(nbest, place)
        yield nbest, place


def _parse(line: str, path: PathLike, number: int) -> tuple[int, int, str, NBestEntry]:
    """The number of a line, and its index, checksum and entry."""
    match = RECORD.fullmatch(line)
    if match is None:
        rule = "a record is index, checksum, score and hypothesis with tabs between"
        raise DataError(f"{os.fspath(path)}, line {number}: {rule}, got {line[:80]!r}")
    index, checksum, score, text = match.groups()
    return number, int(index), checksum, NBestEntry(float(score), text)


def _check_list(nbest: NBestList, place: str) -> None:
    if not nbest.hypotheses:
        raise DataError(f"{place}: a list needs at least one hypothesis")
    if nbest.hypotheses == [NBestEntry(-math.inf, "")]:
        return
    previous = math.inf
    for score, text in nbest.hypotheses:
        if not math.isfinite(score):
            raise DataError(f"{place}: a score must be a finite number (-inf alone, without a text), got {score}")
        if score > previous:
            raise DataError(f"{place}: hypotheses must come best first, got {score:.6f} after {previous:.6f}")
        if "\n" in text or text.endswith("\r"):
            raise DataError(f"{place}: a hypothesis must be one line, got {text[:80]!r}")
        previous = score
