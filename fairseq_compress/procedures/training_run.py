"""A training in a subprocess: its output is passed on, and its failure is one line."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from fairseq_compress.errors import TrainingError

LONGEST_CAUSE = 300
_RANK = re.compile(r"^\[(?:rank)?\d+\]: ?")  # how torch marks the lines of one of several processes
_BLOCK = re.compile(r"Traceback \(most recent call last\):|usage: ")
_BETWEEN = ("During handling of the above", "The above exception was the direct")
_ERROR = re.compile(r"^[\w.-]+: error: (.+)")
_LAUNCHER = "torch.distributed.elastic"


class Errors:
    """Filter of a training's standard error: holds back tracebacks and usage; the first error is the cause."""

    def __init__(self) -> None:
        self.cause: str | None = None
        self.held: list[str] = []
        self._in_block = False

    def passes(self, line: str) -> bool:
        """Read a line; whether it is shown at once."""
        text = _RANK.sub("", line.rstrip("\n"))
        if _BLOCK.match(text):
            self._in_block = True
        elif self._in_block and text[:1].strip():  # the exception itself, behind the indented lines
            self._in_block = False
            self._note(text)
        elif _ERROR.match(text):
            self._note(text)
        elif not self._in_block and not text.startswith(_BETWEEN):
            return True
        self.held.append(line)
        return False

    def _note(self, text: str) -> None:
        error = _ERROR.match(text)
        if self.cause is None and not text.startswith(_LAUNCHER):
            cause = error[1] if error else text
            self.cause = cause if len(cause) <= LONGEST_CAUSE else cause[:LONGEST_CAUSE] + " ..."


def run_training(command: Sequence[str], log: Path, lock: int) -> None:
    """Run a training, with its standard error also in ``log``; it inherits ``lock`` in case this process is killed."""
    errors = Errors()
    # A file, not a pipe, for a training that outlives this process.
    with (
        open(log, "wb") as output,
        open(log, errors="replace") as written,
        subprocess.Popen(command, stderr=output, pass_fds=(lock,)) as process,
    ):
        try:
            for line in _lines(written, process):
                if errors.passes(line):
                    print(line, end="", file=sys.stderr, flush=True)
        except BaseException:
            process.kill()
            raise
    if process.returncode == 0:
        sys.stderr.writelines(errors.held)
        return
    ended = f"ended with status {process.returncode}"
    if process.returncode < 0:
        ended = f"was ended by {signal.Signals(-process.returncode).name}"
    raise TrainingError(f"the training {ended}: {errors.cause or 'it gave no cause'} (see {log})")


def _lines(file: TextIO, process: "subprocess.Popen[bytes]") -> Iterator[str]:
    """Yield the lines of a file while a process writes it."""
    partial = ""
    while True:
        ended = process.poll() is not None
        while text := file.readline():
            partial += text
            if partial.endswith("\n"):
                yield partial
                partial = ""
        if ended:
            break
        time.sleep(0.1)
    if partial:
        yield partial + "\n"
