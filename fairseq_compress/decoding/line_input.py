"""Read lines as they arrive, with the pauses between them."""

import os
import select
import stat
import time
from collections.abc import Callable, Iterator
from typing import IO

PAUSE_SECONDS = 0.1  # without input; a program that writes a line after the other is faster
LONGEST_WAIT = 1.0  # seconds of waiting from the first line until those that have come are worth a translation
CHUNK = 1 << 16


def read_lines_as_they_come(stream: IO[bytes], before_waiting: Callable[[], None]) -> Iterator[bytes | None]:
    """Yield the lines without their ends (LF or CRLF), and None when the input pauses after at least one line.

    Only time spent waiting for input counts, so that the batches do not depend on the speed of the model. A regular
    file has no pauses, nor has any stream on Windows, where an empty pipe cannot be detected.

    Args:
        before_waiting: called before waiting for input, to flush the output.
    """
    if not _may_pause(stream):
        yield from read_lines(stream)
        return
    file = stream.fileno()
    rest: list[bytes] = []
    waited: float | None = None  # seconds since the first line that no pause has followed
    while True:
        start = time.monotonic()
        ready = _is_ready(file, 0.0)
        if waited is not None and not ready:
            ready = _is_ready(file, PAUSE_SECONDS)
            waited += time.monotonic() - start
            if not ready or waited > LONGEST_WAIT:
                yield None
                waited = None
        if not ready:
            before_waiting()
        chunk = os.read(file, CHUNK)
        if not chunk:
            break
        *lines, last = chunk.split(b"\n")
        for line in lines:
            waited = waited or 0.0
            yield _without_end(b"".join([*rest, line]))
            rest = []
        rest.append(last)
    if end := b"".join(rest):
        yield _without_end(end)


def read_lines(stream: IO[bytes]) -> Iterator[bytes]:
    """The lines without their ends."""
    return map(_without_end, stream)


def _may_pause(stream: IO[bytes]) -> bool:
    if os.name == "nt":
        return False
    try:
        return not stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, AttributeError):  # it is in memory
        return False


def _is_ready(file: int, seconds: float) -> bool:
    """Whether input, or its end, arrives within ``seconds``."""
    return bool(select.select([file], [], [], seconds)[0])


def _without_end(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")
