"""``export --runtime bergamot`` and ``import`` of Marian's models, with fxtranslate as the oracle where it is there."""

import hashlib
import importlib.util
import json
import shutil

import numpy as np
import pytest
import sentencepiece
import torch

from fairseq_compress import runtimes
from fairseq_compress.api import Translator
from fairseq_compress.architecture.configuration import architecture_of
from fairseq_compress.architecture.marian_names import linear_layers
from fairseq_compress.checkpoint.load import load_model
from fairseq_compress.cli.main import main
from fairseq_compress.corpus.segmentation.choice import Segmentation
from fairseq_compress.decoding.shortlist_file import read_shortlist
from fairseq_compress.decoding.vocabulary import read_symbols
from fairseq_compress.errors import DataError
from fairseq_compress.runtimes.bergamot import simulation
from fairseq_compress.runtimes.bergamot.model import Simulated, joined_bytes
from fairseq_compress.runtimes.bergamot.shortlist import read_shortlist as marian_shortlist
from fairseq_compress.runtimes.bergamot.shortlist import serialize_shortlist
from fairseq_compress.runtimes.model_directory import ModelDirectory
from fairseq_compress.runtimes.options import RuntimeOptions
from fairseq_compress.work.marian_file import quantize, read_marian, serialize
from tests.helpers.marian_models import sentences, write_random_model

BIN = "model.encs.intgemm.alphas.bin"


def export(model, output, *more):
    text = model.parent / "text.en"
    text.write_text("".join(f"{line}\n" for line in sentences(20)))
    spm = model / "sentencepiece.model"
    words = [model / "model.pt", output, "--runtime", "bergamot", "--sentencepiece-model", spm, *more]
    return main(["export", *map(str, words)])


@pytest.fixture(scope="module", params=["ssru", "attention"])
def exported(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    model = write_random_model(folder / "model", request.param)
    assert export(model, folder / "out", "--calibration", folder / "text.en", "--no-check") == 0
    return folder


def test_the_files(exported):
    out = exported / "out"
    names = {path.name for path in out.iterdir()}
    assert names >= {BIN, "vocab.encs.spm", "config.yml", "config.intgemm8bitalpha.yml", "model_info.json"}
    assert BIN in (out / "config.yml").read_text()
    info = json.loads((out / "model_info.json").read_text())
    assert (info["trgTag"], info["srcTags"]) == ("cs", {"en": "en"})
    vocabulary = sentencepiece.SentencePieceProcessor(model_file=str(out / "vocab.encs.spm"))
    assert [vocabulary.id_to_piece(index) for index in range(2)] == ["</s>", "<unk>"]
    assert len(vocabulary) % 8 == 0
    assert ModelDirectory.open(out).weight_bytes() == (out / BIN).stat().st_size


def test_the_vocabulary_segments_as_before(exported):
    before = sentencepiece.SentencePieceProcessor(model_file=str(exported / "out" / "sentencepiece.model"))
    after = sentencepiece.SentencePieceProcessor(model_file=str(exported / "out" / "vocab.encs.spm"))
    for line in [*sentences(30, seed=5), "Žluťoučký kůň 日本", "a  b"]:
        assert before.encode(line, out_type=str) == after.encode(line, out_type=str)
        assert before.decode(before.encode(line)) == after.decode(after.encode(line))


def test_integers_are_those_of_the_weights(exported):
    items = read_marian(exported / "out" / BIN).items
    model = load_model(exported / "model" / "model.pt").model
    for linear in linear_layers(architecture_of(model.cfg)):
        expected = quantize(model.get_submodule(linear.ours).weight.detach().numpy().T)
        np.testing.assert_array_equal(items[linear.weight].integers, expected.integers)


@pytest.mark.parametrize("tables", ["Wemb", "decoder_Wemb"])
def test_the_output_has_the_names_of_both_engines(tables, tmp_path):
    tying = {} if tables == "Wemb" else {"share_all_embeddings": False, "share_decoder_input_output_embed": True}
    model = write_random_model(tmp_path / "model", **tying)
    assert export(model, tmp_path / "out", "--calibration", tmp_path / "text.en", "--no-check") == 0
    file = read_marian(tmp_path / "out" / BIN)
    assert file.items[f"{tables}_QuantMultA"] == file.items["none_QuantMultA"]  # Marian's, fxtranslate's
    if importlib.util.find_spec("fxtranslate"):  # which ignores Marian's: equal outputs without it
        lines = sentences(20, seed=9)
        expected = Translator(tmp_path / "out")(lines)
        items = {name: value for name, value in file.items.items() if name != f"{tables}_QuantMultA"}
        assert len(items) == len(file.items) - 1
        (tmp_path / "out" / BIN).write_bytes(serialize(items, file.configuration))
        update_checksum(tmp_path / "out")
        assert Translator(tmp_path / "out")(lines) == expected


def update_checksum(folder):
    path, data = folder / "metadata.json", (folder / BIN).read_bytes()
    metadata = json.loads(path.read_text())
    metadata["files"][BIN] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    path.write_text(json.dumps(metadata))


def test_import_gives_the_rounded_weights_and_equal_outputs(exported, tmp_path, monkeypatch):
    assert main(["import", str(exported / "out"), str(tmp_path / "imported")]) == 0
    items = read_marian(exported / "out" / BIN).items
    state = torch.load(tmp_path / "imported" / "model.pt", weights_only=False)
    table, rows = items["Wemb"].values(), state["model"]["encoder.embed_tokens.weight"].numpy()
    np.testing.assert_array_equal(rows[2:], table[: len(rows) - 2])
    model = load_model(tmp_path / "imported" / "model.pt").model
    for linear in linear_layers(architecture_of(model.cfg)):
        weight = model.get_submodule(linear.ours).weight.detach().numpy()
        np.testing.assert_array_equal(weight.T, items[linear.weight].values())

    class Exact:  # activations are not quantized
        def __init__(self, weight, alpha, bias):
            self.weight, self.bias = weight.values(), 0 if bias is None else bias.reshape(-1)

        def __call__(self, x):
            return x @ self.weight + self.bias

    monkeypatch.setattr(simulation, "Product", Exact)
    directory = ModelDirectory.open(exported / "out")
    simulated = Simulated(directory, directory.metadata["bergamot"])
    options = RuntimeOptions(runtimes.GREEDY, segmentation=Segmentation(tmp_path / "imported" / "sentencepiece.model"))
    opened = runtimes.open(tmp_path / "imported" / "model.pt", options)
    segmenter = directory.segmentation().open()
    pieces = [line.split() for line in segmenter.encode(sentences(20, seed=7))]
    # one by one: in a batch the maximum length is that of the longest source
    found = [" ".join(opened.translator.translate([each])[0][0][1]) for each in pieces]
    assert len(set(found)) > 4
    assert list(segmenter.decode(found)) == [simulated(each) for each in pieces]


def test_fxtranslate_computes_what_the_simulation_does(tmp_path):
    pytest.importorskip("fxtranslate")
    model = write_random_model(tmp_path / "model")
    assert export(model, tmp_path / "out", "--calibration", tmp_path / "text.en", "--no-check") == 0
    opened = runtimes.open(tmp_path / "out")
    simulated = Simulated(ModelDirectory.open(tmp_path / "out"), opened.metadata["bergamot"])
    pieces = [line.split() for line in opened.segmenter.encode(sentences(60, seed=9))]
    texts = [simulated(each) for each in pieces]
    found = list(opened.segmenter.decode(" ".join(each[0][1]) for each in opened.translator.translate(pieces)))
    assert len(set(texts)) > 30
    # the engine approximates exp and sums floats in another order: random weights make a few ties of it
    assert sum(one == two for one, two in zip(texts, found, strict=True)) >= 57


def test_refused_with_all_reasons(tmp_path, capsys):
    model = write_random_model(
        tmp_path / "model", decoder_start="eos", first_position=2, norm_eps=1e-5, activation_fn="gelu"
    )
    export(model, tmp_path / "out", "--no-check", "--calibration", tmp_path / "text.en")
    line = capsys.readouterr().err.splitlines()[-1]
    for reason in ("--activation-fn gelu", "--decoder-start must be zero", "--first-position must be 0", "--norm-eps"):
        assert reason in line
    assert not (tmp_path / "out").exists()


def test_other_segmentations_are_refused(tmp_path, capsys):
    model = write_random_model(tmp_path / "model")
    export(model, tmp_path / "out", "--no-check", "--calibration", tmp_path / "text.en", "--tokenizer", "moses")
    assert "--segmentation must be sentencepiece, without --tokenizer" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_searches_are_refused(tmp_path, capsys):
    model = write_random_model(tmp_path / "model")
    assert export(model, tmp_path / "out", "--no-check", "--calibration", tmp_path / "text.en", "--beam", "4") == 1
    assert "--beam: must be 1 with --runtime bergamot, got 4" in capsys.readouterr().err


def test_without_calibration(tmp_path, capsys):
    model = write_random_model(tmp_path / "model")
    assert export(model, tmp_path / "out", "--no-check") == 1
    assert "--calibration: must be given" in capsys.readouterr().err


def test_byte_pairs_and_self_attention_are_told(exported):
    facts = ModelDirectory.open(exported / "out").metadata["bergamot"]
    assert bool(facts["simulated"]) == (facts["decoder"] == "attention")


def test_import_refuses_what_it_cannot_compute(exported, tmp_path, capsys):
    shutil.copytree(exported / "out", tmp_path / "copy")
    path = tmp_path / "copy" / BIN
    data = path.read_bytes().replace(b'transformer-postprocess: "dan"', b'transformer-postprocess: "da" ')
    path.write_bytes(data)
    assert main(["import", str(tmp_path / "copy"), str(tmp_path / "imported")]) == 1
    assert "transformer-postprocess: must be 'dan', got 'da'" in capsys.readouterr().err
    assert not (tmp_path / "imported").exists()


def test_bytes_become_text():
    assert joined_bytes("a<0xC5><0xBE>b<0x49>") == "ažbI"


def write_shortlist_of(folder, model):
    """From links of the first tokens of random sentences, which are all in one dictionary."""
    lines = sentences(80, seed=11)
    (folder / "one").write_text("".join(f"{line}\n" for line in lines))
    (folder / "two").write_text("".join(f"{line}\n" for line in reversed(lines)))
    (folder / "links").write_text("0-0\n" * len(lines))
    words = [
        model / "model.pt", folder / "s", "--source", folder / "one", "--target", folder / "two", "--alignments",
        folder / "links", "--sentencepiece-model", model / "sentencepiece.model", "--first", 12, "--best", 5,
    ]  # fmt: skip
    assert main(["shortlist", *map(str, words)]) == 0
    return folder / "s"


@pytest.mark.parametrize("kind", ["ssru", "attention"])
def test_a_shortlist_in_the_order_of_the_vocabulary(kind, tmp_path):
    model = write_random_model(tmp_path / "model", kind)
    shortlist = write_shortlist_of(tmp_path, model)
    given = ("--calibration", tmp_path / "text.en", "--shortlist", shortlist)
    assert export(model, tmp_path / "out", *given, "--no-check") == 0
    directory = ModelDirectory.open(tmp_path / "out")
    facts = directory.metadata["bergamot"]
    assert facts["shortlist"] == "lex.12.5.encs.s2t.bin"
    assert '"lex.12.5.encs.s2t.bin"\n  - false\n' in (tmp_path / "out" / "config.yml").read_text()
    ours, marian = read_shortlist(shortlist), marian_shortlist(tmp_path / "out" / facts["shortlist"])
    vocabulary = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "out" / "vocab.encs.spm"))
    entries = read_symbols(tmp_path / "out", "source")
    always, offsets, lists = ours.lists
    pieces = [set(map(vocabulary.id_to_piece, found.tolist())) for found in marian.candidates]
    assert pieces[0] == {entries[entry] for entry in always}
    for number in range(2, len(vocabulary)):
        piece = vocabulary.id_to_piece(number)
        row = entries.index(piece) if piece in entries else 3
        assert pieces[number] == {entries[entry] for entry in lists[offsets[row] : offsets[row + 1]]}
    simulated = Simulated(directory, facts)
    whole = Simulated(directory, facts | {"shortlist": None})
    text = [line.split() for line in directory.segmentation().open().encode(sentences(30, seed=9))]
    assert sum(simulated(each) != whole(each) for each in text) > 3


def test_fxtranslate_takes_the_shortlist_as_the_simulation_does(tmp_path):
    pytest.importorskip("fxtranslate")
    model = write_random_model(tmp_path / "model")
    given = ("--calibration", tmp_path / "text.en", "--shortlist", write_shortlist_of(tmp_path, model))
    text = tmp_path / "text.en"
    checked = ("--source", text, "--reference", text, "--max-bleu-loss", 90)
    text.write_text("".join(f"{line}\n" for line in sentences(20)))
    assert export(model, tmp_path / "out", *given, *checked) == 0
    opened = runtimes.open(tmp_path / "out")
    effect = opened.metadata["check"]["shortlist"]
    assert 8 <= effect["mean_entries"] < 60
    assert effect["changed"] > 3
    simulated = Simulated(ModelDirectory.open(tmp_path / "out"), opened.metadata["bergamot"])
    pieces = [line.split() for line in opened.segmenter.encode(sentences(60, seed=9))]
    texts = [simulated(each) for each in pieces]
    assert [opened.translator._engine(each) for each in pieces] == texts
    assert len(set(texts)) > 10


@pytest.mark.parametrize("length", [0, 7, 47, 48, 70, -1])
def test_truncated_shortlists_of_marian(length, tmp_path):
    data = serialize_shortlist(2, 3, [np.array([3, 4]), np.array([5])])
    (tmp_path / "lex").write_bytes(data)
    assert [each.tolist() for each in marian_shortlist(tmp_path / "lex").candidates] == [[3, 4], [5]]
    (tmp_path / "lex").write_bytes(data[:length])
    with pytest.raises(DataError, match="is truncated, or no shortlist of Marian"):
        marian_shortlist(tmp_path / "lex")
