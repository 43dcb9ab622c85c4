"""The matrix products of a decoding step."""

import pytest
import torch

from fairseq_compress.runtimes.torch.projections import Affine, Int8Affine, side_by_side


@pytest.mark.parametrize("bias", [True, False])
def test_affine_is_a_linear_layer(bias):
    layers = [torch.nn.Linear(6, width, bias=bias) for width in (5, 3)]
    x = torch.randn(7, 6)
    found = Affine(*side_by_side(*layers))(x)
    torch.testing.assert_close(found, torch.cat([layer(x) for layer in layers], dim=1))


def test_a_bias_of_some():
    layers = [torch.nn.Linear(6, 5, bias=False), torch.nn.Linear(6, 3)]
    x = torch.randn(7, 6)
    torch.testing.assert_close(Affine(*side_by_side(*layers))(x), torch.cat([layer(x) for layer in layers], dim=1))


def int8_by_definition(x, weight, bias):
    """In float64, integer by integer: 8 bits a weight and row, 7 bits for the whole input."""
    steps = weight.double().abs().amax(1, keepdim=True).clamp_min(1e-30) / 127
    integers = (weight.double() / steps).round().clamp(-128, 127)
    low, high = min(x.min().item(), 0.0), max(x.max().item(), 0.0)
    scale = max(high - low, 1e-30) / 127
    zero = round(-low / scale)
    rounded = (x.double() / scale).round() + zero
    products = (rounded.clamp(0, 127) - zero) @ integers.t()
    return (products * scale * steps.t()).float() + bias


@pytest.mark.parametrize("case", ["normal", "extreme", "positive", "wide"])
def test_int8_is_its_definition(case):
    torch.manual_seed(1)
    x, weight, bias = torch.randn(9, 200), torch.randn(64, 200), torch.randn(64)
    if case == "extreme":  # where sums of two products in 16 bits would saturate, were the input of 8 bits
        x, weight = torch.where(x > 0, 3.0, 0.0), torch.where(weight > -1, 1.0, -1.0)
    elif case == "positive":
        x = x.abs()
    elif case == "wide":  # rows of very different size, one of zeros
        weight = weight * torch.logspace(-4, 2, 64)[:, None]
        weight[5] = 0
    expected = int8_by_definition(x, weight, bias)
    found = Int8Affine(weight, bias)(x)
    step = (x.max() - min(x.min(), 0)) / 127 * weight.abs().amax(1)
    off = (found - expected).abs() / (step + 1e-6)
    assert off.max() < 1.5, off.max()  # a tie of rounding, here or there
    assert off.mean() < 0.02
