"""Runs commands of the virtual environment as forks of a process that has imported their libraries already.

``import fairseq`` takes three to five seconds, and the tests start some hundreds of commands. A fork is its own process
that runs the same script file with its own arguments, folder, environment and output; only other people's modules are
there before it starts, none of ours.
"""

import atexit
import contextlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path

BIN = Path(sys.executable).parent
# What is imported late counts too: torch's compiler, for its optimizers, takes half the time of a short training.
LATE = ("torch._dynamo", "torch.distributed.fsdp", "torch.onnx.ops")
FAIRSEQ = ("fairseq_cli.train", "fairseq_cli.generate", "fairseq_cli.interactive", "fairseq_cli.preprocess", *LATE)
# fairseq itself is not loaded for our own command: ours must import it, and register with it, where it is needed.
OTHERS = ("torch", "numpy", "sacrebleu", "sentencepiece", "omegaconf", "hydra", "wandb", "sklearn.metrics", "tqdm")
MODULES = dict.fromkeys(("fairseq-train", "fairseq-generate", "fairseq-interactive", "fairseq-preprocess"), FAIRSEQ)
MODULES |= {"fairseq-compress": OTHERS + LATE}


class CommandServer:
    """One process that forks; started when it is first asked for, ended with the process that asked."""

    def __init__(self, modules: tuple[str, ...]) -> None:
        self.ours, theirs = socket.socketpair()
        command = [
            sys.executable,
            "-c",
            f"from tests.helpers.command_server import serve; serve({theirs.fileno()}, {modules})",
        ]
        self.process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], cwd=Path(__file__).resolve().parents[2], stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        theirs.close()
        self.replies = self.ours.makefile("r")

    def run(self, commands: list[list[str]], environment: dict[str, str], output: Path, timeout: float) -> int:
        """The status of commands that run beside each other; their stdout and stderr go to ``output``.

        When one fails, its status is told, and the others are killed.

        Raises:
            TimeoutExpired: the commands, and this server, were then killed.
        """
        request = {"commands": commands, "environment": environment, "folder": os.getcwd(), "output": str(output)}
        self.ours.settimeout(timeout)
        self.ours.sendall((json.dumps(request) + "\n").encode())
        try:
            return int(self.replies.readline())
        except TimeoutError:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise subprocess.TimeoutExpired(commands[0], timeout) from None


def serve(descriptor: int, modules: tuple[str, ...]) -> None:
    """Answers every request with the status of its command, until nobody asks any more."""
    for module in modules:
        with contextlib.suppress(ModuleNotFoundError):  # torch 2.6 lacks one; the command imports what it needs
            __import__(module)
    connection = socket.socket(fileno=descriptor)
    for line in connection.makefile("r"):
        request, children = json.loads(line), set()
        for arguments in request["commands"]:
            child = os.fork()
            if child == 0:
                connection.close()
                _run(arguments, request)
            children.add(child)
        connection.sendall(f"{_status(children)}\n".encode())


def _status(children: set[int]) -> int:
    """Waits for all: 0, or the status of the first that failed, after which the others are killed."""
    failed = 0
    while children:
        child, code = os.wait()
        children.remove(child)
        if status := os.waitstatus_to_exitcode(code):
            failed = failed or status
            for other in children:
                os.kill(other, signal.SIGKILL)
    return failed


def _run(arguments: list[str], request: dict) -> None:
    """What the interpreter does with a script, in this process, which ends."""
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os._exit(run_script(arguments, request["folder"], request["environment"], {1: output, 2: output}))


def run_script(arguments: list[str], folder: str, environment: dict[str, str], descriptors: dict[int, int]) -> int:
    """The status of a script that runs in this process, after which nothing else may; ``descriptors``: 1 -> a file."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for ours, theirs in descriptors.items():
        os.dup2(theirs, ours)
    sys.argv = arguments
    sys.path[0] = str(Path(sys.argv[0]).parent)  # of a script it is its folder
    status = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        status = 1
        try:
            sys.excepthook(*sys.exc_info())
        except BaseException:
            traceback.print_exc()
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    return status
