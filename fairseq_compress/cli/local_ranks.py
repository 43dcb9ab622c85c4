"""``--processes N``: start a verb that shares work by RANK and WORLD_SIZE N times on this machine."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping

from fairseq_compress.options import flag

PARENT = "FAIRSEQ_COMPRESS_PARENT"  # the process that started this one, which ends with it
PR_SET_PDEATHSIG = 1  # of Linux's prctl


def run_processes(verb: str, processes: int, values: Mapping[str, object]) -> int:
    """Start the verb with options ``values`` several times and wait; return 0, or the status of the first that failed.

    All processes end when one fails or this process ends.
    """
    from fairseq_compress.errors import ConfigError
    from fairseq_compress.system import available_cores
    from fairseq_compress.work.sharded import VARIABLES

    if taken := [name for pair in VARIABLES for name in pair if name in os.environ]:
        raise ConfigError(f"--processes: cannot be given with {taken[0]} in the environment, got {processes}")
    command = [sys.executable, "-m", "fairseq_compress.cli.main", *verb.split(), *_options(values)]
    threads = str(max(1, available_cores() // processes))
    running = []
    try:
        for rank in range(processes):
            environment = {
                "OMP_NUM_THREADS": threads, **os.environ, PARENT: str(os.getpid()),
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes),
            }  # fmt: skip
            running.append(subprocess.Popen(command, env=environment))
        return _wait(running)
    finally:
        for process in running:
            if process.poll() is None:
                process.terminate()
        for process in running:
            process.wait()


def make_products_reproducible() -> None:
    """Make MKL's matrix products independent of the number of threads, at no cost; call before torch is imported."""
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")


def die_with_parent() -> None:
    """In a process of :func:`run_processes`: end with the parent."""
    parent = os.environ.get(PARENT)
    if parent is None:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it ended before
        sys.exit(128 + signal.SIGKILL)


def _wait(running: list[subprocess.Popen[bytes]]) -> int:
    while True:
        states = [process.poll() for process in running]
        if failed := [state for state in states if state]:
            return failed[0] if failed[0] > 0 else 128 - failed[0]
        if None not in states:
            return 0
        time.sleep(0.05)


def _options(values: Mapping[str, object]) -> list[str]:
    """The command line that parses to these values."""
    options = []
    for name, value in values.items():
        if name == "processes" or value is None or value is False:
            continue
        if isinstance(value, tuple | list):
            options += [flag(name), *map(str, value)]
        else:
            options += [flag(name)] if value is True else [f"{flag(name)}={value}"]
    return options
