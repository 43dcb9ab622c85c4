"""Commands of the virtual environment for a shell script: programs on its PATH that are forks of a warm process.

``fairseq-compress a | fairseq-compress b > c`` in a script starts two small programs, which hand their arguments,
folder, environment, standard input and output to a server that has imported torch and fairseq already.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.helpers.command_server import BIN, FAIRSEQ, OTHERS, run_script

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("fairseq-train", "fairseq-generate", "fairseq-interactive", "fairseq-preprocess", "fairseq-validate",
         "fairseq-compress")  # fmt: skip
CLIENT = """#!{python} -IS
import json, os, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect({address!r})
command = [{command!r}, *sys.argv[1:], *{further!r}]
request = dict(command=command, folder=os.getcwd(), environment=dict(os.environ))
socket.send_fds(connection, [b"+"], [0, 1, 2])
connection.sendall(json.dumps(request).encode() + b"\\n")
answer = connection.makefile().readline()
sys.exit(int(answer) if answer else 1)
"""


class ShellCommands:
    """A server, and a folder of programs for PATH.

    Args:
        folder: an empty one, which gets the programs and the socket.
        further: for names of commands, arguments that are appended to every call.
    """

    def __init__(self, folder: Path, further: dict[str, list[str]]) -> None:
        self.address = str(folder / "socket")
        self.programs = folder / "bin"
        self.unchanged = folder / "unchanged"  # the same without the further arguments
        for programs, arguments in ((self.programs, further), (self.unchanged, {})):
            programs.mkdir()
            for path in BIN.iterdir():
                if path.name.startswith("python"):  # called through a link it does not find its virtual environment
                    (programs / path.name).write_text(f'#!/bin/sh\nexec "{path}" "$@"\n')
                    (programs / path.name).chmod(0o755)
                elif path.name not in NAMES:
                    (programs / path.name).symlink_to(path)
            for name in NAMES:
                self._write(programs / name, arguments.get(name, []))
        self._server = subprocess.Popen(
            [sys.executable, "-c", f"from tests.helpers.shell_commands import serve; serve({self.address!r})"],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        assert self._server.stdout is not None
        assert any(line == b"ready\n" for line in self._server.stdout)  # fairseq logs to the standard output before

    def _write(self, path: Path, further: list[str]) -> None:
        path.write_text(CLIENT.format(
            python=sys.executable, address=self.address, command=str(BIN / path.name), further=further
        ))  # fmt: skip
        path.chmod(0o755)

    def stop(self) -> None:
        """End the server and all that it started."""
        os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait()


def serve(address: str) -> None:
    """Answers each connection with the status of its command; ends with the process that asked."""
    for module in (*FAIRSEQ, *OTHERS):
        __import__(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _answer(connection)
        connection.close()


def _answer(connection: socket.socket) -> None:
    descriptors = socket.recv_fds(connection, 1, 3)[1]
    request = json.loads(connection.makefile().readline())
    status = run_script(request["command"], request["folder"], request["environment"], dict(enumerate(descriptors)))
    connection.sendall(f"{status}\n".encode())
    os._exit(0)
