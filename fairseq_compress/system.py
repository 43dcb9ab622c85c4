"""Differences between operating systems: processor cores of a process and file locks."""

import errno
import logging
import os
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}  # errors of file systems without flock


def available_cores() -> int:
    """Processor cores that this process may use; where unknown (macOS, Windows), all of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_threads() -> int:
    """Default number of threads, as in torch: ``OMP_NUM_THREADS`` if set (the first number of a list such as ``4,2``),
    else :func:`available_cores`."""
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if given.isascii() and given.isdigit() and int(given) > 0:
        return int(given)
    return available_cores()


def lock_file(file: int, wait: bool = False) -> bool | None:
    """Lock an open file (``flock``) until it is closed or the process ends.

    Args:
        file: its descriptor.
        wait: block while another process holds the lock.

    Returns:
        True; False if another process holds the lock; None where there are no locks.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return None
    return True


def take_lock(file: IO[bytes]) -> bool:
    """:func:`lock_file` without waiting; where there are no locks it warns and returns True."""
    taken = lock_file(file.fileno())
    if taken is None:
        logger.warning("no file locks on this system: make sure that no other process writes %s", file.name)
    return taken is not False
