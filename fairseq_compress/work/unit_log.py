"""The log of one process of a sharded work: what its units gave, whole after a kill at any byte.

A header line (the run's fingerprint, rank and number of ranks), then one entry a unit: unit, length, CRC-32, payload.
A kill leaves a part of the last entry at most; the next start cuts off what is not whole.
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
        path: of the log; made if it is not there.
        header: one line; a file with another one is not ours.
        first: the first unit of this log.
        step: how far the units of this log are apart.

    Raises:
        DataError: another process has the log open, or the header differs.
    """

    def __init__(self, path: Path, header: bytes, first: int, step: int) -> None:
        self.path = path
        self.count = 0
        """Whole entries."""
        self._first, self._step = first, step
        self._digest: Digest = hashlib.sha256(header)
        self._file = open(path, "a+b")  # noqa: SIM115 - "a+" makes the file and empties none
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
        """Give the lock back."""
        self._file.close()

    def _recover(self, header: bytes) -> None:
        """Lock the file, count its whole entries and cut off what follows them."""
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
    """Open a finished log for reading, behind its header.

    Raises:
        DataError: it is missing, has another size, or another header.
    """
    try:
        log = open(path, "rb")  # noqa: SIM115 - the caller closes it
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    found = os.fstat(log.fileno()).st_size
    problem = None
    if found != size:
        problem = f"must have {size} bytes, has {found}"
    elif log.read(len(header)) != header:
        problem = "belongs to another run (its header differs)"
    if problem:
        log.close()
        raise DataError(f"{path}: {problem}")
    return log


def pack_entry(unit: int, payload: bytes) -> bytes:
    """The bytes of an entry."""
    numbers = NUMBERS.pack(unit, len(payload))
    return ENTRY.pack(unit, len(payload), zlib.crc32(payload, zlib.crc32(numbers))) + payload


def read_entry(log: IO[bytes], unit: int) -> bytes | None:
    """The payload of the entry that comes next, or None unless it is whole and that of ``unit``."""
    head = log.read(ENTRY.size)
    if len(head) < ENTRY.size:
        return None
    found, length, checksum = ENTRY.unpack(head)
    # The length of a damaged entry may be anything, so it is compared with the file before that much is read.
    if found != unit or length > os.fstat(log.fileno()).st_size - log.tell():
        return None
    payload = log.read(length)
    if zlib.crc32(payload, zlib.crc32(NUMBERS.pack(found, length))) != checksum:
        return None
    return payload
