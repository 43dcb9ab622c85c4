"""Every form of layer and embedding in the graphs of ONNX Runtime: equal to fairseq's search over the model itself."""

from argparse import Namespace
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fairseq.models.transformer import base_architecture
from torch import nn

from fairseq_compress.architecture.configuration import implied_flags
from fairseq_compress.architecture.reading import from_json
from fairseq_compress.checkpoint.materialize import own_values
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.errors import ConfigError
from fairseq_compress.export.onnx.precisions import PRECISIONS, Storage
from fairseq_compress.export.onnx_format import write_graphs, write_model
from fairseq_compress.export.onnx_linear import Float32
from fairseq_compress.export.stored_weights import StoredWeights
from fairseq_compress.models.compressed_transformer import CompressedTransformerModel
from fairseq_compress.runtimes.model_directory import ModelDirectory
from fairseq_compress.runtimes.onnx.model import OnnxModel
from tests.unit.test_beam_search import dictionary, of_fairseq, sentences

WIDTH = {
    "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 24, "encoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_layers": 2, "decoder_attention_heads": 4, "max_source_positions": 60, "max_target_positions": 60,
}  # fmt: skip
PEAKS = {  # the digits of float32 grow in more layers
    "bottleneck": 1, "bottleneck with norms, low-rank": 1, "bottleneck and convolution": 1,
}  # fmt: skip
SEEDS = {  # with which translations have several lengths
    "factorized": 1, "tensor train": 5, "tensor train, apart": 1, "low-rank": 3, "every self-attention": 2,
    "language tokens": 2, "bottleneck with norms, low-rank": 1,
}  # fmt: skip
LIKE_THE_CHECKPOINT = 200  # sentences
SHARED = {"share_all_embeddings": True}
CUT = {"tensor_train_modes": "4,4,3:4,2,2"}  # 48 rows for 44 entries
MIXED = """{
    "encoder": {"width": 16, "layers": [{"self_attention": {"heads": 4}, "ffn": 24}]},
    "decoder": {"width": 16, "layers": [
        {"self_attention": {"heads": 3, "head_width": 5}, "cross_attention": {"heads": 3, "head_width": 4}, "ffn": 20},
        {"self_attention": {"kind": "ssru"}, "cross_attention": null, "ffn": 9},
        {"self_attention": {"kind": "average"}, "cross_attention": {"heads": 1}, "ffn": 9}]}}"""
LANGUAGES = MIXED.replace('{\n    "encoder"', '{"language_tokens": {"source": [7], "target": [8, 9]}, "encoder"')
FORMS = {
    "factorized": {"embedding_rank": 4, **SHARED},
    "factorized, apart": {"embedding_rank": 4, "share_decoder_input_output_embed": False},
    "tensor train": {"tensor_train_rank": 3, **CUT, **SHARED},
    "tensor train, apart": {"tensor_train_rank": 3, "share_decoder_input_output_embed": False},
    "convolution": {"embedding_rank": 6, "embedding_convolution": 3, **SHARED},
    "convolution of 5, apart": {
        "embedding_rank": 6, "embedding_convolution": 5, "share_decoder_input_output_embed": False,
    },
    "one tap": {"embedding_rank": 6, "embedding_convolution": 1},
    "low-rank": {"ffn_rank": 3, "attention_rank": 2, "linear_ranks": "encoder.layers.1.fc?=5"},
    "low-rank keys": {"linear_ranks": "*.k_proj=3"},
    "sparse": {"sparsity": 0.5, "sparse_block": 8},
    "sparse entries": {"sparsity": 0.7},
    "ssru": {"decoder_self_attention": "ssru"},
    "ssru, pre-norm, low-rank": {
        "decoder_self_attention": "ssru", "decoder_normalize_before": True, "encoder_normalize_before": True,
        "linear_ranks": "*.forget=3",
    },
    "average": {"decoder_self_attention": "average", "average_attention_ffn": 12},
    "average without network": {"decoder_self_attention": "average"},
    "shared": {"encoder_layer_groups": 1, "decoder_layer_groups": 1},
    "bottleneck": {"bottleneck_width": 8, "ffn_stack": 2, "bottleneck_norm": "elementwise"},
    "bottleneck with norms, low-rank": {"bottleneck_width": 8, "ffn_stack": 1, "attention_rank": 2},
    "zero start": {"decoder_start": "zero"},
    "positions from 0": {"first_position": 0},
    "epsilon": {"norm_eps": 0.05},
    "output bias": {"output_bias": True},
    "output bias, apart": {"output_bias": True, "share_decoder_input_output_embed": False},
    "as in Marian": {
        "decoder_start": "zero", "first_position": 0, "norm_eps": 1e-6, "output_bias": True,
        "decoder_self_attention": "ssru", **SHARED,
    },
    "several": {
        "embedding_rank": 4, "ffn_rank": 3, "encoder_layer_groups": 1, "decoder_layer_groups": 1,
        "decoder_self_attention": "ssru", **SHARED,
    },
    "bottleneck and convolution": {"bottleneck_width": 8, "embedding_rank": 6, "embedding_convolution": 3},
    "swish": {"activation_fn": "swish"},
    "language tokens": {"architecture": LANGUAGES, **implied_flags(from_json(LANGUAGES))},
    "every self-attention": {"architecture": MIXED, **implied_flags(from_json(MIXED))},
}  # fmt: skip


def make(form, words=40, peak=2, **more):
    """A random model whose distributions are peaked, so that hypotheses end and none are nearly equal."""
    torch.manual_seed(SEEDS.get(form, 0))
    args = Namespace(**WIDTH | FORMS[form] | more)
    base_architecture(args)
    entries = dictionary(words)
    task = SimpleNamespace(source_dictionary=entries, target_dictionary=entries)
    model = CompressedTransformerModel.build_model(args, task)
    output = model.decoder.output_projection
    ends = next((part.weight for part in (output, getattr(output, "table", None)) if isinstance(part, nn.Linear)), None)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(min(PEAKS.get(form, peak), peak)).add_(torch.randn_like(parameter) * 0.1)
        if ends is not None:
            ends[2] *= 3  # the end is now and then likely
    return model.eval().requires_grad_(False)


def export(folder, model, options, precision=None):
    folder.mkdir()
    entries = model.decoder.dictionary
    own = write_graphs(folder, model, own_values(model.args), entries, entries, precision or Float32())
    metadata = {"onnx": own, "positions": {"source": 60, "target": 60}}
    return OnnxModel(ModelDirectory(folder, metadata), options, nbest=options.beam)


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("form", FORMS)
def test_equal_to_the_checkpoint(form, beam, tmp_path):
    model, options, batch = make(form), SearchOptions(beam=beam, max_len_b=20), sentences(LIKE_THE_CHECKPOINT)
    entries = model.decoder.dictionary
    expected = of_fairseq([model], batch, options)
    pieces = [[entries[token] for token in sentence[:-1]] for sentence in batch]
    found = export(tmp_path / "m", model, options).translate(pieces)
    lengths, ties = set(), 0
    for one, two in zip(found, expected, strict=True):
        assert [best.score for best in one] == pytest.approx([score for _, score in two], rel=1e-3, abs=1e-3)
        ties += [best.output for best in one] != [[entries[token] for token in tokens] for tokens, _ in two]
        lengths |= {len(best.output) for best in one}
    assert ties <= (0 if beam == 1 else 1)  # two hypotheses of one score, to the digits of float32
    assert len(lengths) > 1


def write(folder, model, kind="float32", values=None):
    folder.mkdir()
    entries = model.decoder.dictionary
    return write_model(folder, model, values or own_values(model.args), entries, entries, kind)


def graphs(folder):
    return [onnx.load(folder / name, load_external_data=False).graph for name in ("encoder.onnx", "step.onnx")]


def stored(folder):
    """Name of every tensor in the weight file -> shape."""
    return {each.name: tuple(each.dims) for graph in graphs(folder) for each in graph.initializer if each.external_data}


def test_low_rank_layers_are_two_products(tmp_path):
    write(tmp_path / "m", make("low-rank"))
    shapes = stored(tmp_path / "m")
    assert shapes["decoder.layers.0.fc1.down.weight"] == (3, 16)
    assert shapes["decoder.layers.0.fc1.up.weight"] == (24, 3)
    assert not [name for name, shape in shapes.items() if shape in ((24, 16), (16, 24), (16, 16), (48, 16), (32, 16))]


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_shared_layers_are_nodes_that_name_one_tensor(kind, tmp_path):
    """6 uses of 1 layer take the bytes of 1 layer; the graph has the nodes of 6."""
    sizes, products = {}, {}
    for groups in (0, 1):
        model = make("shared", encoder_layers=6, decoder_layer_groups=0, encoder_layer_groups=groups)
        write(tmp_path / str(groups), model, kind)
        sizes[groups] = (tmp_path / str(groups) / "weights.bin").stat().st_size
        encoder, _ = graphs(tmp_path / str(groups))
        first = [node for node in encoder.node if any("encoder.layers.0.fc1.weight" in name for name in node.input)]
        products[groups] = len(encoder.node), len(first)
    layer = sum(parameter.numel() for parameter in model.encoder.layers[0].parameters())
    assert products[0][0] == products[1][0]
    assert (products[0][1], products[1][1]) == (1, 6)
    assert sizes[0] - sizes[1] >= 5 * layer * {"float32": 4, "int8": 1}[kind]


@pytest.mark.parametrize("form", ["factorized", "convolution", "tensor train"])
def test_factors_of_embeddings_are_stored_once(form, tmp_path):
    model = make(form, words=1000, **({"tensor_train_modes": "11,10,10:4,2,2"} if form == "tensor train" else {}))
    write(tmp_path / "m", model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    size = (tmp_path / "m" / "weights.bin").stat().st_size
    assert size < 1.1 * 4 * parameters  # rows of a table are a multiple of 32


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_sparse_layers_are_small_in_the_file_and_the_metadata_say_so(kind, tmp_path):
    model = make("sparse", encoder_ffn_embed_dim=128, sparsity=0.9, encoder_embed_dim=64, decoder_embed_dim=64)
    own = write(tmp_path / "m", model, kind)
    found = own["sparse_in_file"]
    assert found["matrices"] >= 4
    assert found["bytes"] < 0.25 * found["dense_bytes"]
    session = onnxruntime.SessionOptions()
    session.optimized_model_filepath = str(tmp_path / "m" / "optimized.onnx")
    session.log_severity_level = 4
    onnxruntime.InferenceSession(str(tmp_path / "m" / "encoder.onnx"), session, providers=["CPUExecutionProvider"])
    optimized = onnx.load(tmp_path / "m" / "optimized.onnx").graph
    assert not {node.op_type for node in optimized.node} & {"ScatterND", "CumSum", "BitShift", "ConstantOfShape"}


def test_a_recurrent_decoder_keeps_a_state_and_no_keys(tmp_path):
    own = write(tmp_path / "m", make("ssru"))
    assert own["decoder"]["states"] == [{"name": f"{number}_cell", "width": 16} for number in (0, 1)]
    assert own["decoder"]["heads"] == 0
    names = {each.name for each in graphs(tmp_path / "m")[1].input}
    assert {"state_0_cell", "state_1_cell", "source_0_k"} <= names
    assert not [name for name in names if name.startswith("past")]


def test_states_after_sentences_have_left_the_batch(tmp_path):
    """Alone or together, with hypotheses that end at different steps."""
    model, options = make("ssru"), SearchOptions(beam=3, max_len_b=30)
    pieces = [[model.decoder.dictionary[token] for token in sentence[:-1]] for sentence in sentences(40)]
    exported = export(tmp_path / "m", model, options)
    for one, sentence in zip(exported.translate(pieces), pieces, strict=True):
        (alone,) = exported.translate([sentence])
        assert [best.output for best in one] == [best.output for best in alone]


@pytest.mark.parametrize("form", FORMS)
def test_int8_of_every_form(form, tmp_path):
    """The products of a step are close to those in float32."""
    model, options = make(form, peak=0.7), SearchOptions(beam=1, max_len_b=4, min_len=4)
    pieces = [[model.decoder.dictionary[token] for token in sentence[:-1]] for sentence in sentences(8)]
    scores = {}
    for kind in ("float32", "int8"):
        folder = tmp_path / kind
        own = write(folder, model, kind)
        runtime = OnnxModel(ModelDirectory(folder, {"onnx": own, "positions": {"source": 60, "target": 60}}), options)
        scores[kind] = np.array([best.score for (best,) in runtime.translate(pieces)])
    difference = np.abs(scores["int8"] - scores["float32"]).mean()
    assert difference < 0.15 * np.abs(scores["float32"]).mean()


@pytest.mark.parametrize("kind", [kind for kind in PRECISIONS if kind != "plan"])
def test_every_quantization_keeps_the_output_bias(kind, tmp_path):
    """A bias that is greater than all logits makes its entry the translation."""
    model, options = make("output bias"), SearchOptions(beam=1, max_len_b=3, min_len=3, unkpen=0.0)
    model.decoder.output_projection.bias[9] = 1000.0
    storage = Storage(StoredWeights(), defaultdict(lambda: (-6.0, 6.0)))
    (tmp_path / "m").mkdir()
    entries = model.decoder.dictionary
    own = write_model(tmp_path / "m", model, own_values(model.args), entries, entries, kind, storage)
    metadata = {"onnx": own, "positions": {"source": 60, "target": 60}}
    ((best,),) = OnnxModel(ModelDirectory(tmp_path / "m", metadata), options).translate([[entries[5], entries[6]]])
    assert set(best.output) == {entries[9]}


def test_positions_from_0_are_a_kind_that_older_versions_refuse(tmp_path):
    own = write(tmp_path / "m", make("positions from 0"))
    assert own["positions"] == {"encoder": "sinusoidal_from_0", "decoder": "sinusoidal_from_0"}


def test_a_weight_that_no_graph_reads_is_refused(tmp_path):
    model = make("ssru")
    model.decoder.layers[0].scale = nn.Parameter(torch.ones(2))
    with pytest.raises(ConfigError, match=r"cannot hold these weights: decoder\.layers\.0\.scale"):
        write(tmp_path / "m", model)
