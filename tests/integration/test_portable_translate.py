"""``translate`` and the Python API on systems that lack what Linux has, and what they import before the first line."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.fixtures.commands import FILES

DIRECTORIES = ("onnx-float32", "onnx-int8", "onnx-two-vocabularies", "ctranslate2-int8")
# What neither Windows nor (but for a few) macOS has. Python's own modules find out at import, so they come first.
RUN = """
import concurrent.futures, io, json, os, random, select, shutil, signal, subprocess, sys, tempfile, threading, types
import numpy, onnxruntime, sentencepiece, ctranslate2
MODULES = "fcntl resource grp pwd termios tty pty syslog readline curses torch fairseq sacrebleu onnx yaml".split()
LACKING = {
    os: "sched_getaffinity sched_setaffinity fork forkpty getuid geteuid getgid setsid killpg mkfifo fchmod fchown "
        "chown lchown pread pwrite posix_fadvise register_at_fork uname nice getloadavg sysconf statvfs wait4 "
        "O_NOFOLLOW O_DIRECTORY O_CLOEXEC O_NONBLOCK WNOHANG",
    signal: "SIGPIPE SIGHUP SIGKILL SIGALRM SIGCHLD SIGUSR1 SIGQUIT alarm setitimer sigwait",
    select: "poll epoll",
}
system, folder, text = sys.argv[1:4]
if system != "linux":
    class Blocked:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in MODULES:
                raise ModuleNotFoundError(f"{name} is blocked", name=name)
    sys.meta_path.insert(0, Blocked())
    for name in MODULES:
        sys.modules.pop(name, None)
    for module, names in LACKING.items():
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
if system == "windows":
    import fairseq_compress.decoding.line_input as line_input

    def sockets_only(*arguments):
        raise OSError(10038, "an operation was attempted on something that is not a socket")
    select.select = sockets_only
    line_input.os = types.SimpleNamespace(**{**vars(os), "name": "nt"})
from fairseq_compress import Translator
from fairseq_compress.cli.main import main

def translate(*options):
    with open(text, encoding="utf-8") as stdin:
        sys.stdin, sys.stdout = stdin, io.TextIOWrapper(io.BytesIO())
        status, found = main(["translate", folder, *options]), sys.stdout.buffer.getvalue().decode()
    sys.stdin, sys.stdout = sys.__stdin__, sys.__stdout__
    return status, found

MODES = ([], ["--nbest", "2"], ["--scores"], ["--flush-every", "1"], ["--beam", "1"], ["--longest", "4"],
         ["--longest", "4", "--long-lines", "refuse"], ["--threads", "2"], ["--no-such-option"], ["--beam", "0"])
results = []
for mode in MODES:
    try:
        results.append(translate(*mode))
    except SystemExit as error:
        results.append(error.code)
with open(text, encoding="utf-8") as lines:
    results.append(Translator(folder)(line.rstrip("\\n") for line in lines))
print(json.dumps(results))
"""


def run(system, folder, text):
    result = subprocess.run(
        [sys.executable, "-c", RUN, system, str(folder), str(text)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout), result.stderr.splitlines()


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text"
    lines = (ROOT / FILES / "text" / "test.en").read_bytes().splitlines(keepends=True)[:5]
    path.write_bytes(b"".join([*lines, b"\n", lines[0].rstrip() + b"\r\n", b" ".join(line.rstrip() for line in lines)]))
    return path


@pytest.mark.parametrize("name", DIRECTORIES)
def test_translate_where_much_is_missing(name, text):
    folder = ROOT / FILES / name
    expected, told = run("linux", folder, text)
    assert [each[0] if isinstance(each, list) else each for each in expected[:-1]] == [0] * 6 + [1, 0, 2, 1]
    assert expected[-1] == expected[0][1].splitlines()
    assert [line.split("\t")[2] for line in expected[2][1].splitlines()] == expected[-1]
    for system in ("macos", "windows"):
        assert run(system, folder, text) == (expected, told)


def test_what_is_imported_before_the_first_translation(text):
    """Modules that take long and are not needed for a line of usual length."""
    program = (
        "import sys; from fairseq_compress.cli.main import main; import numpy, onnxruntime, sentencepiece; "
        "before = set(sys.modules); assert main(sys.argv[1:]) == 0; "
        "print(*(set(sys.modules) - before), *(name for name in before if 'fairseq' in name), file=sys.stderr)"
    )
    folder = ROOT / FILES / "onnx-int8"
    result = subprocess.run(
        [sys.executable, "-c", program, "translate", str(folder)], input=b"a\n", capture_output=True, check=True
    )
    found = set(result.stderr.decode().split())
    assert "fairseq_compress.decoding.translation_lines" in found
    slow = {"corpus.text_cutting", "corpus.cleaning", "corpus.words", "corpus.segmentation.byte_pairs", "work.manifest"}
    assert not found & {f"fairseq_compress.{name}" for name in slow}
    assert not {name.split(".")[0] for name in found} & {
        "sacremoses", "sentencex", "tqdm", "torch", "fairseq", "ctranslate2", "asyncio", "multiprocessing", "unittest",
        "http", "email", "xml",
    }  # fmt: skip


def test_the_expressions_are_compiled_when_they_are_used():
    program = (
        "import re, sys; compiled = []; real = re.compile; "
        "re.compile = lambda *a, **k: compiled.append(a[0]) or real(*a, **k); "
        "import fairseq_compress.corpus.invisible, fairseq_compress.corpus.words, fairseq_compress.languages; "
        "assert max(map(len, compiled), default=0) < 100, compiled; "
        "before = len(compiled); assert fairseq_compress.corpus.words.count_words('\\u72ac a') == 2; "
        "assert len(compiled) > before"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
