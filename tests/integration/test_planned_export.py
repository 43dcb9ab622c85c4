"""``quantize`` with a plan, then ``export``: the integers, indices and centroids of the plan are in the files."""

import shutil

import numpy as np
import onnx
import pytest

from fairseq_compress import runtimes
from fairseq_compress.checkpoint.packed_file import read_packed
from fairseq_compress.cli.main import main
from fairseq_compress.functional.quantization.bit_packing import unpack_integers
from fairseq_compress.runtimes.model_directory import ModelDirectory
from fairseq_compress.runtimes.options import RuntimeOptions
from tests.helpers.onnx_graphs import nodes_after_loading, operands
from tests.integration.test_export import model, translate  # noqa: F401 - a fixture

GRAPHS = ("encoder.onnx", "step.onnx")
MIXED = """weights:
  - {modules: ["*.fc1"], bits: 4, granularity: group, group_size: 16}
  - {modules: ["*.fc2", "*.embed_tokens"], bits: 4}
  - {modules: ["*.q_proj", "*.k_proj"], bits: 8}
  - {modules: ["encoder*.v_proj"], method: product, block: 4, centroids: 16}
  - {modules: ["encoder*.out_proj"], bits: 3}
"""
CODES = {
    "k-means": 'weights: [{modules: ["*"], method: codebook, bits: 4}]\n',
    "percentile": 'weights: [{modules: ["*"], method: codebook, bits: 3, algorithm: percentile}]\n',
    "product": 'weights: [{modules: ["*"], method: product, block: 4, centroids: 16}]\n',
}
ROWS = 'weights: [{modules: ["*"], bits: 8}]\n'


def quantized(model, folder, plan):  # noqa: F811
    """A packed file of the plain model."""
    (folder / "plan.yaml").write_text(plan)
    packed = folder / "packed.safetensors"
    arguments = ["quantize", str(model / "checkpoint_last.pt"), str(packed), "--plan", str(folder / "plan.yaml")]
    assert main(arguments) == 0
    return packed


def export(model, packed, output, *options):  # noqa: F811
    """The directory of a packed file, and its metadata."""
    arguments = ["export", packed, output, "--data", model / "bin", "--sentencepiece-model", model / "spm.model",
                 "--max-len-b", 20, "--source", model / "test.en", "--reference", model / "test.cs"]  # fmt: skip
    assert main([*map(str, arguments), "--max-bleu-loss", "30", *options]) == 0
    return ModelDirectory.open(output).metadata


def of_packed(model, packed):  # noqa: F811
    """Translations of the packed file."""
    options = ["--data", model / "bin", "--sentencepiece-model", model / "spm.model", "--max-len-b", 20]
    return translate((model / "test.en").read_bytes(), packed, *options)[0].splitlines()


def integers_of_graphs(folder):
    """All integers (N, K) and scales (N, K) that the products of both graphs read."""
    found = []
    for name in GRAPHS:
        nodes = [node for node in onnx.load(folder / name).graph.node if node.op_type == "MatMulNBits"]
        for node, (data, scales) in zip(nodes, operands(folder / name, "MatMulNBits", (1, 2)), strict=True):
            sizes = {each.name: each.i for each in node.attribute}
            if sizes["bits"] == 4:
                data = np.stack([data & 15, data >> 4], axis=-1)
            values = data.reshape(sizes["N"], -1)[:, : sizes["K"]].astype(np.int32) - 2 ** (sizes["bits"] - 1)
            repeated = np.repeat(scales.reshape(sizes["N"], -1), sizes["block_size"], axis=1)[:, : sizes["K"]]
            found.append((values, repeated))
    return found


def is_in(integers, scales, found):
    """Whether rows of one of the matrices are these integers and scales."""
    many = len(integers)
    for values, factors in found:
        if values.shape[1] == integers.shape[1]:
            for at in np.flatnonzero((values == integers[0]).all(axis=1)):
                if np.array_equal(values[at:][:many], integers) and np.array_equal(factors[at:][:many], scales):
                    return True
    return False


@pytest.fixture(scope="module")
def mixed(model, tmp_path_factory):  # noqa: F811
    """The packed file of the mixed plan and its export, with the metadata."""
    folder = tmp_path_factory.mktemp("mixed")
    packed = quantized(model, folder, MIXED)
    return packed, folder / "out", export(model, packed, folder / "out", "--quantization", "plan")


def test_the_integers_of_the_graphs_are_those_of_the_packed_file(mixed):
    packed, output, metadata = mixed
    found, compared = integers_of_graphs(output), 0
    for name, weight in read_packed(packed).weights.items():
        if weight.kind != "linear":
            continue
        rows, columns = weight.spec["shape"]
        integers = unpack_integers(weight.tensors["integers"], weight.spec["bits"], rows * columns)
        inverse = weight.tensors["inverse_scales"].float().flatten(1).numpy()
        scales = np.repeat(np.float32(1) / inverse, columns // inverse.shape[1], axis=1)
        assert is_in(integers.numpy().reshape(rows, columns).astype(np.int32), scales, found), name
        compared += 1
    assert compared == sum(metadata["forms"]["kept"].values()) == 17
    kept = {form.partition(",")[0] for form in metadata["forms"]["kept"]}
    assert kept == {"linear: bits=3", "linear: bits=4", "linear: bits=8"}
    assert list(metadata["forms"]["expanded"].values()) == [2]
    assert "lost" not in metadata["forms"]


def test_with_exact_activations_the_translations_are_those_of_the_packed_file(mixed, model, tmp_path):  # noqa: F811
    """The same products with activations in float32, as torch computes them."""
    packed, output, metadata = mixed
    folder = tmp_path / "exact"
    shutil.copytree(output, folder)
    for name in GRAPHS:
        graph = onnx.load(folder / name, load_external_data=False)
        levels = [each for node in graph.graph.node for each in node.attribute if each.name == "accuracy_level"]
        assert {level.i for level in levels} == {4}
        for level in levels:
            level.i = 0
        (folder / name).write_bytes(graph.SerializeToString())
    opened = runtimes.open(ModelDirectory(folder, metadata | {"files": {}}), RuntimeOptions())
    lines = (model / "test.en").read_bytes().splitlines()
    found = [each.hypotheses[0].text.encode() for each in opened.translate(lines)]
    assert sum(a != b for a, b in zip(found, of_packed(model, packed), strict=True)) <= 1  # one of 40 may be a tie
    assert metadata["check"]["equal"] > 0.5  # activations of 8 bits


@pytest.mark.parametrize("form", CODES)
def test_codebooks_are_small_in_the_file_and_expanded_once(form, model, tmp_path, capsys):  # noqa: F811
    packed = quantized(model, tmp_path, CODES[form])
    capsys.readouterr()
    metadata = export(model, packed, tmp_path / "out", "--quantization", "plan")
    assert "matrices are compressed in the file" in capsys.readouterr().err
    weights = read_packed(packed).weights
    codes = {name: weight for name, weight in weights.items() if weight.kind == "codes"}
    plain = sum(weight.bytes for weight in weights.values() if weight.kind == "plain")
    in_file = sum(weight.bytes for weight in codes.values())
    in_memory = sum(4 * np.prod(weight.shape) for weight in codes.values())
    assert metadata["forms"] == {
        "expanded": {str(next(iter(codes.values()))): len(codes)},
        "expanded_bytes": {"file": in_file, "memory": in_memory},
    }
    arrays = 2 * len(codes) + len(weights)  # each at a multiple of 64 bytes
    assert metadata["files"]["weights.bin"]["bytes"] - (in_file + plain) < 64 * arrays
    names = {each.name for name in GRAPHS for each in onnx.load(tmp_path / "out" / name).graph.initializer}
    assert {f"{name}.{part}" for name in codes for part in ("assignments", "centroids")} <= names
    for name in GRAPHS:
        left = nodes_after_loading(tmp_path / "out" / name, tmp_path)
        assert left.count("Gather") <= 2  # of the embeddings, and of the end of a sentence
        assert "MatMulNBits" not in left
    found = translate((model / "test.en").read_bytes(), tmp_path / "out")[0].splitlines()
    assert sum(a != b for a, b in zip(found, of_packed(model, packed), strict=True)) <= 1


def test_calibrated_int8_has_the_integers_of_the_plan(model, tmp_path):  # noqa: F811
    packed = quantized(model, tmp_path, ROWS)
    options = ["--quantization", "int8_calibrated", "--calibration", str(model / "train.en")]
    metadata = export(model, packed, tmp_path / "out", *options)
    assert list(metadata["forms"]) == ["kept"]
    found = []
    for name in GRAPHS:
        for values, scales in operands(tmp_path / "out" / name, "MatMulIntegerToFloat", (1, 3)):
            found.append((values.T.astype(np.int32), np.repeat(scales[:, None], len(values), axis=1)))
    for name, weight in read_packed(packed).weights.items():
        if weight.kind == "linear":
            integers = weight.tensors["integers"].numpy().view(np.int8).reshape(weight.shape).astype(np.int32)
            inverse = weight.tensors["inverse_scales"].flatten(1).numpy()
            scales = np.broadcast_to(np.float32(1) / inverse, integers.shape)
            assert is_in(integers, scales, found), name


@pytest.mark.parametrize("options", [("--quantization", "int4"), ("--runtime", "ctranslate2")], ids=" ".join)
def test_each_lost_form_is_one_line(options, model, tmp_path, capsys):  # noqa: F811
    packed = quantized(model, tmp_path, MIXED)
    capsys.readouterr()
    metadata = export(model, packed, tmp_path / "out", *options)
    lost = metadata["forms"]["lost"]
    assert sum(lost.values()) + sum(metadata["forms"].get("kept", {}).values()) == 19
    assert any(form.startswith("codes") for form in lost)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    kind = metadata["quantization"]
    assert lines == [
        f"warning: {count} matrices lose their form ({form}) and are stored as {kind}; "
        "--runtime onnx --quantization plan keeps it"
        for form, count in lost.items()
    ]


def test_a_model_without_a_plan_is_refused(model, tmp_path, capsys):  # noqa: F811
    arguments = ["export", model / "checkpoint_last.pt", tmp_path / "out", "--data", model / "bin", "--no-check",
                 "--sentencepiece-model", model / "spm.model", "--quantization", "plan"]  # fmt: skip
    assert main([*map(str, arguments)]) == 1
    assert "--quantization plan: requires a model with a compression plan" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
