"""Strict reading of text and atomic writing of files.

A line ends at a line feed and nowhere else: ``str.splitlines`` also cuts at U+2028, U+0085, form feeds and more, which
would misalign a parallel corpus.
"""

import codecs
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, Protocol, TypeVar

from fairseq_compress.errors import ConfigError, DataError

Item = TypeVar("Item")
PathLike = str | os.PathLike[str]
COUNT_BLOCK_BYTES = 1 << 20


@contextmanager
def atomic_write(path: PathLike, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Open ``path`` for writing; it appears complete when the block ends, and not at all when the block fails.

    The data go to ``PATH.tmp-PID``, are flushed to the disk and renamed. Missing folders are created. Text is UTF-8
    with line feeds. A link is followed; a device or a pipe (``/dev/stdout``) is written directly.
    """
    if mode not in ("w", "wb"):
        raise ConfigError(f"mode: must be 'w' or 'wb', got {mode!r}")
    if os.path.isdir(path):
        raise DataError(f"cannot write {os.fspath(path)}: it is a folder")
    if os.path.exists(path) and not os.path.isfile(path):
        with _open_for_writing(path, mode) as stream:
            yield stream
        return
    target = Path(os.path.realpath(path))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {target.parent}: {error.strerror}") from error
    temporary = target.with_name(f"{target.name}.tmp-{os.getpid()}")
    try:
        with _open_for_writing(temporary, mode) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException:  # also Ctrl-C: no half file may stay
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(output: PathLike) -> Iterator[Path]:
    """A temporary folder that gets its name when the block ends, and goes when it fails."""
    path = Path(output)
    if os.path.lexists(path):
        raise ConfigError(f"--output: must not be there yet, {path} is")
    folder = path.with_name(f".{path.name}.tmp")
    try:
        shutil.rmtree(folder, ignore_errors=True)  # of a killed process
        folder.mkdir(parents=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {path}: {error.strerror}") from error
    try:
        yield folder
        for file in folder.iterdir():
            with open(file, "rb") as stream:
                os.fsync(stream.fileno())
        os.rename(folder, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Digest(Protocol):
    """A hash of ``hashlib``."""

    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


def read_lines(path: PathLike, digest: Digest | None = None) -> Iterator[str]:
    """Yield the lines of a UTF-8 file without their ends (LF or CRLF) and without a byte order mark.

    Args:
        digest: updated with the bytes that are read; after the last line it is that of the whole file.
    """
    try:
        with open(path, "rb") as stream:
            for number, raw in enumerate(stream, start=1):
                if digest is not None:
                    digest.update(raw)
                if number == 1:
                    raw = raw.removeprefix(codecs.BOM_UTF8)
                yield _decode_line(raw.removesuffix(b"\n").removesuffix(b"\r"), path, number)
    except OSError as error:
        raise _unreadable(path, error) from error


def count_lines(path: PathLike) -> int:
    """The number of lines of a file; a last line without a line feed counts."""
    count, last = 0, b"\n"
    try:
        with open(path, "rb") as stream:
            while block := stream.read(COUNT_BLOCK_BYTES):
                count += block.count(b"\n")
                last = block[-1:]
    except OSError as error:
        raise _unreadable(path, error) from error
    return count + (last != b"\n")


def check_not_empty(path: PathLike) -> int:
    """The number of lines of a regular file; it must have at least one."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise DataError(f"{os.fspath(path)} is no regular file: it is read twice")
    count = count_lines(path)
    if count == 0:
        raise DataError(f"{os.fspath(path)} is empty: at least one line is needed")
    return count


def check_parallel(source: PathLike, target: PathLike) -> int:
    """The common number of lines of two files that are translations of each other, line by line."""
    source_count, target_count = check_not_empty(source), check_not_empty(target)
    if source_count != target_count:
        raise DataError(
            f"line counts differ: {os.fspath(source)} has {source_count}, {os.fspath(target)} has {target_count}"
        )
    return source_count


def check_distinct(inputs: Iterable[PathLike], outputs: Iterable[PathLike]) -> None:
    """Refuse to overwrite an input, or to write two outputs to one file."""
    taken = {os.path.realpath(path) for path in inputs}
    for output in outputs:
        real = os.path.realpath(output)
        if real in taken:
            raise ConfigError(f"output {os.fspath(output)} is also an input or another output: choose another name")
        taken.add(real)


def file_sha256(path: PathLike) -> str:
    """SHA-256 of a file, in hexadecimal."""
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def check_sha256(path: PathLike, expected: str, manifest: str) -> None:
    """Compare a file with its checksum in a manifest, which messages name."""
    if (found := file_sha256(path)) != expected:
        raise DataError(f"{os.fspath(path)}: altered: SHA-256 must be {expected} as in {manifest}, got {found}")


class HashedStream:
    """Writes text as UTF-8 into a binary stream and computes its SHA-256."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._digest = stream, hashlib.sha256()

    def write(self, text: str) -> None:
        data = text.encode()
        self._digest.update(data)
        self._stream.write(data)

    @property
    def sha256(self) -> str:
        """Of the text written so far, in hexadecimal."""
        return self._digest.hexdigest()


def progress(lines: Iterable[Item], total: int | None, description: str) -> Iterable[Item]:
    """Yield the items with a progress bar on the standard error if that is a terminal."""
    try:
        from tqdm import tqdm  # its import takes a tenth of the time to the first translation
    except ImportError:  # an installation that only translates
        return lines

    return tqdm(lines, total=total, desc=description, unit=" lines", disable=None, mininterval=0.5)


def _decode_line(raw: bytes, path: PathLike, number: int) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        place = f"byte 0x{raw[error.start]:02x} at column {error.start + 1}"
        raise DataError(f"{os.fspath(path)}, line {number}: not valid UTF-8 ({place})") from error


def _open_for_writing(path: PathLike, mode: str) -> IO[Any]:
    return open(path, "wb") if mode == "wb" else open(path, "w", encoding="utf-8", newline="\n")


def _unreadable(path: PathLike, error: OSError) -> DataError:
    return DataError(f"cannot read {os.fspath(path)}: {error.strerror}")
