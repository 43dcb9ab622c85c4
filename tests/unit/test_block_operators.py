"""What ``MatMulNBits`` and ``GatherBlockQuantized`` of ONNX Runtime compute, against loops over integers."""

import numpy as np
import pytest

from fairseq_compress.export.onnx.block_integers import (
    block_of,
    group_of,
    pack_nibbles,
    quantize_groups,
)
from tests.helpers.onnx_graphs import block_product, one_operator

ROWS = 24


def product(values, scales, zeros, bits, columns, threads=1):
    rows, blocks, block = values.shape
    data = pack_nibbles(values.reshape(rows, -1), bits).reshape(rows, blocks, -1)
    constants = {"b": data, "s": scales}
    if zeros is not None:
        constants["z"] = pack_nibbles(zeros, bits)
    return one_operator(
        "MatMulNBits", ["x", *constants], constants, threads=threads, K=columns, N=rows, bits=bits, block_size=block,
        accuracy_level=4,
    )  # fmt: skip


def drawn(bits, block, columns, zeros):
    draw = np.random.default_rng(bits * block + columns)
    shape = (ROWS, -(-columns // block))
    values = draw.integers(0, 2**bits, (*shape, block)).astype(np.uint8)
    scales = draw.uniform(0.01, 0.02, shape).astype(np.float32)
    own = draw.integers(0, 2**bits, shape).astype(np.uint8) if zeros else None
    return values, scales, own, draw.standard_normal((33, columns)).astype(np.float32)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("columns", [256, 96, 40, 18])
@pytest.mark.parametrize("block", [16, 32])
@pytest.mark.parametrize("bits", [4, 8])
def test_products_of_integers(bits, block, columns, zeros):
    """Exact but for the order of the blocks; every row alone and in any group is the same, to the last bit."""
    values, scales, own, x = drawn(bits, block, columns, zeros)
    call = product(values, scales, own, bits, columns)
    found = call(x)
    whole = np.full(scales.shape, 2 ** (bits - 1)) if own is None else own
    expected = block_product(x, values, scales, whole)
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())
    for rows in (2, 3, 5, 8, 16, 31):
        assert np.array_equal(call(x[1 : 1 + rows]), found[1 : 1 + rows])
    assert np.array_equal(product(values, scales, own, bits, columns, threads=2)(x), found)


@pytest.mark.parametrize(("bits", "most"), [(4, 15), (8, 255)])
@pytest.mark.parametrize("block", [16, 32])
def test_no_sum_of_the_greatest_integers_saturates(bits, most, block):
    """Unlike products of 8 by 8 bits with one scale a row, on a processor without VNNI (run under an emulator)."""
    for value in (1, most):
        values = np.full((32, 512 // block, block), value, np.uint8)
        scales = np.ones(values.shape[:2], np.float32)
        for sign in (-1, 1):
            x = np.full((5, 512), sign, np.float32)
            expected = block_product(x, values, scales, np.full(scales.shape, 2 ** (bits - 1)))
            np.testing.assert_allclose(product(values, scales, None, bits, 512)(x), expected, rtol=1e-6)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zeros", [False, True])
def test_rows_of_a_table(bits, zeros):
    values, scales, own, _ = drawn(bits, 32, 64, zeros)
    constants = {"t": pack_nibbles(values.reshape(ROWS, -1), bits), "i": np.arange(ROWS), "s": scales}
    if zeros:
        constants["z"] = pack_nibbles(own, bits)
    call = one_operator(
        "GatherBlockQuantized", list(constants), constants, bits=bits, block_size=32, gather_axis=0, quantize_axis=1
    )
    whole = np.full(scales.shape, 2 ** (bits - 1)) if own is None else own
    expected = (values.astype(np.float32) - whole[..., None].astype(np.float32)) * scales[..., None]
    assert np.array_equal(call(), expected.reshape(ROWS, 64))


def test_groups_by_hand():
    weight = np.array([[7.0, -3.4, 0.2] + [0.0] * 13 + [0.14] * 16, [0.0] * 32], np.float32)
    found = quantize_groups(weight, 4, 16, False)
    assert found.values[0, :3].tolist() == [15, 5, 8]  # 7 / 1 + 8, -3 + 8, 0 + 8
    assert found.values[0, 16:].tolist() == [15] * 16
    assert found.inverse.tolist() == [[1.0, 50.0], [1.0, 1.0]]
    assert found.values[1].tolist() == [8] * 32
    assert found.zeros is None


def test_groups_with_zero_points_by_hand():
    weight = np.array([[-5.0, 10.0, 0.0, 1.2] + [0.0] * 12], np.float32)
    found = quantize_groups(weight, 4, 16, True)
    assert (found.inverse.tolist(), found.zeros.tolist()) == ([[1.0]], [[5]])
    assert found.values[0, :4].tolist() == [0, 15, 5, 6]


def test_zero_points_halve_the_error_of_weights_of_one_sign():
    weight = np.abs(np.random.default_rng(0).standard_normal((32, 128))).astype(np.float32)
    errors = []
    for asymmetric in (False, True):
        found = quantize_groups(weight, 4, 32, asymmetric)
        zeros = 8 if found.zeros is None else found.zeros.repeat(32, axis=1).astype(np.float32)
        restored = (found.values - zeros) / found.inverse.astype(np.float32).repeat(32, axis=1)
        errors.append(np.abs(restored - weight).mean())
    assert errors[1] < 0.55 * errors[0]


def test_sizes_of_groups_and_blocks():
    assert [group_of(256, size) for size in (16, 32, 64, 128)] == [16, 32, 64, 128]
    assert [group_of(columns, 128) for columns in (192, 96, 48, 18)] == [64, 32, 16, 16]
    assert [block_of(size) for size in (8, 16, 24, 32, 48, 64, 96)] == [0, 16, 0, 32, 16, 32, 32]
