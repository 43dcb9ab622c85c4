"""``--processes N``: a verb that shares work by RANK and WORLD_SIZE, started N times on this machine."""

import argparse
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping

PARENT = "FAIRSEQ_COMPRESS_PARENT"  # process that started this one, and without which it must not go on
PR_SET_PDEATHSIG = 1  # of Linux's prctl


def add_processes_argument(parser: argparse._ActionsContainer) -> None:
    """Declare ``--processes``."""
    parser.add_argument(
        "--processes", type=int, default=1, metavar="N",
        help="share the work between N processes on this machine, each with its share of the cores (torchrun and srun "
        "start the processes themselves)",
    )  # fmt: skip


def run_processes(verb: str, args: argparse.Namespace) -> int:
    """Start the verb ``args.processes`` times and wait; return 0, or the status of the first that failed.

    When one fails, or this process is told to end, the others are ended too; killed, it takes them along.

    Raises:
        ConfigError: the number is below 1, or the environment already says which rank this process is.
    """
    from fairseq_compress.errors import ConfigError
    from fairseq_compress.system import available_cores
    from fairseq_compress.work.sharded import VARIABLES

    if args.processes < 1:
        raise ConfigError(f"--processes: must be at least 1, got {args.processes}")
    if taken := [name for pair in VARIABLES for name in pair if name in os.environ]:
        raise ConfigError(f"--processes: cannot go with {taken[0]} in the environment, got {args.processes}")
    command = [sys.executable, "-m", "fairseq_compress.cli.main", verb, *_options(vars(args))]
    threads = str(max(1, available_cores() // args.processes))
    running = []
    try:
        for rank in range(args.processes):
            environment = {
                "OMP_NUM_THREADS": threads, **os.environ, PARENT: str(os.getpid()),
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(args.processes),
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
    """Let matrix products of MKL round alike with any number of threads; to be called before torch is imported.

    Otherwise the last digit of a score depends on how many cores a process has. It costs no measurable time.
    """
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")


def die_with_parent() -> None:
    """In a process of :func:`run_processes`: end when the parent ends, however it ends."""
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
        if name != "processes" and value is not None and value is not False:
            option = f"--{name.replace('_', '-')}"
            options += [option] if value is True else [f"{option}={value}"]
    return options
