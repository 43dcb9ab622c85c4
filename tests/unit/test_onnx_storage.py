"""Arrays with many zeros in the weight file, and the graph that makes them dense again."""

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_compress.export.onnx.storage import sparse_form
from fairseq_compress.export.onnx_graph import GraphBuilder, WeightFile


def expanded(folder, array):
    """The array as a graph reads it, and the bytes of the file."""
    file = WeightFile(folder / "weights.bin")
    graph = GraphBuilder(file)
    graph.node("Identity", graph.weight("w", array), outputs=["y"])
    graph.save(folder / "g.onnx", {}, {"y": (array.dtype, list(array.shape))})
    file.close()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(folder / "g.onnx"), options, providers=["CPUExecutionProvider"])
    return session.run(None, {})[0], (folder / "weights.bin").stat().st_size


def draw(shape, sparsity, block, kind, seed=0):
    random = np.random.default_rng(seed)
    grid = [size // block for size in shape]
    kept = np.kron(random.random(grid) >= sparsity, np.ones((block,) * len(shape)))
    return (random.uniform(1, 100, shape) * kept).astype(kind)


@pytest.mark.parametrize("kind", [np.float32, np.int8])
@pytest.mark.parametrize(
    ("shape", "sparsity", "block", "name"),
    [((64, 96), 0.6, 1, "bits"), ((63, 97), 0.6, 1, "bits"), ((64, 96), 0.98, 1, "gaps"), ((64, 96), 0.7, 8, "gaps"),
     ((64, 96), 0.7, 32, "gaps"), ((64, 96), 1.0, 1, None), ((40001,), 0.999, 1, "gaps")],
)  # fmt: skip
def test_the_same_array_in_fewer_bytes(kind, shape, sparsity, block, name, tmp_path):
    array = draw(shape, sparsity, block, kind)
    form = sparse_form(array)
    assert set(form.parts()) - {"values"} == ({name} if name else set())
    found, size = expanded(tmp_path, array)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    assert form.nbytes <= size <= form.nbytes + 128 < array.nbytes


@pytest.mark.parametrize(("shape", "sparsity"), [((64, 96), 0.0), ((64, 96), 0.05), ((8, 16), 0.9), ((20,), 1.0)])
def test_others_stay_dense(shape, sparsity, tmp_path):
    array = draw(shape, sparsity, 1, np.float32)
    assert sparse_form(array) is None
    found, size = expanded(tmp_path, array)
    np.testing.assert_array_equal(found, array)
    assert size == array.nbytes


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.integers(20, 90), st.floats(0, 1), st.sampled_from([1, 8]), st.integers(0, 99))
def test_bytes_are_never_more(rows, columns, sparsity, block, seed):
    array = draw((rows * block, columns * block), sparsity, block, np.int8, seed)
    form = sparse_form(array)
    assert form is None or form.nbytes <= 0.9 * array.nbytes


def test_equal_arrays_are_stored_once_and_names_do_not_mix(tmp_path):
    file = WeightFile(tmp_path / "weights.bin")
    graph = GraphBuilder(file)
    one, two = np.ones((4, 3), np.float32), np.full((4, 3), 2, np.float32)
    first = graph.weight("a", one)
    assert graph.weight("b", one.copy()) == first
    second = graph.weight("a", two)
    assert second != first
    assert graph.weight("a", one) == first
    assert graph.weight("c", one.astype(np.int8)) not in (first, second)
    file.close()
    assert (tmp_path / "weights.bin").stat().st_size == 128 + 12
