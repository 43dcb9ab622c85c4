"""``fairseq-compress export`` and ``translate`` against kills, full disks, each other and damaged files."""

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import sentencepiece

from fairseq_compress.errors import DataError
from fairseq_compress.inference.model_directory import ModelDirectory
from tests.conftest import BIN, PLUGIN, ROOT, TINY, binarize, run_command
from tests.integration.test_export import export_arguments, write_text

RUNTIMES = ("ctranslate2",)

# Forks after the imports and a first export, for a start takes seconds. A child can kill itself at its n-th access to
# the temporary folder.
SERVER = """
import json, os, resource, signal, sys
import fairseq.tasks.translation
import fairseq_compress
from fairseq_compress.cli.main import main
fairseq_compress.register()
answers = os.fdopen(os.dup(1), "w")
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
main(json.loads(sys.argv[1]))

def die_at(count, name):
    left = count
    def hook(event, values):
        nonlocal left
        if event == "open" or event.startswith(("os.", "shutil.")):
            if any(isinstance(value, (str, os.PathLike)) and f"/.{name}." in str(value) for value in values):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        answer = os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])
    elif (answer := os.fork()) == 0:
        os.dup2(os.open(order["errors"], os.O_CREAT | os.O_WRONLY), 2)
        if "largest_file" in order:
            resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest_file"], order["largest_file"]))
        if "die_at" in order:
            die_at(order["die_at"], order["name"])
        sys.exit(main(order["arguments"]))
    print(answer, file=answers, flush=True)
"""


class Server:
    """Runs verbs in children that need not import anything."""

    def __init__(self, folder, first):
        self.folder, self.numbers = folder, itertools.count()
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, json.dumps(first)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def ask(self, **order):
        print(json.dumps(order), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def start(self, arguments, **order):
        errors = self.folder / f"errors.{next(self.numbers)}"
        return self.ask(arguments=[*map(str, arguments)], errors=str(errors), **order), errors

    def wait(self, child):
        return self.ask(wait=child[0]), child[1].read_text()

    def run(self, arguments, **order):
        return self.wait(self.start(arguments, **order))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Raw text, a sentencepiece model, and a tiny model that trained for a few updates."""
    folder = tmp_path_factory.mktemp("model")
    for seed, (name, lines) in enumerate({"train": 300, "test": 20}.items()):
        write_text(folder / name, lines, seed)
    inputs = [folder / "train.en", folder / "train.cs"]
    run_command("fairseq-compress", "train-vocabulary", "--input", *inputs, "--vocab-size", 330, "--output-prefix",
                folder / "spm")  # fmt: skip
    for name in ("train.en", "train.cs"):
        run_command("fairseq-compress", "encode", "--model", folder / "spm.model", "--input", folder / name,
                    "--output", folder / f"pieces.{name[-2:]}")  # fmt: skip
    binarize(folder / "bin", {"trainpref": folder / "pieces"}, "--srcdict", folder / "spm.dict.txt")
    run_command(
        "fairseq-train", folder / "bin", "--user-dir", PLUGIN, "--task", "compressed_translation", "-s", "en",
        "-t", "cs", "--cpu", "--arch", "transformer_small", *TINY, "--optimizer", "adam", "--lr", "3e-3",
        "--max-tokens", 1000, "--max-update", 10, "--disable-validation", "--no-epoch-checkpoints",
        "--save-dir", folder, "--num-workers", 0,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def server(model):
    server = Server(model, export_arguments(model, model / "first", "--max-bleu-loss", "100"))
    yield server
    server.process.stdin.close()
    assert server.process.wait() == 0


@pytest.fixture(scope="module", params=RUNTIMES)
def command(request, model):
    """Of an export, but for more options."""

    def build(output, *more):
        return [*export_arguments(model, output, "--max-bleu-loss", "100", "--runtime", request.param), *more]

    return build


@pytest.fixture(scope="module")
def exported(server, model, command):
    output = model / f"exported-{command('')[-1]}"
    assert server.run(command(output))[0] == 0
    return output


@pytest.fixture
def disk(tmp_path):
    """Makes a small file system."""
    mounted = []

    def mount(options):
        (folder := tmp_path / f"disk{len(mounted)}").mkdir()
        call = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
        result = subprocess.run(call, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            pytest.skip(f"needs to mount a tmpfs: {result.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


def the_line(result, verb="export"):
    """The one line of an error."""
    status, errors = result
    assert status == 1, errors
    assert errors.startswith(f"fairseq-compress {verb}: error: "), errors
    assert len(errors.splitlines()) == 1, errors
    return errors


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def forget_if_whole(output):
    """A killed export left all or nothing."""
    if output.exists():
        ModelDirectory.open(output).verify()
        shutil.rmtree(output)


def test_killed_at_every_access_to_a_file(server, command, tmp_path):
    output = tmp_path / "out"
    for count in itertools.count():
        status, errors = server.run(command(output), die_at=count, name="out")
        if status != -signal.SIGKILL:
            break
        assert len(list(tmp_path.glob(".out.*"))) <= 1  # what the one before left is gone
        forget_if_whole(output)
    assert (status, count >= 15) == (0, True), errors
    ModelDirectory.open(output).verify()
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize("moment", ["*", "sentencepiece.model"])
def test_killed_while_it_writes_and_checks(moment, server, command, tmp_path):
    output, kills = tmp_path / "out", 0
    for delay in (0, 0.001, 0.005, 0.02):
        child = server.start(command(output))
        wait_for_file(tmp_path, f".out.*/model/{moment}")
        time.sleep(delay)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child[0], signal.SIGKILL)
        kills += server.wait(child)[0] == -signal.SIGKILL
        forget_if_whole(output)
    assert kills >= 2
    assert server.run(command(output))[0] == 0
    ModelDirectory.open(output).verify()
    assert list(tmp_path.iterdir()) == [output]


def wait_for_file(folder, pattern):
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in folder.glob(pattern)):
        assert time.monotonic() < deadline
        time.sleep(0.0002)


def test_two_exports_to_one_place(server, command, tmp_path):
    """The second passes the first, which is stopped in the middle, and leaves its folder alone."""
    output = tmp_path / "out"
    slow = server.start(command(output))
    wait_for_file(tmp_path, ".out.*/model/sentencepiece.model")
    os.kill(slow[0], signal.SIGSTOP)
    try:
        assert server.run(command(output))[0] == 0
        (temporary,) = tmp_path.glob(".out.*")
        before = contents(output)
    finally:
        os.kill(slow[0], signal.SIGCONT)
    assert f"--output: {output} appeared meanwhile" in the_line(server.wait(slow))
    assert contents(output) == before
    assert list(tmp_path.iterdir()) == [output]
    children = [server.start(command(tmp_path / "other")) for _ in range(2)]
    first, second = sorted(map(server.wait, children))
    assert first[0] == 0
    assert re.search("--output: .*other appeared meanwhile|--output: must not be there yet", the_line(second))
    ModelDirectory.open(tmp_path / "other").verify()
    assert sorted(tmp_path.iterdir()) == [tmp_path / "other", output]


def test_an_output_that_is_there(server, command, exported, tmp_path):
    before = contents(exported)
    assert f"--output: must not be there yet, {exported} is" in the_line(server.run(command(exported)))
    assert contents(exported) == before
    (tmp_path / "link").symlink_to("nowhere")
    assert "--output: must not be there yet" in the_line(server.run(command(tmp_path / "link")))
    assert os.readlink(tmp_path / "link") == "nowhere"


@pytest.mark.parametrize("lacking", [0.98, 0.5, 0.1, 0.0])
def test_a_full_disk(lacking, server, command, exported, disk):
    """The files fit but for a part; at last but for metadata.json."""
    pages = sum(-(-path.stat().st_size // 4096) for path in exported.iterdir() if path.name != "metadata.json")
    folder = disk(f"size={4 * max(1, int(pages * (1 - lacking)))}k")
    line = the_line(server.run(command(folder / "out")))
    assert f"--output: cannot write {folder / 'out'}: No space left on device" in line
    assert list(folder.iterdir()) == []
    assert shutil.disk_usage(folder).used == 0


@pytest.mark.parametrize("largest_file", [2_000, 50_000, 100_000])
def test_a_limit_on_the_size_of_files(largest_file, server, command, tmp_path):
    line = the_line(server.run(command(tmp_path / "out"), largest_file=largest_file))
    assert f"--output: cannot write {tmp_path / 'out'}: File too large" in line
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written(server, command, model, disk, tmp_path):
    places = {
        model / "spm.model" / "out": f"cannot write to {model / 'spm.model'}: Not a directory",
        model / "spm.model" / "folder" / "out": f"cannot write to {model / 'spm.model'}/folder: Not a directory",
        "/proc/nowhere/out": "cannot write to /proc/nowhere: No such file or directory",
        "/proc/out": "cannot write to /proc: ",
    }
    for place, message in places.items():
        assert message in the_line(server.run(command(place)))
    assert server.run(command(tmp_path / "new" / "newer" / "out"))[0] == 0
    ModelDirectory.open(tmp_path / "new" / "newer" / "out").verify()
    folder = disk("ro")
    line = the_line(server.run(command(folder / "out")))
    assert f"--output: cannot write to {folder}: Read-only file system" in line


def test_inputs_that_are_missing_or_wrong(server, command, model, tmp_path):
    inputs, outputs = tmp_path / "inputs", tmp_path / "outputs"
    for folder in (inputs, outputs):
        folder.mkdir()
    whole = (model / "checkpoint_last.pt").read_bytes()
    (inputs / "half.pt").write_bytes(whole[: len(whole) // 2])
    (inputs / "empty").write_bytes(b"")
    (inputs / "short").write_text("do .\n")
    foreign = (f"{one}{two} {two}{three}." for one, two, three in itertools.product("qwxz", repeat=3))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=foreign, model_prefix=str(inputs / "other"), vocab_size=40, minloglevel=2
    )
    nowhere = inputs / "nowhere"
    cases = [
        ("--checkpoint", nowhere, "no such file"),
        ("--checkpoint", inputs, "no such file"),
        ("--checkpoint", inputs / "half.pt", "truncated, or not a checkpoint"),
        ("--checkpoint", inputs / "empty", "truncated, or not a checkpoint"),
        ("--data", nowhere, "nowhere"),
        ("--sentencepiece-model", nowhere, f"cannot read {nowhere}: No such file"),
        ("--sentencepiece-model", inputs / "empty", "is not a sentencepiece model"),
        ("--sentencepiece-model", inputs / "half.pt", "is not a sentencepiece model"),
        ("--sentencepiece-model", inputs / "other.model", "must be that of the checkpoint, whose dictionary has"),
        ("--check-source", nowhere, f"cannot read {nowhere}: No such file"),
        ("--check-source", inputs, "is no regular file"),
        ("--check-reference", nowhere, f"cannot read {nowhere}: No such file"),
        ("--check-reference", inputs / "empty", "is empty"),
        ("--check-reference", inputs / "short", "line counts differ"),
    ]
    for option, value, message in cases:
        line = the_line(server.run(command(outputs / "out", option, str(value))))
        assert message in line, (option, value)
        assert list(outputs.iterdir()) == []


def translate(folder, *more):
    arguments = [str(BIN / "fairseq-compress"), "translate", "--model", str(folder), *more]
    result = subprocess.run(arguments, input="badoki .\n", capture_output=True, text=True, check=False)
    return result.returncode, result.stderr


def model_file(folder):
    """The largest but for sentencepiece's."""
    return max((path for path in folder.iterdir() if path.suffix != ".model"), key=lambda path: path.stat().st_size)


def change_bytes(path, place, new):
    content = bytearray(path.read_bytes())
    content[place : place + len(new)] = new
    path.write_bytes(content)


def change_metadata(folder, **changes):
    metadata = json.loads((folder / "metadata.json").read_text())
    (folder / "metadata.json").write_text(json.dumps(metadata | changes))


DAMAGES = {
    "no metadata": (lambda it: (it / "metadata.json").unlink(), "is no model directory: metadata.json: No such file"),
    "half the metadata": (lambda it: os.truncate(it / "metadata.json", 500), "is damaged: it must be JSON"),
    "no object": (lambda it: (it / "metadata.json").write_text("[1]"), "must have the format"),
    "deep": (lambda it: (it / "metadata.json").write_text("[" * 99_999), "is damaged: it must be JSON"),
    "of tomorrow": (lambda it: change_metadata(it, format="fairseq-compress model 2"), "must have the format"),
    "of another runtime": (lambda it: change_metadata(it, runtime="abacus"), "runtime must be one of ctranslate2"),
    "no search": (lambda it: change_metadata(it, search=None), "search must be of type dict, is null"),
    "no sentencepiece model": (lambda it: (it / "sentencepiece.model").unlink(), "bytes, is missing"),
    "no model": (lambda it: model_file(it).unlink(), "bytes, is missing"),
    "cut off": (lambda it: os.truncate(model_file(it), 999), "bytes, has 999 bytes"),
    "an altered byte": (lambda it: change_bytes(model_file(it), 20_000, b"\x17\x04"), "was altered"),
    "an altered head": (lambda it: change_bytes(model_file(it), 0, b"\xff" * 200), "was altered"),
    # the 9th tells how many weights there are; this crashed CTranslate2 4.8.5 with SIGSEGV
    "zeros": (lambda it: model_file(it).write_bytes(bytes(model_file(it).stat().st_size)), "was altered"),
    "altered pieces": (lambda it: change_bytes(it / "sentencepiece.model", 9_000, b"\0" * 99), "was altered"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_directory(damage, server, exported, model, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "damaged")
    hurt, message = DAMAGES[damage]
    hurt(folder)
    assert message in the_line(translate(folder), "translate")
    assert message in the_line(translate(folder, "--verify"), "translate")
    nbest = ["nbest", "--checkpoint", folder, "--source", model / "pieces.en", "--output", tmp_path / "nbest"]
    assert message in the_line(server.run(nbest), "nbest")
    assert list(tmp_path.iterdir()) == [folder]


def test_metadata_without_keys_or_of_wrong_types(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "damaged")
    metadata = json.loads((exported / "metadata.json").read_text())
    needed = ("runtime", "runtime_version", "quantization", "checkpoint_sha256", "languages", "vocabulary")
    changes = [{key: value} for key in (*needed, "positions", "search", "files") for value in (None, 7, [], {"a": 1})]
    changes += [{"positions": {"source": value, "target": 9}} for value in (None, "9", 9.5, True)]
    changes += [{"search": {name: value}} for name in ("beam", "lenpen") for value in ("5", None, True, float("nan"))]
    changes += [{"search": {"beam": 0}}, {"search": {"beam": 2.5}}, {"search": {"speed": 1}}]
    changes += [{"files": metadata["files"] | {"sentencepiece.model": value}} for value in (None, 7, {"bytes": 1})]
    for change in changes:
        change_metadata(folder, **(metadata | change))
        with pytest.raises(DataError, match=r"metadata\.json: is damaged: \S.*$") as found:
            ModelDirectory.open(folder)
        assert "\n" not in str(found.value)
    change_metadata(folder, **metadata)
    assert translate(folder) == (0, "")


def test_a_translation_that_has_no_place(exported):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "wb") as full:
        result = subprocess.run(
            [str(BIN / "fairseq-compress"), "translate", "--model", str(exported)], input=b"badoki .\n", stdout=full,
            stderr=subprocess.PIPE, env=environment, check=False,
        )  # fmt: skip
    assert "No space left on device" in the_line((result.returncode, result.stderr.decode()), "translate")
