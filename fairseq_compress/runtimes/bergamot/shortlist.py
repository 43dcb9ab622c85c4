"""Files of lexical shortlists as Marian's, ``lex.PAIR.s2t.bin``.

Six 64-bit integers: the magic number, a checksum, the N first entries of all sentences, the M best of each source
entry, and the lengths of two arrays behind them: where the list of each source entry begins (64 bits, one more than
entries), and the lists (32 bits). ``fxtranslate`` does not read the checksum, which is 0 here.
"""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairseq_compress.errors import DataError
from fairseq_compress.runtimes.bergamot.simulation import Shortlist
from fairseq_compress.work.files import PathLike

MAGIC = 0xF11A48D5013417F5
_HEADER = struct.Struct("<6Q")


def serialize_shortlist(first: int, best: int, lists: Sequence[NDArray[np.int64]]) -> bytes:
    """The bytes of a file with the list of each source entry."""
    offsets = np.cumsum([0, *map(len, lists)]).astype("<u8")
    entries = np.concatenate([np.zeros(0, np.int64), *lists]).astype("<u4")
    body = offsets.tobytes() + entries.tobytes()
    return _HEADER.pack(MAGIC, 0, first, best, len(offsets), len(entries)) + body


def read_shortlist(path: PathLike, shared: bool = True) -> Shortlist:
    """Read and check a file; ``shared``: whether both sides have one vocabulary."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    numbers = _HEADER.unpack_from(data) if len(data) >= _HEADER.size else (0,) * 6
    magic, _, first, _, offsets, entries = numbers
    if magic != MAGIC or len(data) != _HEADER.size + 8 * offsets + 4 * entries:
        raise DataError(f"{path}: is truncated, or no shortlist of Marian")
    starts = np.frombuffer(data, "<u8", offsets, _HEADER.size).astype(np.int64)
    lists = np.frombuffer(data, "<u4", entries, _HEADER.size + 8 * offsets).astype(np.int64)
    if not offsets or starts[0] or starts[-1] != entries or (np.diff(starts) < 0).any():
        raise DataError(f"{path}: damaged: its lists must follow each other up to {entries}")
    return Shortlist(first, np.split(lists, starts[1:-1]), shared)
