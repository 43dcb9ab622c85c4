"""Verbs of the command line in processes that need not import anything, to be killed and to be short of space."""

import itertools
import json
import os
import subprocess
import sys
import time

from tests.conftest import ROOT

# Forks after the imports, after a first export, and with the checkpoint that it loaded: all that takes seconds.
SERVER = """
import functools, json, os, resource, signal, sys, traceback
import fairseq.tasks.translation
import fairseq_compress
from fairseq_compress.cli.main import main
fairseq_compress.register()
from fairseq_compress.export import ctranslate2_format, onnx_format
from fairseq_compress.runtimes.torch import model
for writer in (ctranslate2_format, onnx_format):
    writer.load = functools.cache(writer.load)
model.load_models = functools.cache(model.load_models)
answers = os.fdopen(os.dup(1), "w")
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
print(main(json.loads(sys.argv[1])), file=answers, flush=True)

def work(arguments, errors, text=os.devnull, die_at=None, largest_file=None):
    def hook(event, values):
        nonlocal die_at
        if event == "open" or event.startswith(("os.", "shutil.")):
            if any(isinstance(value, (str, os.PathLike)) and "/.out." in str(value) for value in values):
                die_at -= 1
                if die_at < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
    os.dup2(os.open(errors, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), 2)
    os.dup2(os.open(text, os.O_RDONLY), 0)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    if die_at is not None:
        sys.addaudithook(hook)
    return main(arguments)

for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        answer = os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])
    elif (answer := os.fork()) == 0:
        try:
            os._exit(work(**order))
        except BaseException:
            traceback.print_exc()
            os._exit(99)
    print(answer, file=answers, flush=True)
"""


class VerbServer:
    """Starts verbs as children of one process.

    Args:
        folder: for the standard errors of the children.
        first: arguments of an export that the process itself runs first.
    """

    def __init__(self, folder, first):
        self._folder, self._numbers = folder, itertools.count()
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER, json.dumps(first)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert self._process.stdout.readline() == "0\n"

    def start(self, arguments, **options):
        """Start a verb, and return its process number and the file of its standard error.

        Options: ``text``, the file of its standard input; ``die_at``, the number of accesses to temporary folders of
        the output ``out`` before it kills itself; ``largest_file``, a limit in bytes.
        """
        errors = self._folder / f"errors.{next(self._numbers)}"
        return self._ask(arguments=[*map(str, arguments)], errors=str(errors), **options), errors

    def wait(self, child):
        """The exit status, or minus the signal, and the standard error of what was started."""
        return self._ask(wait=child[0]), child[1].read_text()

    def run(self, arguments, **options):
        """Both."""
        return self.wait(self.start(arguments, **options))

    def stop(self):
        self._process.stdin.close()
        assert self._process.wait() == 0

    def _ask(self, **order):
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())


def the_line(result, verb="export"):
    """The one line of an error; ``result`` is of :meth:`VerbServer.run`."""
    status, errors = result
    assert (status, errors.count("\n")) == (1, 1), errors
    assert errors.startswith(f"fairseq-compress {verb}: error: "), errors
    return errors


def wait_for_file(folder, pattern):
    """Wait until one is there and not empty."""
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in folder.glob(pattern)):
        assert time.monotonic() < deadline
        time.sleep(0.0002)
