"""What operating systems do differently: the processor cores of a process, and locks of files."""

import errno
import logging
import os
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}  # what file systems without flock answer


def available_cores() -> int:
    """Processor cores that this process may use; all of the machine where the system does not tell (macOS, Windows)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_threads() -> int:
    """Threads of a computation for which no number was given: as torch has it, ``OMP_NUM_THREADS`` if it is set (the
    first number of a list such as ``4,2``), else :func:`available_cores`."""
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if given.isascii() and given.isdigit() and int(given) > 0:
        return int(given)
    return available_cores()


def lock_file(file: int, wait: bool = False) -> bool | None:
    """Take the lock of an open file (``flock``), which ends with the process or when the file is closed.

    Args:
        file: its descriptor.
        wait: until somebody else's lock ends.

    Returns:
        True; False if somebody else has it; None where the system or the file system has no locks.

    Raises:
        OSError: another error of the system.
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
    """As :func:`lock_file` without waiting; where there are no locks it warns, and the file counts as locked."""
    taken = lock_file(file.fileno())
    if taken is None:
        logger.warning("there are no file locks here: let no other process work on %s", file.name)
    return taken is not False
