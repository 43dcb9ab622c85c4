"""``fairseq-compress export`` and ``translate`` through both runtimes, against the checkpoint."""

import itertools
import os
import random
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch

import fairseq_compress
from fairseq_compress import runtimes
from fairseq_compress.checkpoint.materialize import materialize
from fairseq_compress.cli.main import main
from fairseq_compress.corpus.nbest import read_nbest
from fairseq_compress.corpus.segmentation.choice import Segmentation
from fairseq_compress.corpus.segmentation.sentencepiece_model import SentencePiece
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.evaluation.timing import translate_and_time
from fairseq_compress.export import ctranslate2_format, onnx_format
from fairseq_compress.export.calibration import find_ranges
from fairseq_compress.runtimes.model_directory import ModelDirectory
from fairseq_compress.runtimes.options import RuntimeOptions
from fairseq_compress.teachers.loading import load_models
from tests.conftest import BIN, ROOT, TINY, binarize, run_command

RUNTIMES = {"onnx": onnx_format, "ctranslate2": ctranslate2_format}
SYLLABLES = ["ba", "do", "ki", "lu", "me", "no", "ra", "si", "tu", "ve"]


def write_text(path, lines, seed):
    """Words of two or three syllables; the translation has each syllable turned round."""
    draw = random.Random(seed)
    with open(f"{path}.en", "w") as source, open(f"{path}.cs", "w") as target:
        for _ in range(lines):
            words = [draw.choices(SYLLABLES, k=draw.randint(2, 3)) for _ in range(draw.randint(2, 7))]
            source.write(" ".join("".join(word) for word in words) + " .\n")
            target.write(" ".join("".join(part[::-1] for part in word) for word in words) + " .\n")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Raw text, a sentencepiece model, and a tiny model that trained for some updates."""
    folder = tmp_path_factory.mktemp("model")
    for seed, (name, lines) in enumerate({"train": 300, "test": 40}.items()):
        write_text(folder / name, lines, seed)
    inputs = [folder / "train.en", folder / "train.cs"]
    run_command("fairseq-compress", "train-vocabulary", "--input", *inputs, "--vocab-size", 330, "--output",
                folder / "spm")  # fmt: skip
    for name in ("train.en", "train.cs"):
        run_command("fairseq-compress", "encode", "--sentencepiece-model", folder / "spm.model", "--input",
                    folder / name, "--output", folder / f"pieces.{name[-2:]}")  # fmt: skip
    prefixes = {"trainpref": folder / "pieces", "validpref": folder / "pieces"}
    binarize(folder / "bin", prefixes, "--srcdict", folder / "spm.dict.txt")
    run_command(
        "fairseq-train", folder / "bin", "--user-dir", ctranslate2_format.__file__.rpartition("/export/")[0],
        "--task", "compressed_translation", "-s", "en", "-t", "cs", "--cpu", "--arch", "transformer_small", *TINY,
        "--optimizer", "adam", "--lr", "3e-3", "--max-tokens", 1000, "--max-update", 300, "--seed", 3,
        "--disable-validation", "--no-epoch-checkpoints", "--save-dir", folder, "--num-workers", 0,
    )  # fmt: skip
    return folder


def export_arguments(folder, output, *more):
    return [
        "export", "--checkpoint", str(folder / "checkpoint_last.pt"), "--data", str(folder / "bin"),
        "--sentencepiece-model", str(folder / "spm.model"), "--output", str(output), "--max-len-b", "20",
        "--source", str(folder / "test.en"), "--reference", str(folder / "test.cs"), *more,
    ]  # fmt: skip


@pytest.fixture(scope="module", params=RUNTIMES)
def exported(request, model):
    output = model / f"exported-{request.param}"
    options = ("--runtime", request.param, "--quantization", "float32", "--licence", "CC0-1.0")
    assert main(export_arguments(model, output, *options)) == 0
    return output


def translate(text, *arguments):
    result = subprocess.run(
        [str(BIN / "fairseq-compress"), "translate", *map(str, arguments)], input=text, capture_output=True, check=True
    )
    return result.stdout, result.stderr.decode()


def test_the_metadata(exported, model):
    metadata = ModelDirectory.open(exported).metadata
    assert metadata["check"]["sentences"] == 40
    assert metadata["check"]["equal"] >= (0.975 if metadata["runtime"] == "onnx" else 0.95)  # one of 40 may be a tie
    assert abs(metadata["check"]["bleu"]["difference"]) <= 0.05
    assert "version:" in metadata["check"]["bleu"]["signature"]
    assert metadata["licence"] == "CC0-1.0"
    assert metadata["training"]["updates"] == 300
    assert metadata["training"]["seed"] == 3
    assert metadata["search"] == asdict(SearchOptions(max_len_b=20))
    state = torch.load(model / "checkpoint_last.pt", weights_only=False)
    weights = {
        weight.untyped_storage().data_ptr(): weight.numel()
        for key, weight in state["model"].items()
        if not key.endswith(("version", "_float_tensor"))
    }
    assert metadata["parameters"] == sum(weights.values())
    ModelDirectory.open(exported).verify()


def test_raw_text_as_the_checkpoint_translates_it(exported, model):
    text = (model / "test.en").read_bytes().splitlines(keepends=True)
    long = b" ".join(line.strip() for line in text[:9]) + b"\n"
    odd = b"".join([b"\n", *text[:5], b"  \n", b"ba\xffdo\n", long, text[5]])
    ours, reports = translate(odd, "--checkpoint", exported, "--longest", 40)
    checkpoint = ["--checkpoint", model / "checkpoint_last.pt", "--data", model / "bin", "--max-len-b", 20]
    theirs, _ = translate(odd, *checkpoint, "--sentencepiece-model", model / "spm.model", "--longest", 40)
    lines = ours.split(b"\n")
    assert ours == theirs
    assert len(lines) == 11
    assert [number for number, line in enumerate(lines[:10]) if not line] == [0, 6]
    assert lines[7] == b"ba\xffdo"
    assert "line 8: not UTF-8 at byte 3; it is left as it is" in reports


def test_no_bigram_twice(exported, model):
    """Forced to be long, it repeats itself; every runtime can be told not to."""
    lines = (model / "test.en").read_text().splitlines()[:12]
    sentences = [line.split() for line in SentencePiece(model / "spm.model").encode(lines)]
    repeating = {}
    for size in (0, 2):
        search = asdict(SearchOptions(beam=2, max_len_b=24, min_len=20, no_repeat_ngram_size=size))
        found = runtimes.open(exported, RuntimeOptions(search, nbest=2)).translator.translate(sentences)
        pieces = [best.output for each in found for best in each]
        assert min(map(len, pieces)) >= 20
        repeating[size] = sum(len(set(itertools.pairwise(one))) < len(one) - 1 for one in pieces)
    assert repeating[0] > 0
    assert repeating[2] == 0


@pytest.mark.parametrize(("given", "threads"), [("3", 3), ("2,1", 2)])
def test_threads_by_default(given, threads, exported, monkeypatch):
    """Those of OMP_NUM_THREADS, as of a checkpoint: else the two could not be timed side by side."""
    import ctranslate2

    started, translator = [], ctranslate2.Translator

    def start(*arguments, **options):
        started.append(options["inter_threads"])
        return translator(*arguments, **options)

    monkeypatch.setattr(ctranslate2, "Translator", start)
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    opened = runtimes.open(exported).translator
    sessions = getattr(opened, "_sessions", None)
    assert (started if sessions is None else [sessions.threads]) == [threads]


def test_nbest_and_scores(exported, model):
    text = b"".join((model / "test.en").read_bytes().splitlines(keepends=True)[:3])
    rows = [
        line.split("\t") for line in translate(text, "--checkpoint", exported, "--nbest", 4)[0].decode().splitlines()
    ]
    assert [int(row[0]) for row in rows] == [number for number in range(3) for _ in range(4)]
    assert all(float(one[1]) >= float(two[1]) for one, two in itertools.pairwise(rows) if one[0] == two[0])
    checkpoint = [
        "--checkpoint",
        model / "checkpoint_last.pt",
        "--data",
        model / "bin",
        "--max-len-b",
        20,
        "--nbest",
        4,
    ]
    theirs = translate(text, *checkpoint, "--sentencepiece-model", model / "spm.model")[0].decode().splitlines()
    assert [row[2] for row in rows] == [row.split("\t")[2] for row in theirs]
    # fairseq takes the end of the sentence out of the first step's probabilities, CTranslate2 out of its logits: a
    # model that has hardly trained still gives it some mass.
    tolerance = 1e-5 if exported.name == "exported-onnx" else 5e-3
    scores = [float(row.split("\t")[1]) for row in theirs]
    assert [float(row[1]) for row in rows] == pytest.approx(scores, abs=tolerance)
    assert len(translate(text, "--checkpoint", exported, "--scores")[0].splitlines()) == 3


def test_the_python_api(exported, model):
    """As the verb translates, and lists of hypotheses with the same scores."""
    lines = (model / "test.en").read_text().splitlines()[:4]
    text = "\n".join([*lines, "", " ".join(lines)]) + "\n"
    translator = fairseq_compress.Translator(exported, longest=20)
    expected, _ = translate(text.encode(), "--checkpoint", exported, "--longest", 20)
    assert translator(text.split("\n")[:-1]) == expected.decode().split("\n")[:-1]
    assert translator([]) == []
    rows, _ = translate("\n".join(lines).encode(), "--checkpoint", exported, "--nbest", 3)
    found = [[*one] for best in translator.nbest(iter(lines), 3) for one in best]
    assert [text for _, text in found] == [row.split("\t")[2] for row in rows.decode().splitlines()]
    scores = [float(row.split("\t")[1]) for row in rows.decode().splitlines()]
    assert [score for score, _ in found] == pytest.approx(scores, abs=1e-5)
    with pytest.raises(TypeError, match="got one string"):
        translator(lines[0])
    with pytest.raises(ConfigError, match=r"n: must be in 1 to beam \(5\), got 6"):
        translator.nbest(lines, 6)
    with pytest.raises(ConfigError, match=r"--beam: must be in \[1, inf\), got 0"):
        fairseq_compress.Translator(exported, beam=0)
    with pytest.raises(DataError, match="subwords, at most 3 are taken"):
        fairseq_compress.Translator(exported, longest=3, split=False)(lines)


def test_a_checkpoint_a_packed_one_and_a_directory_are_opened_alike(model, tmp_path):
    lines = (model / "test.en").read_text().splitlines()[:6]
    checkpoint, packed = model / "checkpoint_last.pt", tmp_path / "packed.safetensors"
    assert main(["quantize", "--checkpoint", str(checkpoint), "--output", str(packed)]) == 0
    command = export_arguments(model, tmp_path / "exported", "--quantization", "float32")
    assert main(command) == 0
    own = {"data": model / "bin", "sentencepiece_model": model / "spm.model", "max_len_b": 20}
    found = [
        fairseq_compress.Translator(path, **options).nbest(lines, 2)
        for path, options in ((checkpoint, own), (packed, own), (tmp_path / "exported", {}))
    ]
    assert found[0] == found[1]
    assert [[best.text for best in each] for each in found[2]] == [[best.text for best in each] for each in found[0]]
    options = RuntimeOptions({"max_len_b": 20}, segmentation=Segmentation(model / "spm.model"), data=model / "bin")
    translated, timings = translate_and_time(packed, lines, 3, options)
    assert translated == [each[0].text for each in found[0]]
    assert (timings.sentences, len(timings.seconds)) == (6, 3)


def test_the_example_of_the_python_api(exported, model):
    done = subprocess.run(
        [sys.executable, ROOT / "docs/examples/api.py", exported, model / "checkpoint_last.pt", model / "bin"],
        capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    *_, facts, divergence = done.stdout.splitlines()
    assert facts.startswith(f"{exported.name.removeprefix('exported-')}, float32, ")
    assert 0 < float(divergence.split()[-4]) < 1


@pytest.mark.parametrize("verb", ["translate", "nbest"])
def test_a_base_installation_is_enough(verb, exported, model, tmp_path):
    """Neither torch nor fairseq nor anything else of an extra is imported, but the runtime."""
    arguments = {
        "translate": ["--checkpoint", str(exported)],
        "nbest": ["--checkpoint", str(exported), "--source", str(model / "test.en"), "--output", str(tmp_path / "out")],
    }[verb]
    code = (
        "import sys; from fairseq_compress.cli.main import main; assert main(sys.argv[1:]) == 0;"
        "from fairseq_compress.extras import EXTRA_OF; found = set(EXTRA_OF) & set(sys.modules);"
        "sys.exit(' '.join(found - {'ctranslate2', 'yaml'} if 'ctranslate2' in found else found) or 0)"
    )
    subprocess.run([sys.executable, "-c", code, verb, *arguments], input=b"badoki .\n", check=True)


def test_a_reader_that_goes_away(exported, model):
    text = (model / "train.en").read_bytes() * 30
    command = f"{BIN}/fairseq-compress translate {exported} | head -1; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], input=text, capture_output=True, check=True)
    assert result.stdout.split()[-1] == b"141"
    assert result.stderr == b""


def test_int8_is_smaller_and_checked(exported, model, tmp_path):
    runtime = ModelDirectory.open(exported).metadata["runtime"]
    assert main(export_arguments(model, tmp_path / "int8", "--runtime", runtime, "--max-bleu-loss", "100")) == 0
    metadata = ModelDirectory.open(tmp_path / "int8").metadata
    assert metadata["quantization"] == "int8"
    name = {"onnx": "weights.bin", "ctranslate2": "model.bin"}[runtime]
    small, large = (folder / name for folder in (tmp_path / "int8", exported))
    assert small.stat().st_size < 0.8 * large.stat().st_size  # rows of 16 weights have scales of 4 bytes


def test_calibrated_ranges_make_translations_independent_of_their_batch(model, tmp_path):
    text = str(model / "train.en")
    command = export_arguments(model, tmp_path / "out", "--quantization", "int8_calibrated", "--max-bleu-loss", "100")
    assert main([*command, "--calibration", text]) == 0
    directory = ModelDirectory.open(tmp_path / "out")
    sentences = [line.split() for line in (model / "pieces.en").read_text().splitlines()[:60]]
    search = asdict(SearchOptions(beam=4, max_len_b=20))
    exported_model = runtimes.open(directory, RuntimeOptions(search, nbest=4)).translator
    alone = [exported_model.translate([sentence])[0] for sentence in sentences]
    for many, one in zip(exported_model.translate(sentences), alone, strict=True):
        assert many[0].output == one[0].output
        assert [best.score for best in many] == pytest.approx([best.score for best in one], abs=1e-3)


def test_calibrated_ranges_are_those_of_sentences_without_padding(model, tmp_path):
    """A text of long and short lines gives the union of what each line gives alone."""
    fairseq_compress.register()
    checkpoint = model / "checkpoint_last.pt"
    fixed = materialize(checkpoint), load_models(str(checkpoint), model / "bin"), SentencePiece(model / "spm.model")

    def ranges(lines):
        (tmp_path / "text").write_text("\n".join(lines))
        return find_ranges(*fixed, tmp_path / "text", SearchOptions(beam=2, max_len_b=8))

    lines = sorted((model / "train.en").read_text().splitlines()[:40], key=len)
    lines = [lines[0], lines[10], lines[-1]]
    alone = [ranges([line]) for line in lines]
    together = ranges(lines)
    assert len(together) == len(alone[0]) > 10
    for name, (low, high) in together.items():
        expected = min(each[name][0] for each in alone), max(each[name][1] for each in alone)
        assert (low, high) == pytest.approx(expected, rel=1e-4, abs=1e-5), name


def test_auto_keeps_the_fastest_and_tells_what_it_measured(model, tmp_path, capsys):
    """Of those that lose no more than they may: the limit drops the quantized ones of a model this small, or none."""
    command = export_arguments(model, tmp_path / "out", "--runtime", "auto", "--calibration", str(model / "train.en"))
    assert main([*command, "--max-bleu-loss", "0.05", "--optimize-for", "sentence"]) == 0
    directory = ModelDirectory.open(tmp_path / "out")
    directory.verify()
    metadata = directory.metadata
    tried = {(each["runtime"], each["quantization"]): each for each in metadata["auto"]["candidates"]}
    assert len(tried) == 7
    assert tried["onnx", "float32"]["bleu_difference"] == 0
    timed = {name: each["ms_per_sentence"] for name, each in tried.items() if "dropped" not in each}
    assert min(timed, key=timed.get) == (metadata["runtime"], metadata["quantization"])
    assert all("more than --max-bleu-loss 0.05" in each.get("dropped", "more than --max-bleu-loss 0.05")
               for each in tried.values())  # fmt: skip
    assert sorted(metadata["files"]) == sorted(
        file.name for file in directory.path.iterdir() if file.name != "metadata.json"
    )
    assert translate(b"bado .\n", "--checkpoint", directory.path)[0].strip()
    printed = capsys.readouterr().err.splitlines()
    assert sum("ms a sentence" in line for line in printed) == len(timed)


@pytest.mark.parametrize("poison", ["zero", "not a number"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_poisoned_weight_is_caught_and_nothing_is_left(runtime, poison, model, tmp_path, monkeypatch, capsys):
    write = RUNTIMES[runtime].write_model

    def poisoned(folder, plain, *rest):
        with torch.no_grad():
            plain.decoder.layers[0].fc2.weight.fill_(0.0 if poison == "zero" else float("nan"))
            plain.encoder.layers[1].self_attn.v_proj.weight.mul_(-3)
        return write(folder, plain, *rest)

    monkeypatch.setattr(RUNTIMES[runtime], "write_model", poisoned)
    command = export_arguments(model, tmp_path / "out", "--quantization", "float32", "--runtime", runtime)
    assert main(command) == 1
    assert list(tmp_path.iterdir()) == []
    (line,) = capsys.readouterr().err.splitlines()
    if runtime == "onnx" and poison == "not a number":
        assert "the model gives NaN" in line
    else:
        assert "the exported model loses" in line
        assert "more than --max-bleu-loss 0.05; nothing was written" in line


def test_what_ctranslate2_cannot_hold(model):
    values = materialize(model / "checkpoint_last.pt").values | {
        "activation_fn": "tanh", "encoder_normalize_before": True, "decoder_normalize_before": False,
        "encoder_attention_heads": 2, "decoder_attention_heads": 4, "decoder_input_dim": 16, "decoder_embed_dim": 16,
        "decoder_output_dim": 4, "no_cross_attention": True,
    }  # fmt: skip
    assert len(ctranslate2_format.why_not(values)) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--no-check"], "--no-check: cannot be given with --source"),
        (["--max-bleu-loss", "-1"], "--max-bleu-loss: must be in [0, inf), got -1.0"),
        (["--beam", "0"], "--beam: must be in [1, inf), got 0"),
        (["--reference", "nowhere"], "nowhere"),
        (["--checkpoint", "a.pt:b.pt"], "--checkpoint: must be one model, no ensemble"),
        (["--quantization", "int16"], "int4, plan with --runtime onnx, got int16"),
        (["--quantization", "int8_calibrated"], "--calibration: must be given with --quantization int8_calibrated"),
        (["--calibration", "text"], "--calibration: requires --quantization int8_calibrated"),
        (["--runtime", "ctranslate2", "--unkpen", "1"], "--unkpen: must be 0 with CTranslate2, got 1"),
        (["--min-len", "21"], "--min-len: must be at most --max-len-b (20), got 21"),
        (["--runtime", "auto", "--quantization", "int16"], "with --runtime auto, got int16"),
    ],
)
def test_wrong_options(change, message, model, tmp_path, capsys):
    assert main(export_arguments(model, tmp_path / "out", *change)) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_damage_and_wrong_options_of_translate(exported, tmp_path, capsys):
    for arguments, message in (
        (
            ["--checkpoint", str(tmp_path / "nowhere")],
            "nowhere: no such file, and no directory of fairseq-compress export",
        ),
        (["--checkpoint", str(tmp_path)], "is no model directory"),
        (["--checkpoint", str(exported), "--data", "x"], "--data: requires a checkpoint"),
        (["--checkpoint", str(exported), "--nbest", "9"], "--nbest: must be at most --beam (5), got 9"),
        (["--checkpoint", str(exported), "--threads", "0"], "--threads: must be in [1, inf), got 0"),
    ):
        assert main(["translate", *arguments]) == 1
        assert message in capsys.readouterr().err


def test_nbest_with_an_exported_teacher(exported, model, tmp_path, capsys):
    """The lists of the checkpoint, and the same bytes for one process and for two."""
    run_command("fairseq-compress", "encode", "--sentencepiece-model", model / "spm.model", "--input",
                model / "test.en", "--output", tmp_path / "test.en")  # fmt: skip
    options = ["--source", tmp_path / "test.en", "--beam", 4, "--max-len-b", 20, "--max-tokens", 100]
    files = {name: tmp_path / name for name in ("one", "two", "checkpoint")}
    exported_teacher = ["nbest", "--checkpoint", exported, *options]
    run_command("fairseq-compress", *exported_teacher, "--output", files["one"])
    run_command("fairseq-compress", *exported_teacher, "--output", files["two"], "--processes", 2)
    own = ["--checkpoint", model / "checkpoint_last.pt", "--data", model / "bin", "--output", files["checkpoint"]]
    run_command("fairseq-compress", "nbest", *own, *options)
    assert files["one"].read_bytes() == files["two"].read_bytes()
    found, expected = (
        [[text for _, text in each.hypotheses] for each in read_nbest(files[name], tmp_path / "test.en")]
        for name in ("one", "checkpoint")
    )
    assert sum(one == two for one, two in zip(found, expected, strict=True)) >= 36  # of 40; equal scores change places
    for arguments, message in (
        (["--data", str(model)], "--data: requires a checkpoint"),
        (["--precision", "int8"], "--precision: requires a checkpoint"),
        (["--source-lang", "de"], "--source-lang: must be en"),
        (["--beam", "999"], "--beam: must be at most"),
    ):
        command = ["nbest", "--checkpoint", str(exported), "--source", str(tmp_path / "test.en"), "--output", "out"]
        assert main([*command, *arguments]) == 1
        assert message in capsys.readouterr().err
