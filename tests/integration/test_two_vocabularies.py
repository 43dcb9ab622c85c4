"""A model whose languages have vocabularies of their own, in the verbs and runtimes; and what ``translate`` imports."""

import json
import random
import re
import select
import subprocess
import sys

import pytest

from fairseq_compress.cli.main import main
from fairseq_compress.corpus.nbest import read_nbest
from fairseq_compress.runtimes.model_directory import FORMAT_OF_ENTRIES, FORMAT_OF_TWO, ModelDirectory
from tests.conftest import BIN, PLUGIN, TINY, run_command

LETTERS = {"en": "abdegiklmn", "cs": "oprstuvyzž"}
RUNTIMES = ("onnx", "ctranslate2")


def write_text(path, lines, seed):
    draw = random.Random(seed)
    with open(f"{path}.en", "w") as source, open(f"{path}.cs", "w") as target:
        for _ in range(lines):
            words = [draw.choices(range(10), k=draw.randint(2, 5)) for _ in range(draw.randint(2, 7))]
            for stream, letters in ((source, LETTERS["en"]), (target, LETTERS["cs"])):
                stream.write(" ".join("".join(letters[place] for place in word) for word in words) + ".\n")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Two sentencepiece models, and a tiny model over both that trained for a few updates."""
    folder = tmp_path_factory.mktemp("model")
    for seed, (name, lines) in enumerate({"train": 200, "test": 12}.items()):
        write_text(folder / name, lines, seed)
    for language in LETTERS:
        text = folder / f"train.{language}"
        assert main(["train-vocabulary", "--input", str(text), "--vocab-size", "310", "--output",
                     str(folder / language)]) == 0  # fmt: skip
        assert main(["encode", "--sentencepiece-model", str(folder / f"{language}.model"), "--input", str(text),
                     "--output", str(folder / f"pieces.{language}")]) == 0  # fmt: skip
    run_command(
        "fairseq-preprocess", "-s", "en", "-t", "cs", "--trainpref", folder / "pieces", "--destdir", folder / "bin",
        "--srcdict", folder / "en.dict.txt", "--tgtdict", folder / "cs.dict.txt",
    )  # fmt: skip
    run_command(
        "fairseq-train", folder / "bin", "--user-dir", PLUGIN, "--task", "compressed_translation", "-s", "en", "-t",
        "cs", "--cpu", "--arch", "transformer", *TINY, "--optimizer", "adam", "--lr", "3e-3", "--max-tokens",
        1000, "--max-update", 40, "--seed", 3, "--disable-validation", "--no-epoch-checkpoints", "--save-dir", folder,
        "--num-workers", 0,
    )  # fmt: skip
    return folder


def checkpoint_options(folder):
    return ["--data", str(folder / "bin"), "--source-sentencepiece-model", str(folder / "en.model"),
            "--target-sentencepiece-model", str(folder / "cs.model")]  # fmt: skip


def export(folder, output, *more):
    return main(
        ["export", "--checkpoint", str(folder / "checkpoint_last.pt"), *checkpoint_options(folder), "--output",
         str(output), "--max-len-b", "12", "--quantization", "float32", "--source", str(folder / "test.en"),
         "--reference", str(folder / "test.cs"), *more]
    )  # fmt: skip


@pytest.fixture(scope="module", params=RUNTIMES)
def exported(request, model):
    assert export(model, model / request.param, "--runtime", request.param) == 0
    return model / request.param


def translate(text, *arguments):
    command = [str(BIN / "fairseq-compress"), "translate", *map(str, arguments)]
    return subprocess.run(command, input=text, capture_output=True, check=True).stdout


def test_the_directory_has_both(exported, model):
    directory = ModelDirectory.open(exported)
    runtime = directory.metadata["runtime"]  # CTranslate2 reads entries as strings
    assert directory.metadata["format"] == {"onnx": FORMAT_OF_ENTRIES, "ctranslate2": FORMAT_OF_TWO}[runtime]
    for side, language in (("source", "en"), ("target", "cs")):
        assert getattr(directory.segmentation(), side).read_bytes() == (model / f"{language}.model").read_bytes()
        assert f"{side}_sentencepiece.model" in directory.metadata["files"]
        assert len(directory.metadata["vocabulary"][f"{side}_sentencepiece_sha256"]) == 64
    assert directory.metadata["check"]["equal"] >= 0.9


def test_all_verbs_translate_alike(exported, model, tmp_path):
    text = (model / "test.en").read_bytes()
    checkpoint = str(model / "checkpoint_last.pt")
    theirs = translate(text, "--checkpoint", checkpoint, *checkpoint_options(model), "--max-len-b", 12)
    ours = translate(text, "--checkpoint", exported)
    assert ours == theirs
    assert set(ours.decode()) <= {*LETTERS["cs"], " ", "\n", "."}  # not the letters of the source
    models = checkpoint_options(model)[2:]
    command = ["nbest", "--source", str(model / "test.en"), "--max-len-b", "12", "--beam", "5", "--nbest", "1"]
    assert main([*command, "--checkpoint", str(exported), *models, "--output", str(tmp_path / "ours")]) == 0
    assert main([*command, "--checkpoint", checkpoint, *checkpoint_options(model), "--output",
                 str(tmp_path / "theirs")]) == 0  # fmt: skip
    for name in ("ours", "theirs"):
        found = [each.hypotheses[0].text for each in read_nbest(tmp_path / name, model / "test.en")]
        assert "\n".join(found).encode() + b"\n" == ours
        facts = json.loads((tmp_path / f"{name}.json").read_text())["facts"]
        assert len({facts["sentencepiece_model"], facts["target_sentencepiece_model"]}) == 2


@pytest.mark.parametrize("source", ["en", "cs"])
@pytest.mark.parametrize("verb", ["export", "translate", "nbest", "kd-data score"])
def test_models_of_another_side_are_refused(verb, source, model, tmp_path, capsys):
    options = {
        "export": ["--checkpoint", "C", "--no-check", "--output", "O"],
        "translate": ["--checkpoint", "C"],
        "nbest": ["--checkpoint", "C", "--source", str(model / "test.en"), "--output", "O"],
        "kd-data score": ["--checkpoint", "C", "--source", "S", "--nbest", "N", "--output", "O"],
    }[verb]
    names = {"C": str(model / "checkpoint_last.pt"), "O": str(tmp_path / "out")}
    command = [*verb.split(), *(names.get(option, option) for option in options), "--data", str(model / "bin")]
    assert main([*command, "--sentencepiece-model", str(model / f"{source}.model")]) == 1
    other = {"en": "target", "cs": "source"}[source]
    message = f"{model / source}.model does not belong to its {other} dictionary"
    assert message in capsys.readouterr().err
    assert main([*command, "--source-sentencepiece-model", str(model / "en.model")]) == 1
    assert "--target-sentencepiece-model: must be given too" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_directory_takes_its_own_models_only(exported, model, tmp_path, capsys):
    command = ["nbest", "--checkpoint", str(exported), "--source", str(model / "test.en"), "--output", "out"]
    assert main([*command, "--sentencepiece-model", str(model / "en.model")]) == 1
    assert f"--target-sentencepiece-model: must be {exported}/target_sentencepiece.model" in capsys.readouterr().err


def test_text_that_is_not_cut_is_told(model, tmp_path):
    command = ["nbest", "--checkpoint", model / "checkpoint_last.pt", "--data", model / "bin", "--beam", 1]
    options = ["--source", model / "test.en", "--output", tmp_path / "out", "--max-len-b", 5]
    result = run_command("fairseq-compress", *command, *options)
    assert re.search(r"test\.en: 9\d\.\d% of its \d+ words are unknown to the model", result.stdout)
    assert "--sentencepiece-model" in result.stdout
    result = run_command("fairseq-compress", *command, *options[2:], "--source", model / "pieces.en", "--output",
                         tmp_path / "other")  # fmt: skip
    assert "unknown" not in result.stdout


ONLY = """
import os, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked")
BLOCKED = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Blocked())
if hasattr(os, "sched_getaffinity"):
    del os.sched_getaffinity
import onnxruntime, numpy, sentencepiece
before = {name.split(".")[0] for name in sys.modules}
from fairseq_compress.cli.main import main
assert main(sys.argv[2:]) == 0
after = {name.split(".")[0] for name in sys.modules} - before - set(sys.stdlib_module_names)
print("imported:", *sorted(after), file=sys.stderr)
"""


@pytest.mark.parametrize("splitter", [True, False])
def test_what_translate_needs(model, splitter):
    """numpy, onnxruntime and sentencepiece, and sentencex if it is there; neither fcntl nor sched_getaffinity."""
    if not (folder := model / "onnx").is_dir():
        assert export(model, folder) == 0
    blocked = ["fcntl", "torch", "fairseq", "sacrebleu", "tqdm", "yaml", "omegaconf", "ctranslate2", "onnx", "wandb"]
    blocked += [] if splitter else ["sentencex"]
    text = (
        b"".join((model / "test.en").read_bytes().splitlines(keepends=True)[:3]).replace(b"\n", b" ") * 4 + b"\nabba.\n"
    )
    command = [
        sys.executable,
        "-c",
        ONLY,
        ",".join(blocked),
        "translate",
        "--checkpoint",
        str(folder),
        "--longest",
        "20",
    ]
    result = subprocess.run(command, input=text, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode()
    assert result.stdout.count(b"\n") == 2
    allowed = ["fairseq_compress", "sentencex"] if splitter else ["fairseq_compress"]
    assert result.stderr.decode().splitlines()[-1] == f"imported: {' '.join(allowed)}"


@pytest.mark.parametrize("options", [[], ["--flush-every", "1"]])
def test_a_program_that_waits_for_its_translation(exported, options):
    command = [str(BIN / "fairseq-compress"), "translate", "--checkpoint", str(exported), *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for line in (b"abba gild.\n", b"\n", b"nina.\n"):
            process.stdin.write(line)
            process.stdin.flush()
            assert select.select([process.stdout], [], [], 60)[0]
            assert process.stdout.readline().endswith(b"\n")
        process.stdin.close()
        assert process.wait() == 0


def test_flush_every_out_of_range(exported, capsys):
    assert main(["translate", "--checkpoint", str(exported), "--flush-every", "0"]) == 1
    assert "--flush-every: must be in [1, inf), got 0" in capsys.readouterr().err
