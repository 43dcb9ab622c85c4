"""The log of one process of sharded work: an append-only file that is complete after a kill at any byte.

A header line (fingerprint, rank, world size), then one entry per unit: unit, length, CRC-32, payload. A kill leaves at
most a part of the last entry, which the next start cuts off.
"""

import hashlib
import os
import struct
import zlib
from pathlib import Path
from typing import IO

from fairseq_compress.errors import DataError
from fairseq_compress.system import take_lock
from fairseq_compress.work.files import Digest

ENTRY = struct.Struct("<QQI")  # unit, bytes of the payload, CRC-32 of those two numbers and the payload
NUMBERS = struct.Struct("<QQ")


class UnitLog:
    """A log open for writing, locked for this process until it is closed.

    Args:
        path: created if missing.
        header: its first line.
        first, step: the units are first, first + step, first + 2 step, ...
    """

    def __init__(self, path: Path, header: bytes, first: int, step: int) -> None:
        self.path = path
        self.count = 0
        """Complete entries."""
        self._first, self._step = first, step
        self._digest: Digest = hashlib.sha256(header)
        self._file = open(path, "a+b")  # noqa: SIM115 - "a+" creates the file and never empties it
        try:
            self._recover(header)
        except BaseException:
            self._file.close()
            raise

    @property
    def next_unit(self) -> int:
        """The unit that :meth:`append` takes next."""
        return self._first + self.count * self._step

    @property
    def size(self) -> int:
        """Bytes."""
        return self._file.tell()

    @property
    def sha256(self) -> str:
        """Of the whole file, in hexadecimal."""
        return self._digest.hexdigest()

    def append(self, payload: bytes) -> None:
        """Write the entry of :attr:`next_unit`; it is on the disk when this returns."""
        entry = pack_entry(self.next_unit, payload)
        self._file.write(entry)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._digest.update(entry)
        self.count += 1

    def close(self) -> None:
        """Release the lock."""
        self._file.close()

    def _recover(self, header: bytes) -> None:
        """Lock the file, count its complete entries and cut off the rest."""
        if not take_lock(self._file):
            raise DataError(f"{self.path}: another process is working on this rank")
        self._file.seek(0)
        start = self._file.read(len(header))
        if not header.startswith(start):
            raise DataError(f"{self.path}: belongs to another run; remove {self.path.parent} to start again")
        if start != header:
            self._file.truncate(0)
            self._file.write(header)
        end = len(header)
        while (payload := read_entry(self._file, self.next_unit)) is not None:
            entry = pack_entry(self.next_unit, payload)
            self._digest.update(entry)
            end += len(entry)
            self.count += 1
        self._file.truncate(end)
        self._file.seek(end)


def open_sealed(path: Path, header: bytes, size: int) -> IO[bytes]:
    """Open a finished log for reading, positioned after its header."""
    try:
        log = open(path, "rb")  # noqa: SIM115 - the caller closes it
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    found = os.fstat(log.fileno()).st_size
    if found == size and log.read(len(header)) == header:
        return log
    log.close()
    problem = f"must have {size} bytes, has {found}"
    raise DataError(f"{path}: {problem if found != size else 'belongs to another run (its header differs)'}")


def pack_entry(unit: int, payload: bytes) -> bytes:
    """The bytes of an entry."""
    numbers = NUMBERS.pack(unit, len(payload))
    return ENTRY.pack(unit, len(payload), zlib.crc32(payload, zlib.crc32(numbers))) + payload


def read_entry(log: IO[bytes], unit: int) -> bytes | None:
    """The payload of the next entry, or None unless it is complete and of ``unit``."""
    head = log.read(ENTRY.size)
    if len(head) < ENTRY.size:
        return None
    found, length, checksum = ENTRY.unpack(head)
    # A damaged length may be anything: compare it with the file before so much is read.
    if found != unit or length > os.fstat(log.fileno()).st_size - log.tell():
        return None
    payload = log.read(length)
    if zlib.crc32(payload, zlib.crc32(NUMBERS.pack(found, length))) != checksum:
        return None
    return payload
