"""Models exported for ONNX Runtime against fairseq's SequenceGenerator, on small random models of several shapes."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fairseq_compress.architecture.configuration import implied_flags
from fairseq_compress.architecture.reading import from_json
from fairseq_compress.checkpoint.materialize import model_values
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.export.onnx.int8 import quantize_rows
from fairseq_compress.export.onnx_format import why_not, write_graphs, write_model
from fairseq_compress.export.onnx_linear import Float32
from fairseq_compress.models.compressed_transformer import CompressedTransformerModel
from fairseq_compress.runtimes.model_directory import ModelDirectory
from fairseq_compress.runtimes.onnx.model import OnnxModel, sinusoids
from tests.helpers.structures import UNEVEN, UNEVEN_DECODER
from tests.unit.test_beam_search import NGRAMS, SHAPES, build, of_fairseq, repeats, sentences

OTHERS = {
    "tanh": {"activation_fn": "tanh"},
    "gelu_accurate": {"activation_fn": "gelu_accurate", "encoder_normalize_before": True},
    "tables of their own": {"share_decoder_input_output_embed": False},
    "a width that is no multiple of four": {
        "encoder_embed_dim": 18,
        "encoder_attention_heads": 3,
        "decoder_attention_heads": 2,
    },
}


def export(folder, model, options, precision=None):
    folder.mkdir()
    entries = model.decoder.dictionary
    own = write_graphs(folder, model, model_values(model.args), entries, entries, precision or Float32())
    metadata = {"onnx": own, "positions": {"source": 60, "target": 60}}
    return OnnxModel(ModelDirectory(folder, metadata), options, nbest=options.beam)


def check_equal(folder, model, options, batch=None):
    """Hypotheses and scores; one sentence at a time where fairseq's greatest length depends on the batch."""
    batch = batch or sentences()
    entries = model.decoder.dictionary
    cut = [[batch[at]] for at in range(len(batch))] if options.max_len_a else [batch]
    expected = [best for part in cut for best in of_fairseq([model], part, options)]
    pieces = [[entries[token] for token in sentence[:-1]] for sentence in batch]
    found = export(folder, model, options).translate(pieces)
    for one, two in zip(found, expected, strict=True):
        assert [best.output for best in one] == [[entries[token] for token in tokens] for tokens, _ in two]
        assert [best.score for best in one] == pytest.approx([score for _, score in two], rel=2e-4, abs=1e-4)
    return found


@pytest.mark.parametrize("shape", SHAPES | OTHERS)
def test_equal_for_every_shape(shape, tmp_path):
    model = build(**(SHAPES | OTHERS)[shape])
    found = check_equal(tmp_path / "m", model, SearchOptions(beam=5, max_len_b=25))
    assert len({len(best.output) for each in found for best in each}) > 5  # of many lengths


@pytest.mark.parametrize("beam", [1, 2, 5])
@pytest.mark.parametrize(
    "options", [{"lenpen": 0.5}, {"min_len": 7}, {"min_len": 0}, {"unkpen": 3.5}, {"unkpen": -3.5},
                {"no_repeat_ngram_size": 1}, {"no_repeat_ngram_size": 2, "min_len": 12}],
)  # fmt: skip
def test_equal_for_every_option(beam, options, tmp_path):
    check_equal(tmp_path / "m", build(2), SearchOptions(beam=beam, max_len_b=30, **options))


@pytest.mark.parametrize(("a", "b"), [(0, 1), (0, 3), (0.2, 2), (0, 200)])  # 200: the positions of the model end first
def test_equal_at_the_greatest_length(a, b, tmp_path):
    check_equal(tmp_path / "m", build(3), SearchOptions(beam=4, max_len_a=a, max_len_b=b))


@pytest.mark.parametrize(("beam", "size"), NGRAMS)
def test_no_ngram_twice(beam, size, tmp_path):
    options = SearchOptions(beam=beam, max_len_b=30, min_len=12, no_repeat_ngram_size=size)
    found = check_equal(tmp_path / "m", build(2), options)
    assert not any(repeats(best.output, size) for each in found for best in each)


def test_words_that_the_dictionary_lacks(tmp_path):
    model, options = build(2), SearchOptions(beam=3, max_len_b=20)
    found = export(tmp_path / "m", model, options).translate([["w1", "never seen", "w2"]])
    ((best, *_),) = of_fairseq([model], [[5, 3, 6, 2]], options)
    assert found[0][0].output == [model.decoder.dictionary[token] for token in best[0]]


def test_one_sentence_or_many_and_any_number_of_threads(tmp_path):
    model = build(2)
    pieces = [[model.decoder.dictionary[token] for token in sentence[:-1]] for sentence in sentences(40)]
    options = SearchOptions(beam=4, max_len_b=30)
    exported = export(tmp_path / "m", model, options)
    alone = [exported.translate([sentence])[0] for sentence in pieces]
    for threads in (1, 3):
        many = OnnxModel(ModelDirectory(tmp_path / "m", exported_metadata(tmp_path, model)), options, 4, threads)
        for one, two in zip(many.translate(pieces), alone, strict=True):
            assert [best.output for best in one] == [best.output for best in two]
            assert [best.score for best in one] == pytest.approx([best.score for best in two], abs=1e-5)


def exported_metadata(folder, model):
    entries = model.decoder.dictionary
    (folder / "again").mkdir(exist_ok=True)
    own = write_graphs(folder / "again", model, model_values(model.args), entries, entries, Float32())
    return {"onnx": own, "positions": {"source": 60, "target": 60}}


def test_sinusoids_are_those_of_fairseq():
    from fairseq.modules import SinusoidalPositionalEmbedding

    for width in (16, 18, 256):
        expected = SinusoidalPositionalEmbedding.get_embedding(302, width, 1)[2:].numpy()
        np.testing.assert_allclose(sinusoids(300, width), expected, atol=1e-4)


def test_nan_is_an_error(tmp_path):
    model = build(2)
    model.decoder.layers[0].fc1.weight.fill_(float("nan"))
    with pytest.raises(DataError, match="the model gives NaN"):
        export(tmp_path / "m", model, SearchOptions(beam=2, max_len_b=20)).translate([["w1"]])


def test_the_greatest_beam(tmp_path):
    with pytest.raises(ConfigError, match="--beam: must be at most 42 with this dictionary, got 43"):
        export(tmp_path / "m", build(2), SearchOptions(beam=43, max_len_b=20))


def test_what_the_graphs_cannot_hold():
    values = {"activation_fn": "linear", "no_cross_attention": True, "adaptive_softmax_cutoff": "10,20"}
    assert len(why_not(values)) == 3


def test_rows_of_integers():
    """Worked out by hand: 2 is 64 steps of 1/32."""
    integers, scales = quantize_rows(np.array([[2.0, -1.0, 0.02], [0.0, 0.0, 0.0]], np.float32), 64)
    assert integers.tolist() == [[64, -32, 1], [0, 0, 0]]
    assert scales.tolist() == [0.03125, 1.0]


def product(integers, x):
    tensors = [numpy_helper.from_array(integers, "w"), numpy_helper.from_array(np.ones(1, np.float32), "s")]
    node = helper.make_node("DynamicQuantizeMatMul", ["x", "w", "s"], ["y"], domain="com.microsoft")
    sizes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", None]) for name in "xy"]
    graph = helper.make_graph([node], "g", sizes[:1], sizes[1:], tensors)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("quantization", ["int8"])
def test_no_sum_of_products_overflows(quantization):
    """The greatest weights that int8 writes, times the greatest activations: exact on any processor."""
    integers, scales = quantize_rows(np.ones((16, 512), np.float32), 64)
    assert scales[0] * 64 == 1
    found = product(np.ascontiguousarray(integers.T), np.ones((4, 512), np.float32))
    np.testing.assert_allclose(found, 512 * 64, rtol=1e-6)


def test_the_output_table_is_stored_once(tmp_path):
    model = build(2, share_all_embeddings=True, words=1000)
    for kind in ("float32", "int8"):
        folder = tmp_path / kind
        folder.mkdir()
        entries = model.decoder.dictionary
        write_model(folder, model, model_values(model.args), entries, entries, kind)
        weights = sum(parameter.numel() for parameter in model.parameters())
        size = (folder / "weights.bin").stat().st_size
        assert size < (1.15 if kind == "float32" else 0.6) * 4 * weights  # rows of 16 have scales of 4 bytes


@pytest.mark.parametrize("architecture", [UNEVEN, UNEVEN_DECODER], ids=["one decoder layer", "two"])
def test_equal_where_layers_differ(architecture, tmp_path):
    model = build(kind=CompressedTransformerModel, architecture=architecture, **implied_flags(from_json(architecture)))
    check_equal(tmp_path / "m", model, SearchOptions(beam=5, max_len_b=25))
