"""The n-best file: hypotheses of a teacher in source order, each bound to its source line by a checksum.

UTF-8, one hypothesis a line, the hypotheses of a source together and best first::

    index<TAB>checksum<TAB>score<TAB>hypothesis

``index`` is the number of the source line from 0; ``checksum`` the CRC-32 of that line (8 hexadecimal digits), so that
a file that slipped by one line is noticed wherever it is read beside its source; ``score`` the log-probability divided
by length**lenpen in nats, where the length counts the end of the sentence. A source that was not translated has one
record, with the score ``-inf`` and no text. ``FILE.json`` beside it holds the counts and the SHA-256 of both files.
"""

import hashlib
import json
import math
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import IO, Any, NamedTuple

from fairseq_compress.errors import DataError
from fairseq_compress.work.files import PathLike, atomic_write, read_lines

FORMAT = "fairseq-compress n-best 1"
KEYS = ("sentences", "hypotheses", "sha256", "source_sha256", "facts")
RECORD = re.compile(r"(0|[1-9]\d*)\t([0-9a-f]{8})\t(-?\d+\.\d{6}|-inf)\t(.*)", re.DOTALL)  # the text may hold tabs


class Hypothesis(NamedTuple):
    """One translation of a source."""

    score: float
    """Length-normalized log-probability in nats."""
    text: str
    """One line, as the decoder wrote it: pieces, if it decoded pieces."""


class NBestList(NamedTuple):
    """The hypotheses of one source, best first."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    """Number of the source line, from 0."""
    checksum: str
    """:func:`source_checksum` of the source line."""
    hypotheses: list[Hypothesis]

    @property
    def translated(self) -> bool:
        """False for a source that the decoder left out."""
        return self.hypotheses[0].score != -math.inf


class _Record(NamedTuple):
    number: int  # line of the file, from 1
    key: tuple[int, str]  # index and checksum
    hypothesis: Hypothesis


def source_checksum(line: str) -> str:
    """CRC-32 of the line in UTF-8, without its line end: 8 hexadecimal digits."""
    return f"{zlib.crc32(line.encode()):08x}"


def untranslated(index: int, checksum: str) -> NBestList:
    """The list of a source that the decoder left out."""
    return NBestList(index, checksum, [Hypothesis(-math.inf, "")])


def format_list(nbest: NBestList) -> str:
    """The lines of one list, each with its line feed.

    Raises:
        DataError: there is no hypothesis, a text holds a line feed, a score is no number or above the one before it,
            or a score of ``-inf`` is anywhere but in :func:`untranslated`.
    """
    _check_list(nbest, f"list {nbest.index}")
    return "".join(f"{nbest.index}\t{nbest.checksum}\t{score:.6f}\t{text}\n" for score, text in nbest.hypotheses)


def sidecar_path(path: PathLike) -> Path:
    """Where the facts of an n-best file are: ``FILE.json``."""
    return Path(f"{os.fspath(path)}.json")


def write_sidecar(
    path: PathLike, sentences: int, hypotheses: int, sha256: str, source_sha256: str, facts: Mapping[str, Any]
) -> None:
    """Write ``PATH.json`` for the n-best file ``path``; after the file itself, so that it never speaks of another."""
    digests = {"sha256": sha256, "source_sha256": source_sha256}
    content = {"format": FORMAT, "sentences": sentences, "hypotheses": hypotheses, **digests, "facts": dict(facts)}
    with atomic_write(sidecar_path(path)) as stream:
        stream.write(json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def read_sidecar(path: PathLike, file_format: str = FORMAT, keys: Sequence[str] = KEYS) -> dict[str, Any]:
    """The facts of the file ``path``, an n-best file by default.

    Raises:
        DataError: they are missing, damaged, or of another format.
    """
    name = sidecar_path(path)
    try:
        facts = json.loads(name.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {name}, which belongs to {os.fspath(path)}: {error.strerror}") from error
    except ValueError as error:  # not JSON, or not UTF-8
        raise DataError(f"{name}: not valid JSON ({error})") from error
    found = facts.get("format") if isinstance(facts, dict) else facts
    if found != file_format:
        raise DataError(f"{name}: the format must be {file_format!r}, got {found!r}")
    if missing := [key for key in keys if key not in facts]:
        raise DataError(f"{name}: {', '.join(missing)} missing")
    return dict(facts)


def check_facts(path: PathLike, facts: Mapping[str, Any], found: Mapping[str, object]) -> None:
    """Compare what was found in a file with its sidecar.

    Raises:
        DataError: naming the first fact that differs.
    """
    for name, value in found.items():
        if facts[name] != value:
            raise DataError(f"{os.fspath(path)}: {name} must be {facts[name]} as in {sidecar_path(path)}, got {value}")


class NBestWriter:
    """Writes lists into a binary stream and counts what the sidecar tells.

    Raises (``write``):
        DataError: a list is out of order or breaks a rule of :func:`format_list`.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.sentences = 0
        self.hypotheses = 0
        self._stream = stream
        self._digest = hashlib.sha256()

    def write(self, nbest: NBestList) -> None:
        """Append one list; its index must be the next one."""
        if nbest.index != self.sentences:
            raise DataError(f"n-best lists come in source order: {self.sentences} is next, got {nbest.index}")
        data = format_list(nbest).encode()
        self._digest.update(data)
        self._stream.write(data)
        self.sentences += 1
        self.hypotheses += len(nbest.hypotheses)

    @property
    def sha256(self) -> str:
        """Of what was written so far."""
        return self._digest.hexdigest()


def read_nbest(path: PathLike, source: PathLike | None = None) -> Iterator[NBestList]:
    """Yield the lists of an n-best file, one after the other, and verify the file on the way.

    The SHA-256 is known at the end only: whoever writes an output from the lists must throw it away when this raises.

    Args:
        source: the text that was translated; each line is compared with the checksum of its list.

    Raises:
        DataError: a file is missing or not UTF-8; a line is no record; an index is left out, repeated or out of order;
            a list does not belong to its source line; counts or SHA-256 differ from the sidecar's. The first line that
            is off is named.
    """
    if source is not None:
        yield from (nbest for nbest, _ in read_with_source(path, source))
        return
    facts, digest = read_sidecar(path), hashlib.sha256()
    counts = {"sentences": 0, "hypotheses": 0}
    for nbest, _ in _lists(path, read_lines(path, digest)):
        counts["sentences"] += 1
        counts["hypotheses"] += len(nbest.hypotheses)
        yield nbest
    check_facts(path, facts, {**counts, "sha256": digest.hexdigest()})


def read_with_source(path: PathLike, source: PathLike) -> Iterator[tuple[NBestList, str]]:
    """As :func:`read_nbest`, each list with its source line.

    Raises:
        DataError: as :func:`read_nbest`.
    """
    facts, digest, source_digest = read_sidecar(path), hashlib.sha256(), hashlib.sha256()
    counts = {"sentences": 0, "hypotheses": 0}
    lines = read_lines(source, source_digest)
    for nbest, place in _lists(path, read_lines(path, digest)):
        line = next(lines, None)
        if line is None:
            raise DataError(f"{place}: list {nbest.index} has no source line, {os.fspath(source)} ends before")
        _check_source(nbest, line, place, source)
        counts["sentences"] += 1
        counts["hypotheses"] += len(nbest.hypotheses)
        yield nbest, line
    if next(lines, None) is not None:
        raise DataError(f"{os.fspath(path)} has {counts['sentences']} lists, {os.fspath(source)} has more lines")
    check_facts(path, facts, {**counts, "sha256": digest.hexdigest(), "source_sha256": source_digest.hexdigest()})


def _lists(path: PathLike, lines: Iterable[str]) -> Iterator[tuple[NBestList, str]]:
    """Consecutive records of one index and checksum as a list, and where it starts, for messages."""
    records = (_parse(line, path, number) for number, line in enumerate(lines, start=1))
    for expected, ((index, checksum), group) in enumerate(groupby(records, key=lambda record: record.key)):
        members = list(group)
        place = f"{os.fspath(path)}, line {members[0].number}"
        if index != expected:
            raise DataError(f"{place}: index {expected} must be next, got {index}")
        nbest = NBestList(index, checksum, [record.hypothesis for record in members])
        _check_list(nbest, place)
        yield nbest, place


def _parse(line: str, path: PathLike, number: int) -> _Record:
    match = RECORD.fullmatch(line)
    if match is None:
        rule = "a record is index, checksum, score and hypothesis with tabs between"
        raise DataError(f"{os.fspath(path)}, line {number}: {rule}, got {line[:80]!r}")
    index, checksum, score, text = match.groups()
    return _Record(number, (int(index), checksum), Hypothesis(float(score), text))


def _check_list(nbest: NBestList, place: str) -> None:
    if not nbest.hypotheses:
        raise DataError(f"{place}: a list needs at least one hypothesis")
    if nbest.hypotheses == [Hypothesis(-math.inf, "")]:
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


def _check_source(nbest: NBestList, line: str, place: str, source: PathLike) -> None:
    if (expected := source_checksum(line)) != nbest.checksum:
        raise DataError(
            f"{place}: list {nbest.index} is of another source line than {os.fspath(source)}, line {nbest.index + 1}: "
            f"checksum {nbest.checksum}, that line's is {expected} ({line[:60]!r})"
        )
