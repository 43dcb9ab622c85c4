"""Models of stock fairseq on text of Moses, subword-nmt and fastBPE in the verbs, compared with fairseq's commands."""

import importlib.util
import io
import json
import random
import re
import sys
from types import SimpleNamespace

import pytest
from sacremoses import MosesDetokenizer, MosesTokenizer

from fairseq_compress import Segmentation, Translator
from fairseq_compress.cli.main import main
from fairseq_compress.corpus.nbest import read_nbest
from fairseq_compress.runtimes.model_directory import FORMAT_OF_SEGMENTATIONS, ModelDirectory
from tests.conftest import PLUGIN, TINY, run_command
from tests.helpers.byte_pairs import encode_by_loop, learned, write_codes

LANGUAGES = ("en", "fr")
WORDS = {
    "en": "the dog isn't well-known & \"old\" John's cats (two) a.b. <tag> it 3.5 [x] runs".split(),  # noqa: SIM905
    "fr": "le chien n'est pas bien-connu & « vieux » l'eau (deux) qu'il [x] 3,5 aujourd'hui court".split(),  # noqa: SIM905
}
KINDS = ("subword-nmt", "fastbpe")


def sentences(language, count, seed):
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS[language], k=draw.randint(2, 7))) + draw.choice(".!?") for _ in range(count)]


def tokenized(line, language):
    return MosesTokenizer(language).tokenize(line, aggressive_dash_splits=True, return_str=True, escape=True)


def as_text(subwords):
    """As fairseq joins them, of French."""
    return MosesDetokenizer("fr").detokenize((subwords + " ").replace("@@ ", "").rstrip().split())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model of stock fairseq over one dictionary, trained for a few updates, and its merges in both forms."""
    folder = tmp_path_factory.mktemp("model")
    tokens = {}
    for seed, (part, count) in enumerate({"train": 150, "test": 12}.items()):
        for language in LANGUAGES:
            lines = sentences(language, count, seed)
            (folder / f"{part}.{language}").write_text("\n".join(lines) + "\n")
            tokens[part, language] = [tokenized(line, language) for line in lines]
    merges = learned([line for language in LANGUAGES for line in tokens["train", language]], 120)
    write_codes(folder / "subword-nmt", merges)
    write_codes(folder / "fastbpe", merges, header="", counts=True)
    for (part, language), lines in tokens.items():
        (folder / f"{part}.bpe.{language}").write_text("".join(f"{encode_by_loop(line, merges)}\n" for line in lines))
    run_command(
        "fairseq-preprocess", "-s", "en", "-t", "fr", "--trainpref", folder / "train.bpe", "--testpref",
        folder / "test.bpe", "--destdir", folder / "bin", "--joined-dictionary",
    )  # fmt: skip
    run_command(
        "fairseq-train", folder / "bin", "-s", "en", "-t", "fr", "--cpu", "--arch", "transformer", *TINY, "--optimizer",
        "adam", "--lr", "3e-3", "--max-tokens", 1000, "--max-update", 40, "--seed", 3, "--disable-validation",
        "--no-epoch-checkpoints", "--save-dir", folder, "--num-workers", 0, "--share-all-embeddings",
    )  # fmt: skip
    return SimpleNamespace(folder=folder, checkpoint=str(folder / "checkpoint_last.pt"), merges=merges)


def options(model, kind):
    return ["--segmentation", kind, "--bpe-codes", str(model.folder / kind), "--tokenizer", "moses"]


def of_checkpoint(model):
    return ["--checkpoint", model.checkpoint, "--data", str(model.folder / "bin")]


@pytest.fixture(scope="module")
def expected(model):
    """The translation of the test text by fairseq-generate, with subwords and as text."""
    log = run_command(
        "fairseq-generate", model.folder / "bin", "--user-dir", PLUGIN, "-s", "en", "-t", "fr", "--cpu", "--path",
        model.checkpoint, "--beam", 5, "--max-len-b", 12,
    ).stdout  # fmt: skip
    found = dict(re.findall(r"^H-(\d+)\t\S+\t(.*)$", log, re.MULTILINE))
    subwords = [found[str(number)] for number in range(12)]
    return SimpleNamespace(subwords=subwords, text=[as_text(line) for line in subwords])


@pytest.fixture(scope="module", params=KINDS)
def exported(request, model):
    output = model.folder / f"{request.param}-onnx"
    command = ["export", *of_checkpoint(model), *options(model, request.param), "--quantization", "float32"]
    texts = ["--source", str(model.folder / "test.en"), "--reference", str(model.folder / "test.fr")]
    assert main([*command, "--output", str(output), "--max-len-b", "12", *texts]) == 0
    return SimpleNamespace(path=output, kind=request.param)


def translated(text, monkeypatch, capsysbinary, *arguments):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))
    capsysbinary.readouterr()
    assert main(["translate", *map(str, arguments)]) == 0
    return capsysbinary.readouterr().out.decode().splitlines()


def test_text_is_encoded_as_it_was_for_training(model, tmp_path):
    for kind in KINDS:
        for language in LANGUAGES:
            files = ["--input", str(model.folder / f"train.{language}"), "--output", str(tmp_path / "out")]
            assert main(["encode", *options(model, kind), "--lang", language, *files]) == 0
            assert (tmp_path / "out").read_bytes() == (model.folder / f"train.bpe.{language}").read_bytes()


def test_hypotheses_are_joined(model, expected, tmp_path):
    (tmp_path / "in").write_text("\n".join(expected.subwords) + "\n")
    files = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    assert main(["decode", *options(model, "fastbpe"), "--lang", "fr", *files]) == 0
    assert (tmp_path / "out").read_text().splitlines() == expected.text


def test_subwords_are_scored_as_their_text(model, expected, tmp_path):
    for name, lines in (("subwords", expected.subwords), ("text", expected.text)):
        (tmp_path / f"{name}.fr").write_text("\n".join(lines) + "\n")
    command = ["score", "--reference", str(model.folder / "test.fr"), "--target-lang", "fr", "--hypothesis"]
    joined = options(model, "fastbpe")
    assert main([*command, str(tmp_path / "subwords.fr"), *joined, "--output", str(tmp_path / "a")]) == 0
    assert main([*command, str(tmp_path / "text.fr"), "--output", str(tmp_path / "b")]) == 0
    one, other = (json.loads((tmp_path / name).read_text()) for name in "ab")
    assert one["name"] == "subwords"
    for key in ("bleu", "bleu_lowercase", "chrf2", "lines"):
        assert one[key] == other[key]


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_translates_as_fairseq(kind, model, expected, monkeypatch, capsysbinary):
    text = (model.folder / "test.en").read_text()
    arguments = [*of_checkpoint(model), *options(model, kind), "--max-len-b", 12]
    assert translated(text, monkeypatch, capsysbinary, *arguments) == expected.text
    segmentation = Segmentation(model.folder / kind, kind=kind, tokenizer="moses")
    translator = Translator(model.checkpoint, data=model.folder / "bin", segmentation=segmentation, max_len_b=12)
    assert translator(text.splitlines()) == expected.text


@pytest.mark.parametrize("kind", KINDS)
def test_fairseq_interactive_gives_the_same(kind, model, monkeypatch, capsysbinary):
    """With the packages themselves, which are no requirement."""
    package = {"subword-nmt": "subword_nmt", "fastbpe": "fastBPE"}[kind]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"requires the package {package}")
    lines = [*sentences("en", 8, 9), 'ŵ "漢字" x--y & &amp;', "  two   spaces "]
    (model.folder / "more.en").write_text("\n".join(lines) + "\n")
    log = run_command(
        "fairseq-interactive", model.folder / "bin", "--user-dir", PLUGIN, "-s", "en", "-t", "fr", "--cpu", "--path",
        model.checkpoint, "--beam", 5, "--max-len-b", 12, "--tokenizer", "moses", "--bpe", package.lower(),
        "--bpe-codes", model.folder / kind, "--input", model.folder / "more.en",
    ).stdout  # fmt: skip
    theirs = [line for _, line in re.findall(r"^D-(\d+)\t\S+\t(.*)$", log, re.MULTILINE)]
    arguments = [*of_checkpoint(model), *options(model, kind), "--max-len-b", 12]
    assert len(theirs) == len(lines)
    assert translated("\n".join(lines) + "\n", monkeypatch, capsysbinary, *arguments) == theirs


def test_a_directory_has_its_segmentation(exported, model, expected, monkeypatch, capsysbinary):
    directory = ModelDirectory.open(exported.path)
    assert directory.metadata["format"] == FORMAT_OF_SEGMENTATIONS == "fairseq-compress model 3"  # older ones refuse it
    assert directory.metadata["segmentation"] == {
        "kind": exported.kind, "tokenizer": "moses", "no_escape": False, "no_dash_splits": False,
    }  # fmt: skip
    assert (exported.path / "bpe.codes").read_bytes() == (model.folder / exported.kind).read_bytes()
    assert len(directory.metadata["vocabulary"]["bpe_sha256"]) == 64
    assert directory.metadata["check"]["equal"] >= 0.9
    text = (model.folder / "test.en").read_text()
    assert translated(text, monkeypatch, capsysbinary, exported.path) == expected.text
    assert Translator(exported.path)(text.splitlines()) == expected.text


def test_a_damaged_segmentation(exported, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in exported.path.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    codes = (copy / "bpe.codes").read_bytes()
    (copy / "bpe.codes").write_bytes(codes[::-1])
    with pytest.raises(Exception, match=r"bpe\.codes: was altered"):
        Translator(copy)
    (copy / "bpe.codes").write_bytes(codes)
    metadata = json.loads((copy / "metadata.json").read_text())
    for change, message in (
        ({"kind": "wordpiece"}, r"segmentation\.kind: must be one of sentencepiece, .*, got 'wordpiece'"),
        ({"lower": True}, r"segmentation\.lower: unknown key"),
        ({"kind": "sentencepiece"}, r"files must name sentencepiece\.model, or"),
    ):
        changed = metadata | {"segmentation": metadata["segmentation"] | change}
        (copy / "metadata.json").write_text(json.dumps(changed))
        with pytest.raises(Exception, match=message):
            Translator(copy)


def test_nbest_lists_become_training_data(exported, model, expected, tmp_path):
    """Text from a checkpoint and a directory, its subwords in the data of a student, and the scores of text."""
    source, segments = str(model.folder / "test.en"), options(model, exported.kind)
    command = ["nbest", "--source", source, "--max-len-b", "12", *segments]
    for name, of in (("theirs", of_checkpoint(model)), ("ours", ["--checkpoint", str(exported.path)])):
        assert main([*command, *of, "--nbest", "2", "--output", str(tmp_path / name)]) == 0
        found = list(read_nbest(tmp_path / name, source))
        assert [each.hypotheses[0].text for each in found] == expected.text
        facts = json.loads((tmp_path / f"{name}.json").read_text())["facts"]
        assert facts["segmentation"]["kind"] == exported.kind
        assert "sentencepiece_model" not in facts
    nbest = ["--nbest", str(tmp_path / "theirs")]
    command = ["kd-data", "--mode", "best", *nbest, "--source", source, *segments]
    assert main([*command, "--data", str(model.folder / "bin"), "--output", str(tmp_path / "kd")]) == 0
    pieces = [encode_by_loop(tokenized(text, "fr"), model.merges) for text in expected.text]
    kept = (tmp_path / "kd.steps" / "train.fr").read_text().splitlines()
    assert kept == [line for place, line in enumerate(pieces) if line not in pieces[:place] or line in kept]
    select = ["kd-data", "select", "--mode", "best", *nbest, "--source", source, *segments]
    assert main([*select, "--output-source", str(tmp_path / "a"), "--output-target", str(tmp_path / "b")]) == 1


def test_scores_of_text_are_those_of_its_subwords(model, tmp_path):
    """With a model from English to French as the reverse model of lists in English."""
    reverse = tmp_path / "fr-en.nbest"
    lines = ["".join(f"{line}\n" for line in sentences(language, 4, 5)) for language in LANGUAGES]
    (tmp_path / "source.fr").write_text(lines[1])
    from fairseq_compress.corpus.nbest import NBestEntry, NBestList, NBestWriter, source_checksum

    def write(path, source, hypotheses):
        with open(path, "wb") as stream:
            writer = NBestWriter(stream)
            for index, (line, text) in enumerate(zip(source, hypotheses, strict=True)):
                writer.write(NBestList(index, source_checksum(line), [NBestEntry(-1.0, text)]))
        import hashlib

        writer.write_sidecar(path, hashlib.sha256("".join(f"{line}\n" for line in source).encode()).hexdigest(), {})

    english, french = (text.splitlines() for text in lines)
    write(reverse, french, english)
    pieces = {
        language: [encode_by_loop(tokenized(line, language), model.merges) for line in each]
        for language, each in zip(LANGUAGES, (english, french), strict=True)
    }
    (tmp_path / "pieces.fr").write_text("".join(f"{line}\n" for line in pieces["fr"]))
    write(tmp_path / "pieces.nbest", pieces["fr"], pieces["en"])
    command = ["kd-data", "score", *of_checkpoint(model)]
    text = ["--nbest", str(reverse), "--source", str(tmp_path / "source.fr"), *options(model, "fastbpe")]
    assert main([*command, *text, "--output", str(tmp_path / "of-text")]) == 0
    subwords = ["--nbest", str(tmp_path / "pieces.nbest"), "--source", str(tmp_path / "pieces.fr")]
    assert main([*command, *subwords, "--output", str(tmp_path / "of-subwords")]) == 0
    assert (tmp_path / "of-text").read_text() == (tmp_path / "of-subwords").read_text()


def test_subwords_of_another_tool(model, expected, monkeypatch, capsysbinary):
    """--segmentation none: subwords in, subwords out."""
    text = (model.folder / "test.bpe.en").read_text()
    arguments = [*of_checkpoint(model), "--segmentation", "none", "--max-len-b", 12]
    assert translated(text, monkeypatch, capsysbinary, *arguments) == expected.subwords


@pytest.mark.parametrize("kind", KINDS)
def test_merges_of_another_model_are_refused(kind, model, tmp_path, capsys):
    other = learned(sentences("fr", 40, 7), 60)
    codes = write_codes(tmp_path / "codes", other, *(("", True) if kind == "fastbpe" else ()))
    command = ["nbest", *of_checkpoint(model), "--source", "s", "--output", str(tmp_path / "out")]
    assert main([*command, "--segmentation", kind, "--bpe-codes", str(codes), "--tokenizer", "moses"]) == 1
    error = capsys.readouterr().err
    assert f"--bpe-codes: must be that of the checkpoint, and {codes} does not belong to its source dictionary" in error
    assert "entries are no subwords, such as" in error
    assert main([*command, "--segmentation", kind, "--bpe-codes", str(model.folder / "train.en")]) == 1
    assert "line 1: must be a merge such as" in capsys.readouterr().err


def test_a_directory_takes_its_own_segmentation_only(exported, model, tmp_path, capsys):
    codes = write_codes(tmp_path / "codes", model.merges[:-1], *(("", True) if exported.kind == "fastbpe" else ()))
    command = ["nbest", "--checkpoint", str(exported.path), "--source", "s", "--output", str(tmp_path / "out")]
    other = next(kind for kind in KINDS if kind != exported.kind)
    for arguments, message in (
        (options(model, other), f"--segmentation: must be {exported.kind}, that of {exported.path}, got {other}"),
        (options(model, exported.kind)[:4], f"--tokenizer: must be moses, that of {exported.path}, got none"),
        ([*options(model, exported.kind), "--moses-no-escape"], "--moses-no-escape: must be False, that of"),
        (["--segmentation", exported.kind, "--bpe-codes", str(codes), "--tokenizer", "moses"],
         f"--source-bpe-codes: must be {exported.path / 'bpe.codes'}, got {codes}"),
    ):  # fmt: skip
        assert main([*command, *arguments]) == 1
        assert message in capsys.readouterr().err


def test_text_without_its_tokenizer_is_told(model, monkeypatch, capsysbinary, caplog):
    arguments = [*of_checkpoint(model), *options(model, "fastbpe")[:4], "--max-len-b", 4]
    translated("a\n", monkeypatch, capsysbinary, *arguments)
    assert "its text was tokenized by Moses, with escapes (--tokenizer moses)" in caplog.text
    caplog.clear()
    translated("a\n", monkeypatch, capsysbinary, *arguments, "--tokenizer", "moses")
    assert "tokenized" not in caplog.text
