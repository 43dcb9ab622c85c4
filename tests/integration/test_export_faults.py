"""``fairseq-compress export`` and ``translate`` against kills, full disks, each other and damaged files."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import time

import pytest
import sentencepiece

from fairseq_compress.errors import DataError
from fairseq_compress.runtimes.model_directory import ModelDirectory
from tests.conftest import BIN
from tests.helpers.verb_server import VerbServer, the_line, wait_for_file
from tests.integration import test_export

RUNTIMES = ("ctranslate2", "onnx")
model = test_export.model  # the fixture


@pytest.fixture(scope="module", params=RUNTIMES)
def command(request, model):
    """Makes the command line of an export."""
    fixed = ("--check-sentences", "5", "--max-bleu-loss", "100", "--runtime", request.param)
    return lambda output, *more: test_export.export_arguments(model, output, *fixed, *more)


@pytest.fixture(scope="module")
def exported(model):
    return model / "exported"


@pytest.fixture(scope="module")
def server(model, command, exported):
    shutil.rmtree(exported, ignore_errors=True)  # of another runtime
    server = VerbServer(model, command(exported))
    yield server
    server.stop()


@pytest.fixture
def disk(tmp_path):
    """Makes a small file system."""
    folder = tmp_path / "disk"

    def mount(options):
        folder.mkdir()
        call = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
        if (result := subprocess.run(call, capture_output=True, text=True, check=False)).returncode:
            pytest.skip(f"needs to mount a tmpfs: {result.stderr.strip()}")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", str(folder)], check=True)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def forget_if_whole(output):
    if output.exists():
        ModelDirectory.open(output).verify()
        shutil.rmtree(output)


def test_killed(server, command, tmp_path):
    """At every access to a file, and while it writes and checks."""
    output, kills = tmp_path / "out", 0
    for count in itertools.count():
        if (result := server.run(command(output), die_at=count))[0] != -signal.SIGKILL:
            break
        forget_if_whole(output)
        assert len(list(tmp_path.iterdir())) <= 1  # what the one before left is gone
    assert (result[0], count >= 15) == (0, True), result
    forget_if_whole(output)
    for file, delay in itertools.product(("*", "sentencepiece.model"), (0, 0.001, 0.005, 0.02)):
        for left in tmp_path.glob(".out.*"):
            shutil.rmtree(left)
        child = server.start(command(output))
        wait_for_file(tmp_path, f".out.*/model/{file}")
        time.sleep(delay)
        os.kill(child[0], signal.SIGKILL)
        kills += server.wait(child)[0] == -signal.SIGKILL
        forget_if_whole(output)
    assert kills >= 4
    assert server.run(command(output))[0] == 0
    ModelDirectory.open(output)
    assert list(tmp_path.iterdir()) == [output]


def test_two_exports_to_one_place(server, command, tmp_path):
    """The second passes the first, which is stopped in the middle, and leaves its folder alone."""
    output = tmp_path / "out"
    slow = server.start(command(output))
    wait_for_file(tmp_path, ".out.*/model/sentencepiece.model")
    os.kill(slow[0], signal.SIGSTOP)
    try:
        assert server.run(command(output))[0] == 0
        assert len(list(tmp_path.glob(".out.*"))) == 1
        before = contents(output)
    finally:
        os.kill(slow[0], signal.SIGCONT)
    assert f"--output: {output} appeared meanwhile" in the_line(server.wait(slow))
    assert contents(output) == before
    first, second = sorted(map(server.wait, [server.start(command(tmp_path / "both")) for _ in range(2)]))
    assert first[0] == 0
    assert re.search("--output: .*both appeared meanwhile|--output: must not be there yet", the_line(second))
    ModelDirectory.open(tmp_path / "both")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "both", output]


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 1.0])
def test_a_full_disk(share, server, command, exported, disk):
    """With room for a part of the files, at last for all but metadata.json."""
    pages = sum(-(-path.stat().st_size // 4096) for path in exported.iterdir() if path.name != "metadata.json")
    folder = disk(f"size={4 * max(1, int(pages * share))}k")
    line = the_line(server.run(command(folder / "out")))
    assert f"--output: cannot write {folder / 'out'}: No space left on device" in line
    assert (list(folder.iterdir()), shutil.disk_usage(folder).used) == ([], 0)


@pytest.mark.parametrize("largest_file", [2_000, 50_000, 100_000])
def test_a_limit_on_the_size_of_files(largest_file, server, command, tmp_path):
    line = the_line(server.run(command(tmp_path / "out"), largest_file=largest_file))
    assert f"--output: cannot write {tmp_path / 'out'}: File too large" in line
    assert list(tmp_path.iterdir()) == []


def test_places(server, command, model, exported, disk, tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    before, file = contents(exported), model / "spm.model"
    for place, message in (
        (exported, f"must not be there yet, {exported} is"),
        (tmp_path / "link", "must not be there yet"),
        (file / "out", f"cannot write to {file}: Not a directory"),
        (file / "folder" / "out", f"cannot write to {file}/folder: Not a directory"),
        ("/proc/nowhere/out", "cannot write to /proc/nowhere: No such file or directory"),
    ):
        assert f"--output: {message}" in the_line(server.run(command(place)))
    assert contents(exported) == before
    assert os.readlink(tmp_path / "link") == "nowhere"
    assert server.run(command(tmp_path / "new" / "newer" / "out"))[0] == 0
    ModelDirectory.open(tmp_path / "new" / "newer" / "out")
    folder = disk("ro")
    line = the_line(server.run(command(folder / "out")))
    assert f"--output: cannot write to {folder}: Read-only file system" in line


def test_inputs(server, command, model, tmp_path):
    (inputs := tmp_path / "inputs").mkdir()
    (inputs / "half.pt").write_bytes((model / "checkpoint_last.pt").read_bytes()[:100_000])
    (inputs / "empty").write_bytes(b"")
    (inputs / "short").write_text("do .\n")
    foreign = (f"{one}{two} {two}{three}." for one, two, three in itertools.product("qwxz", repeat=3))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=foreign, model_prefix=str(inputs / "other"), vocab_size=25, minloglevel=2
    )
    for option, value, message in (
        ("--checkpoint", "nowhere", "no such file"),
        ("--checkpoint", ".", "must be one model, no ensemble and no directory"),
        ("--checkpoint", "half.pt", "truncated, or not a checkpoint"),
        ("--checkpoint", "empty", "truncated, or not a checkpoint"),
        ("--data", "nowhere", "nowhere"),
        ("--sentencepiece-model", "nowhere", "No such file"),
        ("--sentencepiece-model", "empty", "is not a sentencepiece model"),
        ("--sentencepiece-model", "half.pt", "is not a sentencepiece model"),
        (
            "--sentencepiece-model",
            "other.model",
            "does not belong to its source dictionary",
        ),
        ("--source", "nowhere", "No such file"),
        ("--source", ".", "is no regular file"),
        ("--reference", "nowhere", "No such file"),
        ("--reference", "empty", "is empty"),
        ("--reference", "short", "line counts differ"),
    ):
        line = the_line(server.run(command(tmp_path / "out", option, inputs / value)))
        assert message in line
        assert str(inputs / value) in line
        assert list(tmp_path.iterdir()) == [inputs]


def model_file(folder):
    """The largest but for sentencepiece's."""
    return max((path for path in folder.iterdir() if path.suffix != ".model"), key=lambda path: path.stat().st_size)


def flip_byte(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)


def change_metadata(folder, **changes):
    (file := folder / "metadata.json").write_text(json.dumps(json.loads(file.read_text()) | changes))


DAMAGES = {
    "no metadata": (lambda it: (it / "metadata.json").unlink(), "is no model directory: metadata.json: No such file"),
    "half the metadata": (lambda it: os.truncate(it / "metadata.json", 500), "is damaged: it must be JSON"),
    "deep": (lambda it: (it / "metadata.json").write_text("[" * 99_999), "is damaged: it must be JSON"),
    "of tomorrow": (lambda it: change_metadata(it, format="fairseq-compress model 9"), "must have the format"),
    "of another runtime": (
        lambda it: change_metadata(it, runtime="abacus"),
        "runtime must be one of bergamot, ctranslate2",
    ),
    "no search": (lambda it: change_metadata(it, search=None), "search: must be a table of keys, got None"),
    "no sentencepiece model": (lambda it: (it / "sentencepiece.model").unlink(), "bytes, is missing"),
    "no model": (lambda it: model_file(it).unlink(), "bytes, is missing"),
    "cut off": (lambda it: os.truncate(model_file(it), 999), "bytes, has 999 bytes"),
    "an altered byte": (lambda it: flip_byte(model_file(it), 9_000), "was altered"),
    "a byte that crashes CTranslate2 4.8.5": (lambda it: flip_byte(model_file(it), 193), "was altered"),
    "altered pieces": (lambda it: flip_byte(it / "sentencepiece.model", 9_000), "was altered"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_directory(damage, server, exported, model, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "damaged")
    hurt, message = DAMAGES[damage]
    hurt(folder)
    result = server.run(["translate", "--checkpoint", folder], text=str(model / "test.en"))
    assert message in the_line(result, "translate")
    nbest = ["nbest", "--checkpoint", folder, "--source", model / "pieces.en", "--output", tmp_path / "nbest"]
    assert message in the_line(server.run(nbest), "nbest")
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("name", ["greedy.onnx", "beam.onnx"])
@pytest.mark.parametrize("beam", [1, 3])
def test_a_damaged_graph_of_a_search(name, beam, server, exported, model, tmp_path):
    """Whichever search is wanted: the directory is not what was written."""
    if not (exported / name).exists():
        pytest.skip("a file of ONNX Runtime")
    damages = {"was altered": lambda file: flip_byte(file, 300), "bytes, is missing": lambda file: file.unlink()}
    for number, (message, hurt) in enumerate(damages.items()):
        folder = shutil.copytree(exported, tmp_path / str(number))
        hurt(folder / name)
        result = server.run(["translate", "--checkpoint", folder, "--beam", beam], text=str(model / "test.en"))
        line = the_line(result, "translate")
        assert message in line
        assert name in line


def test_metadata_without_keys_or_of_wrong_types(server, exported, model, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "damaged")
    metadata = json.loads((exported / "metadata.json").read_text())
    needed = "runtime runtime_version quantization checkpoint_sha256 languages vocabulary positions search files"
    changes = [{key: value} for key in needed.split() for value in (None, 7, [], {"a": 1})]
    changes += [{"positions": {"source": value, "target": 9}} for value in (None, "9", 9.5, True, 1)]
    changes += [{"search": {name: value}} for name in ("beam", "lenpen") for value in ("5", None, True, float("nan"))]
    changes += [{"search": {"beam": 0}}, {"search": {"beam": 2.5}}, {"search": {"speed": 1}}]
    changes += [{"files": metadata["files"] | {"sentencepiece.model": value}} for value in (None, 7, {"bytes": 1})]
    for change in changes:
        change_metadata(folder, **(metadata | change))
        with pytest.raises(DataError, match=r"metadata\.json: is damaged: .*\Z"):
            ModelDirectory.open(folder)
    change_metadata(folder, **metadata)
    assert server.run(["translate", "--checkpoint", folder], text=str(model / "test.en")) == (0, "")


def test_a_translation_that_has_no_place(server, exported):
    command = f"echo ba | env -u PYTHONUNBUFFERED {BIN}/fairseq-compress translate {exported} > /dev/full"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "No space left on device" in the_line((result.returncode, result.stderr), "translate")
    for closed, name in (("<&-", "input"), (">&-", "output")):
        command = f"{BIN}/fairseq-compress translate {exported} {closed}"
        result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        assert f"standard {name}: must be open, is closed" in the_line((result.returncode, result.stderr), "translate")
