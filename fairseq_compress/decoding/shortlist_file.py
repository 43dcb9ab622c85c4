"""Files of lexical shortlists: a line of JSON, and behind it little-endian integers without a sign.

The integers are the entries that are always there, the length of the list of each source entry (all in two bytes or
all in four, as ``width`` says), and the lists one behind another.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_compress.decoding.shortlist import Lists, Shortlist
from fairseq_compress.errors import DataError
from fairseq_compress.options import option
from fairseq_compress.work.files import PathLike, atomic_write
from fairseq_compress.work.manifest import Manifest, count

NARROW = 1 << 16  # ids below it fit two bytes


@dataclass(frozen=True, kw_only=True)
class ShortlistHeader(Manifest, name="shortlist", version=1, written_by="shortlist"):
    """The first line of a file."""

    first: int = count()
    best: int = count()
    links: int = count()
    """Links between tokens that were counted."""
    source_entries: int = option(range="[1, inf)")
    target_entries: int = option(range="[1, inf)")
    source_dictionary: str
    """SHA-256 of the entries, as in ``metadata.json`` of a model directory."""
    target_dictionary: str
    always: int = count()
    entries: int = count()
    """Numbers of ids, as in :class:`fairseq_compress.decoding.shortlist.Lists`."""
    width: int = option(choices=(2, 4))
    sha256: str
    """Of what is behind the first line."""

    def problems(self) -> Iterator[str]:
        if self.always > self.target_entries:
            yield f"always: must be at most target_entries ({self.target_entries}), got {self.always}"


@dataclass(frozen=True)
class ShortlistFile:
    """A file that was read."""

    path: PathLike
    header: ShortlistHeader
    lists: Lists

    def check_dictionaries(self, vocabulary: Mapping[str, Any], sizes: tuple[int, int]) -> None:
        """Refuse the shortlist of other dictionaries.

        Args:
            vocabulary: has the checksums ``source_dictionary`` and ``target_dictionary``.
            sizes: entries of both.
        """
        for side, size in zip(("source", "target"), sizes, strict=True):
            header = vars(self.header)
            wanted = size, vocabulary[f"{side}_dictionary"]
            found = header[f"{side}_entries"], header[f"{side}_dictionary"]
            if found != wanted:
                own, other = (f"{count} entries, SHA-256 {sha256[:8]}..." for count, sha256 in (wanted, found))
                raise DataError(f"{self.path}: must be of the model's {side} dictionary ({own}), got {other}")

    def facts(self) -> dict[str, Any]:
        """What is told of it in the metadata of a model directory."""
        return {name: getattr(self.header, name) for name in ("first", "best", "links", "sha256")}

    def open(self, special: int) -> Shortlist:
        """The shortlist for a model; see :class:`Shortlist`."""
        header = self.header
        shared = header.source_dictionary == header.target_dictionary
        return Shortlist(self.lists, header.target_entries, shared, special)


def write_shortlist(path: PathLike, lists: Lists, **facts: Any) -> ShortlistHeader:
    """Write a file; ``facts`` are the fields of its header that do not follow from the lists."""
    largest = max(facts["target_entries"], int(np.diff(lists.offsets).max(initial=0)) + 1)
    width = 2 if largest <= NARROW else 4
    parts = (lists.always, np.diff(lists.offsets), lists.entries)
    body = b"".join(part.astype(f"<u{width}").tobytes() for part in parts)
    header = ShortlistHeader(
        **facts, always=len(lists.always), entries=len(lists.entries), width=width,
        sha256=hashlib.sha256(body).hexdigest(),
    )  # fmt: skip
    line = json.dumps({"format": header.format, **asdict(header)})
    with atomic_write(path, "wb") as stream:
        stream.write(line.encode() + b"\n" + body)
    return header


def read_shortlist(path: PathLike) -> ShortlistFile:
    """Read and verify a file."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; fairseq-compress shortlist writes it") from None
    line, _, body = data.partition(b"\n")
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        raise DataError(f"{path}: is no shortlist of fairseq-compress: its first line must be JSON") from None
    header = ShortlistHeader.parse(content, path)
    size = (header.always + header.source_entries + header.entries) * header.width
    if len(body) != size:
        raise DataError(f"{path}: must have {size} bytes behind its first line, has {len(body)}")
    if hashlib.sha256(body).hexdigest() != header.sha256:
        raise DataError(f"{path}: was altered: its SHA-256 is not that of its first line")
    return ShortlistFile(path, header, _lists(header, body, path))


def _lists(header: ShortlistHeader, body: bytes, path: PathLike) -> Lists:
    whole = np.frombuffer(body, f"<u{header.width}").astype(np.int64)
    always, counts, entries = np.split(whole, [header.always, header.always + header.source_entries])
    if counts.sum() != len(entries):
        raise DataError(f"{path}: damaged: its lists must have {len(entries)} entries, have {counts.sum()}")
    largest = max(always.max(initial=0), entries.max(initial=0))
    if largest >= header.target_entries:
        raise DataError(f"{path}: damaged: ids must be in [0, {header.target_entries}), one is {largest}")
    return Lists(always, np.concatenate([[0], counts.cumsum()]), entries)
