"""Linear quantization: against a slow loop, numbers worked out by hand, CTranslate2, and what is stored."""

import re

import ctranslate2.specs.model_spec as ctranslate2_specs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_compress.functional.quantization.bit_packing import pack_integers, packed_bytes, unpack_integers
from fairseq_compress.functional.quantization.linear import (
    LinearScheme,
    dequantize,
    fake_quantize,
    fake_quantize_activations,
    inverse_scales,
    quantize,
    straight_through,
)

GRANULARITIES = [("row", 0), ("tensor", 0), ("group", 4)]


def slow(weight, how):
    """Integers and values by loops over entries, in float32, as the definition has it."""
    rows, columns = weight.shape
    size = {"row": columns, "tensor": columns, "group": how.group_size}[how.granularity]
    integers, values = np.zeros((rows, columns), np.int64), np.zeros((rows, columns), np.float32)
    for row in range(rows):
        for start in range(0, columns, size):
            part = weight[row, start : start + size] if how.granularity != "tensor" else weight
            largest = np.float32(max(abs(float(value)) for value in part.reshape(-1)))
            scale = np.float32(1) if largest == 0 else np.float32(how.greatest) / largest
            if how.granularity == "group":
                scale = np.float32(np.float16(min(scale, np.float32(65504))))
            for column in range(start, start + size):
                q = np.clip(np.rint(np.float32(weight[row, column]) * scale), -how.greatest, how.greatest)
                integers[row, column], values[row, column] = q, np.float32(q) / scale
    return integers, values


@pytest.mark.parametrize(("granularity", "size"), GRANULARITIES)
@given(
    rows=st.integers(1, 6), groups=st.integers(1, 4), bits=st.integers(2, 8), seed=st.integers(0, 10**6),
    spread=st.sampled_from([1e-7, 0.02, 1.0, 300.0]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_equals_the_definition_and_what_is_stored(granularity, size, rows, groups, bits, seed, spread):
    weight = torch.randn(rows, 4 * groups, generator=torch.Generator().manual_seed(seed)) * spread
    weight[seed % rows] *= seed % 2  # now and then a row of zeros
    how = LinearScheme(bits, granularity, size)
    how.check(weight.shape)
    scales = inverse_scales(weight, how)
    integers = quantize(weight, scales, how)
    expected, values = slow(weight.numpy(), how)
    assert (integers.numpy() == expected).all()
    simulated = fake_quantize(weight, how)
    assert (simulated.numpy() == values).all()
    count, width = how.scale_count(tuple(weight.shape))
    assert count == scales.numel()
    stored = scales.half().float() if width == 16 else scales
    unpacked = unpack_integers(pack_integers(integers, bits), bits, integers.numel()).view(integers.shape)
    assert torch.equal(dequantize(unpacked, stored, how), simulated)


def test_int8_rows_are_those_of_ctranslate2():
    weight = torch.randn(50, 36, generator=torch.Generator().manual_seed(1)) * 0.1
    weight[7], weight[8] = 0, weight[8] * 1e-38  # so small that the scale would be infinite
    integers, scales = ctranslate2_int8(weight.numpy())
    how = LinearScheme(8)
    assert (inverse_scales(weight, how).flatten().numpy() == scales).all()
    assert (quantize(weight, inverse_scales(weight, how), how).numpy() == integers).all()


def ctranslate2_int8(weight):
    """What its converter makes of a matrix."""

    class Layer(ctranslate2_specs.LayerSpec):
        def __init__(self):
            self.weight, self.weight_scale = None, ctranslate2_specs.OPTIONAL

    layer = Layer()
    layer.weight = weight.copy()
    layer.validate()
    layer._quantize("int8")
    return layer.weight.numpy(), layer.weight_scale.numpy()


def test_two_bits_by_hand():
    weight = torch.tensor([[0.0, 0.4, -0.6, 1.0], [2.0, 1.0, -1.0, 3.0]])  # 2·S = 0.67, 1·S = 0.33
    how = LinearScheme(2)
    assert quantize(weight, inverse_scales(weight, how), how).tolist() == [[0, 0, -1, 1], [1, 0, 0, 1]]
    assert fake_quantize(weight, how).tolist() == [[0, 0, -1, 1], [3, 0, 0, 3]]


def test_halves_are_rounded_to_even():
    weight = torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5]])
    how = LinearScheme(8)
    assert quantize(weight, inverse_scales(weight, how), how).tolist() == [[127, 0, 2, 2, 0, -2]]


def test_the_values_of_half_precision_are_computed_in_single():
    weight = torch.randn(5, 16, generator=torch.Generator().manual_seed(2))
    for kind in (torch.float16, torch.bfloat16):
        low = weight.to(kind)
        assert torch.equal(fake_quantize(low, LinearScheme(4)), fake_quantize(low.float(), LinearScheme(4)).to(kind))


@pytest.mark.parametrize(
    ("how", "shape", "message"),
    [
        (LinearScheme(1), (2, 2), "bits: must be in [2, 8], got 1"),
        (LinearScheme(9), (2, 2), "bits: must be in [2, 8], got 9"),
        (LinearScheme(8, "column"), (2, 2), "granularity: must be one of row, tensor, group, got 'column'"),
        (LinearScheme(8, "group", 3), (2, 8), "group_size: must divide the 8 columns, got 3"),
        (LinearScheme(8, "group"), (2, 8), "group_size: must be in [1, inf) with granularity group, got 0"),
        (LinearScheme(8, "row", 4), (2, 8), "group_size: requires granularity group, got row"),
        (LinearScheme(8), (2, 2, 2), "weight: must be a matrix, got the shape (2, 2, 2)"),
    ],
)
def test_what_cannot_be(how, shape, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        how.check(shape)


def test_the_gradient_goes_straight_through():
    weight = torch.randn(3, 4, requires_grad=True)
    straight_through(weight, fake_quantize(weight, LinearScheme(2))).mul(torch.arange(12.0).view(3, 4)).sum().backward()
    assert torch.equal(weight.grad, torch.arange(12.0).view(3, 4))


def test_activations_are_clamped_and_have_no_gradient_outside():
    x = torch.tensor([-3.0, -2.01, -2.0, 0.3, 1.99, 2.0, 2.4], requires_grad=True)  # M = 3: steps of 2/3
    quantized = fake_quantize_activations(x, torch.tensor(2.0), 3)
    assert quantized.tolist() == pytest.approx([-2, -2, -2, 0, 2, 2, 2])
    quantized.sum().backward()
    # what rounds into the range is inside: 2.4 · 3 / 2 = 3.6 rounds to 4, 2.01 to 3
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 1, 0]


def test_activations_of_zeros():
    assert fake_quantize_activations(torch.zeros(4), torch.tensor(0.0), 8).tolist() == [0, 0, 0, 0]


@given(bits=st.integers(2, 8), count=st.integers(0, 70), seed=st.integers(0, 10**6))
@settings(deadline=None)
def test_packing_is_exact_and_has_no_gaps(bits, count, seed):
    draw = torch.Generator().manual_seed(seed)
    values = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), (count,), generator=draw, dtype=torch.int8)
    packed = pack_integers(values, bits)
    assert packed.dtype == torch.uint8
    assert len(packed) == packed_bytes(count, bits) == -(-count * bits // 8)
    assert torch.equal(unpack_integers(packed, bits, count), values)


def test_packed_bits_by_hand():
    assert pack_integers(torch.tensor([1, -1, -8, 7], dtype=torch.int8), 4).tolist() == [0xF1, 0x78]
    assert pack_integers(torch.tensor([1, -1, 0, 1], dtype=torch.int8), 2).tolist() == [0b01_00_11_01]
