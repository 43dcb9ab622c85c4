"""Weights of a compression plan in the graphs of ONNX Runtime: the same integers, or expanded when they are loaded."""

import numpy as np
import onnx
import pytest
import torch

from fairseq_compress.checkpoint.materialize import own_values
from fairseq_compress.export.onnx.blocks import Blocks
from fairseq_compress.export.onnx.int8 import Int8Rows
from fairseq_compress.export.onnx.precisions import PRECISIONS, Storage
from fairseq_compress.export.onnx.unpacking import unsigned
from fairseq_compress.export.onnx_format import write_model
from fairseq_compress.export.onnx_graph import GraphBuilder, WeightFile
from fairseq_compress.export.stored_weights import StoredWeights
from fairseq_compress.functional.quantization.bit_packing import pack_unsigned
from fairseq_compress.functional.quantization.codebooks import kmeans_codebook
from fairseq_compress.functional.quantization.codes import round_centroids
from fairseq_compress.functional.quantization.linear import LinearScheme, inverse_scales, quantize
from fairseq_compress.functional.quantization.product import product_quantize
from fairseq_compress.weights.centroids import pack_codes
from fairseq_compress.weights.methods.linear import pack_linear
from fairseq_compress.weights.methods.mask import pack_masked
from fairseq_compress.weights.packed import pack_plain, unpack
from tests.helpers.onnx_graphs import nodes_after_loading, session
from tests.unit.test_beam_search import build

R, C = 40, 64
WEIGHT = torch.randn(R, C, generator=torch.Generator().manual_seed(1))
KEPT = torch.rand(R, C, generator=torch.Generator().manual_seed(2)) > 0.7
ROW, TENSOR = ("row", 0), ("tensor", 0)
GROUPS = [ROW, TENSOR, ("group", 16), ("group", 32), ("group", 64)]


def linear(bits, kind=ROW, weight=WEIGHT):
    return pack_linear(weight, LinearScheme(bits, *kind))


def product(method, centroid_bits=16):
    codes = product_quantize(WEIGHT, 4, 16, method)
    dtype = torch.float16 if centroid_bits == 16 else torch.int8
    return pack_codes(round_centroids(WEIGHT, codes, dtype), centroid_bits)


def codebook(bits):
    return pack_codes(round_centroids(WEIGHT, kmeans_codebook(WEIGHT, bits)), 16)


EXPANDED = {
    **{f"codebook of {bits} bits": lambda bits=bits: codebook(bits) for bits in (2, 3, 4)},
    **{method: lambda method=method: product(method) for method in ("kmeans", "opq", "residual", "lsq")},
    "centroids in int8": lambda: product("kmeans", 8),
    "groups of 8": lambda: linear(4, ("group", 8)),
    "groups of 8 in 5 bits": lambda: linear(5, ("group", 8)),
    "masked": lambda: pack_masked(pack_plain(WEIGHT * KEPT), KEPT),
    "masked codebook": lambda: pack_masked(codebook(3), KEPT),
    "masked product": lambda: pack_masked(product("residual"), KEPT),
    "masked groups of 8": lambda: pack_masked(linear(4, ("group", 8), WEIGHT * KEPT), KEPT),
}


class Made:
    """A table of 64 rows, the last 24 zeros, as a graph: embedding and output of one weight."""

    def __init__(self, folder, kind, packed, **options):
        folder.mkdir(exist_ok=True)
        self.stored, self.values = StoredWeights({"w": packed}), unpack(packed).float().numpy()
        self.table = np.concatenate([self.values, np.zeros((24, C), np.float32)])
        file = WeightFile(folder / "weights.bin")
        graph = GraphBuilder(file)
        precision = PRECISIONS[kind](Storage(self.stored, **options))
        bias = np.zeros(len(self.table), np.float32)
        graph.node("Identity", precision.tied_linear(graph, "t", "x", self.table, bias), outputs=["logits"])
        graph.node("Identity", precision.rows(graph, "t", "tokens", self.table, 1.0), outputs=["rows"])
        inputs = {"x": (np.float32, ["N", C]), "tokens": (np.int64, ["M"])}
        outputs = {"logits": (np.float32, ["N", 64]), "rows": (np.float32, ["M", C])}
        graph.save(folder / "g.onnx", inputs, outputs)
        file.close()
        self.bytes = (folder / "weights.bin").stat().st_size
        self.operators = nodes_after_loading(folder / "g.onnx", folder)
        self.x = np.random.default_rng(0).standard_normal((7, C)).astype(np.float32)
        feeds = {"x": self.x, "tokens": np.arange(64)}
        self.logits, self.rows = session(str(folder / "g.onnx")).run(None, feeds)


@pytest.mark.parametrize("kind", ["plan", "int8_block", "int4"])
@pytest.mark.parametrize("group", GROUPS, ids=str)
@pytest.mark.parametrize("bits", range(2, 9))
def test_the_integers_of_a_plan_are_those_of_the_graph(bits, group, kind, tmp_path):
    """At atol=0: integers and scales as the kernel reads them."""
    scheme = LinearScheme(bits, *group)
    if kind == "int4" and bits > 4:
        made = Made(tmp_path, kind, linear(bits, group))
        assert list(made.stored.forms()) == ["lost"]
        return
    data, scales, kernel = read_kernel(tmp_path, Blocks({"plan": 0, "int8_block": 8, "int4": 4}[kind]), bits, group)
    inverse = inverse_scales(WEIGHT, scheme)
    expected = quantize(WEIGHT, inverse, scheme).numpy()
    assert np.array_equal(data, expected)
    whole = np.broadcast_to(1 / inverse.flatten(1).numpy(), (R, inverse.shape[1]))
    assert np.array_equal(scales, np.repeat(whole, scales.shape[1] // whole.shape[1], axis=1))
    assert kernel.bits == {"plan": 4 if bits <= 4 else 8, "int8_block": 8, "int4": 4}[kind]


def read_kernel(folder, precision, bits, group):
    """The integers and scales of a weight behind everything that is computed when a graph is loaded."""
    stored = StoredWeights({"w": linear(bits, group)})
    precision._stored = stored
    file = WeightFile(folder / "weights.bin")
    graph = GraphBuilder(file)
    values = unpack(linear(bits, group)).numpy()
    ((kernel, part),) = precision._parts(values)
    matrix = precision._matrix(graph, "w", kernel, part)
    graph.node("Identity", matrix.data, outputs=["data"])
    graph.node("Identity", matrix.scales, outputs=["scales"])
    graph.save(folder / "g.onnx", {}, {"data": (np.uint8, [R, None]), "scales": (np.float32, [R, None])})
    file.close()
    data, scales = session(str(folder / "g.onnx")).run(None, {})
    if kernel.bits == 4:
        data = np.stack([data & 15, data >> 4], axis=2).reshape(R, -1)
    assert stored.forms()["kept"]
    return data.astype(np.int32) - 2 ** (kernel.bits - 1), scales, kernel


@pytest.mark.parametrize("group", GROUPS, ids=str)
def test_a_plan_of_four_bits_takes_no_more_bytes_than_packed(group, tmp_path):
    packed = linear(4, group)
    made = Made(tmp_path, "plan", packed)
    assert sorted(made.operators) == ["GatherBlockQuantized", "MatMulNBits"]
    assert made.bytes - packed.bytes < 64 * 3 + 256  # alignment, and the bias of 64 rows
    assert made.stored.forms() == {"kept": {str(packed): 1}}
    np.testing.assert_allclose(made.rows, made.table, rtol=3e-7)


@pytest.mark.parametrize("kind", ["plan", "int8_block", "int4"])
@pytest.mark.parametrize("bits", [3, 4])
def test_masked_integers_keep_only_those_of_kept_weights(bits, kind, tmp_path):
    packed = pack_masked(linear(bits, ("group", 32), WEIGHT * KEPT), KEPT)
    assert packed.kind == "masked"
    made = Made(tmp_path, kind, packed)
    assert set(made.operators) == {"MatMulNBits", "GatherBlockQuantized"}
    np.testing.assert_allclose(made.rows, made.table, rtol=3e-7)
    assert made.bytes - packed.bytes < 64 * 4 + 256
    assert "kept" in made.stored.forms()


@pytest.mark.parametrize("form", EXPANDED)
def test_other_forms_are_small_in_the_file_and_expanded_once(form, tmp_path):
    packed = EXPANDED[form]()
    made = Made(tmp_path, "plan", packed)
    assert set(made.operators) == {"Gemm", "Gather"}
    if "rotation" in packed.tensors:
        np.testing.assert_allclose(made.rows, made.table, atol=1e-6)
    else:
        assert np.array_equal(made.rows, made.table)
    assert made.bytes - packed.bytes < 64 * 5 + 256
    forms = made.stored.forms()
    assert forms["expanded"] == {str(packed): 1}
    assert forms["expanded_bytes"] == {"file": packed.bytes, "memory": 4 * R * C}


@pytest.mark.parametrize("kind", ["int8", "int8_calibrated"])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group", [ROW, TENSOR], ids=str)
def test_rows_of_eight_bits_keep_the_integers_of_a_plan(group, bits, kind, tmp_path):
    packed = linear(bits, group)
    made = Made(tmp_path, kind, packed, ranges={"t": (-4.0, 4.0)})
    scheme = LinearScheme(bits, *group)
    inverse = inverse_scales(WEIGHT, scheme)
    expected = quantize(WEIGHT, inverse, scheme).numpy() * (1 / inverse.numpy().reshape(-1, 1))
    assert np.array_equal(made.rows[:R], np.broadcast_to(expected, (R, C)))
    assert made.stored.forms() == {"kept": {str(packed): 1}}
    np.testing.assert_allclose(made.logits, made.x @ made.table.T, atol=0.5)


@pytest.mark.parametrize("kind", ["float32", "int8", "int8_batch", "int4"])
def test_what_is_lost_is_told(kind, tmp_path):
    packed = product("kmeans")
    assert Made(tmp_path, kind, packed).stored.forms() == {"lost": {str(packed): 1}}


@pytest.mark.parametrize("kind", ["float32", "int8", "int8_batch", "int8_block", "int4"])
@pytest.mark.parametrize("options", [{}, {"group_size": 64}, {"asymmetric": True}], ids=str)
def test_a_model_without_a_plan(kind, options, tmp_path):
    table = WEIGHT.numpy()
    whole = np.concatenate([table, np.zeros((24, C), np.float32)])
    file = WeightFile(tmp_path / "weights.bin")
    graph = GraphBuilder(file)
    precision = PRECISIONS[kind](Storage(StoredWeights(), **options))
    graph.node("Identity", precision.rows(graph, "t", "tokens", whole, 1.0), outputs=["rows"])
    graph.save(tmp_path / "g.onnx", {"tokens": (np.int64, ["M"])}, {"rows": (np.float32, ["M", C])})
    file.close()
    (rows,) = session(str(tmp_path / "g.onnx")).run(None, {"tokens": np.arange(64)})
    assert np.abs(rows[:R] - table).max() < {"float32": 1e-6, "int4": 0.5}.get(kind, 0.06)
    assert np.abs(rows[R:]).max() == 0  # rows of zeros behind it


@pytest.mark.parametrize("bits", range(1, 17))
def test_integers_of_every_number_of_bits(bits, tmp_path):
    count = 131
    values = torch.randint(0, 2**bits, (count,), generator=torch.Generator().manual_seed(bits))
    file = WeightFile(tmp_path / "weights.bin")
    graph = GraphBuilder(file)
    stored = graph.dense("packed", pack_unsigned(values, bits).numpy())
    graph.node("Cast", unsigned(graph, stored, bits, count), outputs=["values"], to=7)
    graph.save(tmp_path / "g.onnx", {}, {"values": (np.int64, [count])})
    file.close()
    (found,) = session(str(tmp_path / "g.onnx")).run(None, {})
    assert found.tolist() == values.tolist()


def test_joined_matrices_are_found_by_their_values():
    first, second = linear(4), linear(4, ("group", 16), WEIGHT.flip(0))
    stored = StoredWeights({"a": first, "b": second})
    values = [unpack(each).numpy() for each in (first, second)]
    between = np.ones((3, C), np.float32)
    parts = stored.parts(np.concatenate([between, values[1], values[0], between]))
    assert [part.stored and part.stored.name for part in parts] == [None, "b", "a", None]
    assert [len(part.values) for part in parts] == [3, R, R, 3]
    changed = values[0].copy()
    changed[-1, -1] += 1e-6
    assert [part.stored for part in stored.parts(changed)] == [None]


def test_zeros_of_either_sign_are_one_value():
    """A module's ŵ may have -0.0 where the packed weight has 0.0."""
    packed = linear(4)
    values = unpack(packed).numpy()
    assert (values[0] == 0).any()
    (part,) = StoredWeights({"a": packed}).parts(np.where(values == 0, np.float32(-0.0), values))
    assert part.stored is not None


def test_a_row_of_zeros_in_int8(tmp_path):
    """Its range is 0: its product is 0, whatever 0 / 0 becomes as an integer."""
    file = WeightFile(tmp_path / "weights.bin")
    graph = GraphBuilder(file)
    bias = np.arange(R, dtype=np.float32)
    graph.node("Identity", Int8Rows().linear(graph, "w", "x", WEIGHT.numpy(), bias), outputs=["y"])
    graph.save(tmp_path / "g.onnx", {"x": (np.float32, ["N", C])}, {"y": (np.float32, ["N", R])})
    file.close()
    x = np.zeros((20, C), np.float32)
    x[::3] = 1
    found = session(str(tmp_path / "g.onnx")).run(None, {"x": x})[0]
    zeros = np.delete(found, np.s_[::3], axis=0)
    assert np.array_equal(zeros, np.tile(bias, (len(zeros), 1)))
    assert not np.isnan(found).any()


def operators(folder, name):
    return {node.op_type for node in onnx.load(folder / name, load_external_data=False).graph.node}


def test_a_quantization_for_the_encoder(tmp_path):
    """Its layers have it; the table that it shares has that of the decoder, and is stored once."""
    model, products = build(2, share_all_embeddings=True, words=1000), ("MatMulIntegerToFloat", "MatMulNBits")
    entries, sizes = model.decoder.dictionary, {}
    for encoder in (None, "int8"):
        folder = tmp_path / str(encoder)
        folder.mkdir()
        storage = Storage(StoredWeights(), encoder=encoder)
        write_model(folder, model, own_values(model.args), entries, entries, "int4", storage)
        sizes[encoder] = (folder / "weights.bin").stat().st_size
    assert operators(folder, "encoder.onnx") & {*products, "GatherBlockQuantized"} == {
        products[0],
        "GatherBlockQuantized",
    }
    assert operators(folder, "step.onnx") & {*products} == {products[1]}
    layers = sum(each.numel() for layer in model.encoder.layers for each in layer.parameters())
    assert 0 < sizes["int8"] - sizes[None] < layers
