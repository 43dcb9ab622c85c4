"""Models whose output is computed for the entries of a shortlist: against torch, and independent of the batch."""

import random
from collections import defaultdict

import numpy as np
import pytest

from fairseq_compress.checkpoint.materialize import model_values, own_values
from fairseq_compress.corpus.segmentation.choice import Segmentation
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.decoding.shortlist import MULTIPLE
from fairseq_compress.decoding.shortlist_file import read_shortlist
from fairseq_compress.errors import DataError
from fairseq_compress.export.model_writer import TextSide
from fairseq_compress.export.onnx.precisions import PRECISIONS, Storage
from fairseq_compress.export.onnx_format import write_graphs, write_model
from fairseq_compress.export.onnx_linear import Float32
from fairseq_compress.export.stored_weights import StoredWeights
from fairseq_compress.runtimes.model_directory import ModelDirectory
from fairseq_compress.runtimes.onnx.chosen import Entries
from fairseq_compress.runtimes.onnx.model import SHORTLIST, OnnxModel
from fairseq_compress.teachers.dictionaries import dictionary_sha256
from tests.helpers.shortlists import translate_among, write_random_shortlist
from tests.unit.test_beam_search import SHAPES, build, dictionary, loaded, sentences
from tests.unit.test_onnx_forms import make

WORDS = 800
PLAIN = {"post-norm", "norm of the embedding, no scale, shared output", "other widths"}
OUTPUTS = {"factorized", "factorized, apart", "convolution", "convolution of 5, apart", "ssru"}
BIG = {
    "encoder_embed_dim": 48, "encoder_ffn_embed_dim": 96, "decoder_layers": 1, "share_all_embeddings": True,
    "words": WORDS, "peak": 1.2,
}  # fmt: skip
OPTIONS = {"blocks of 16": {"group_size": 16}, "zeros": {"asymmetric": True}}
KINDS = [(kind, "") for kind in PRECISIONS if kind not in ("plan", "int8_batch")] + [("int4", name) for name in OPTIONS]


def metadata(own, entries):
    sha256 = dictionary_sha256(entries)
    vocabulary = {"source_dictionary": sha256, "target_dictionary": sha256}
    return {"onnx": own, "positions": {"source": 60, "target": 60}, "vocabulary": vocabulary}


def opened(folder, model, options, threads=1, kind="float32", values=None, **storage):
    entries = model.decoder.dictionary
    if not folder.exists():
        folder.mkdir()
        write_random_shortlist(f"{folder}.shortlist", entries)
        text = TextSide(("en", "cs"), Segmentation(kind="none"), read_shortlist(f"{folder}.shortlist"))
        values, given = values or model_values(model.args), {"ranges": defaultdict(lambda: (-6.0, 6.0)), **storage}
        opened.onnx[folder] = write_model(
            folder, model, values, entries, entries, kind, Storage(StoredWeights(), **given), text
        )
    directory = ModelDirectory(folder, metadata(opened.onnx[folder], entries))
    return OnnxModel(directory, options, options.beam, threads)


opened.onnx = {}


def check_equal(exported, model, options, count=30):
    """The hypotheses are those of torch among the entries of each sentence."""
    entries = model.decoder.dictionary
    text = sentences(count, words=len(entries) - 4)
    found = exported.translate([[entries[token] for token in sentence[:-1]] for sentence in text])
    sizes = set()
    for sentence, hypotheses in zip(text, found, strict=True):
        among = exported.shortlist.of(sentence)
        sizes.add(len(among))
        expected = translate_among(loaded(model), sentence, among, options)
        assert [best.output for best in hypotheses] == [[entries[t] for t in best.output] for best in expected]
        assert [best.score for best in hypotheses] == pytest.approx([best.score for best in expected], abs=2e-4)
    assert len(sizes) > 1
    return found


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("shape", sorted(PLAIN))
def test_translations_among_the_entries(shape, beam, tmp_path):
    options = SearchOptions(beam=beam, max_len_b=20)
    model = build(words=WORDS, **SHAPES[shape])
    check_equal(opened(tmp_path / "m", model, options), model, options)


@pytest.mark.parametrize("form", sorted(OUTPUTS))
def test_every_form_of_output(form, tmp_path):
    options, model = SearchOptions(beam=3, max_len_b=12), make(form, words=WORDS)
    check_equal(opened(tmp_path / "m", model, options, values=own_values(model.args)), model, options, 15)


@pytest.mark.parametrize("options", [{"no_repeat_ngram_size": 1, "min_len": 12}, {"unkpen": -3.5}, {"beam": 70}])
def test_options_of_the_search(options, tmp_path):
    given = SearchOptions(**{"beam": 3, "max_len_b": 16} | options)
    model = build(2, words=WORDS)
    exported = opened(tmp_path / "m", model, given)
    if given.beam > MULTIPLE:
        assert all(len(hypotheses) > MULTIPLE for hypotheses in exported.translate([["w1"], ["w2", "w3"]]))
    else:
        check_equal(exported, model, given)


def test_an_output_with_a_bias(tmp_path):
    import torch
    from torch import nn

    model = build(2, words=WORDS, share_decoder_input_output_embed=False)
    projection = model.decoder.output_projection
    projection.bias = nn.Parameter(torch.randn(len(projection.weight), generator=torch.Generator().manual_seed(3)))
    options = SearchOptions(beam=3, max_len_b=16)
    exported = opened(tmp_path / "m", model, options)
    assert "chosen_bias" in opened.onnx[tmp_path / "m"]["chosen"]
    check_equal(exported, model, options)


def test_without_the_shortlist_all_entries_are_computed(tmp_path):
    model, options = build(2, words=WORDS), SearchOptions(beam=3, max_len_b=16)
    exported = opened(tmp_path / "m", model, options)
    exported.shortlist = None
    entries = model.decoder.dictionary
    (tmp_path / "whole").mkdir()
    own = write_graphs(tmp_path / "whole", model, model_values(model.args), entries, entries, Float32())
    whole = OnnxModel(ModelDirectory(tmp_path / "whole", metadata(own, entries)), options, 3)
    text = [[entries[token] for token in sentence[:-1]] for sentence in sentences(words=WORDS)]
    for one, two in zip(exported.translate(text), whole.translate(text), strict=True):
        assert [best.output for best in one] == [best.output for best in two]
        assert [best.score for best in one] == pytest.approx([best.score for best in two], abs=1e-5)


@pytest.fixture(scope="module")
def model():
    return build(2, **BIG)


@pytest.fixture(scope="module")
def text(model):
    entries = model.decoder.dictionary
    return [[entries[token] for token in sentence[:-1]] for sentence in sentences(200, words=WORDS)]


def outputs(model, text):
    return [[(best.score, best.output) for best in each] for each in model.translate(text)]


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_every_batching_gives_the_same_bits(kind, options, beam, model, text, tmp_path):
    search, more = SearchOptions(beam=beam, max_len_b=14), OPTIONS.get(options, {})
    one = opened(tmp_path / "m", model, search, 1, kind, **more)
    alone = [outputs(one, [sentence])[0] for sentence in text]
    order = random.Random(3).sample(range(len(text)), len(text))
    whole = {
        "as they are": outputs(one, text),
        "two threads": outputs(opened(tmp_path / "m", model, search, 2), text),
        "in pairs": [each for at in range(0, len(text), 2) for each in outputs(one, text[at : at + 2])],
        "in another order": [
            found for _, found in sorted(zip(order, outputs(one, [text[place] for place in order]), strict=True))
        ],
    }
    different = {name: sum(a != b for a, b in zip(found, alone, strict=True)) for name, found in whole.items()}
    assert different == dict.fromkeys(whole, 0)


def test_the_entries_of_a_batch():
    """Worked out by hand: unions, places, padding; those of the sentences that are left."""
    lists = [np.array([0, 1, 5, 6]), np.array([0, 1, 2]), np.array([0, 1, 9])]
    entries = Entries(lists, 10, padding=1)
    assert entries.union.tolist() == [0, 1, 2, 5, 6, 9]
    rows = np.arange(12, dtype=np.int8).reshape(2, 6)
    entries.set_rows({"rows": rows, "row_scales": rows[0] * 1.0, "chosen_bias": np.arange(6, dtype=np.float32)})
    inputs = entries.inputs(2)
    assert inputs["entries"].tolist()[2:4] == [[0, 1, 2, 1]] * 2
    assert inputs["places"].tolist()[::2] == [[0, 1, 3, 4], [0, 1, 2, 1], [0, 1, 5, 1]]
    assert inputs["offsets"].tolist()[4] == [0, 1, 5, -np.inf]
    entries.keep(np.array([0, 2]))
    assert entries.union.tolist() == [0, 1, 2, 5, 6, 9]  # one row too many costs less than a copy
    entries.keep(np.array([1]))
    assert entries.union.tolist() == [0, 1, 9]
    inputs = entries.inputs(1)
    assert inputs["rows"].tolist() == [[0, 1, 5], [6, 7, 11]]
    assert inputs["row_scales"].tolist() == [0, 1, 5]
    assert inputs["places"].tolist() == [[0, 1, 2, 1]]


def test_the_shortlist_of_another_dictionary(tmp_path, model):
    options = SearchOptions(beam=1, max_len_b=14)
    opened(tmp_path / "m", model, options)
    for words in (WORDS, 300):
        other = dictionary(words)
        other.symbols[7] = "other"
        write_random_shortlist(tmp_path / "m" / SHORTLIST, other)
        message = rf"must be of the model's source dictionary \(804 .*\), got {words + 4} entries"
        with pytest.raises(DataError, match=message):
            opened(tmp_path / "m", model, options)
