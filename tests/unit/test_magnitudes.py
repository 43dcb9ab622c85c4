"""Percentiles of a stream of magnitudes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_compress.functional.quantization.magnitudes import BINS, Magnitudes


@given(
    sizes=st.lists(st.integers(1, 200), min_size=1, max_size=6), scale=st.floats(-30, 30), growth=st.floats(0, 3),
    percent=st.floats(0.1, 100), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_against_the_sorted_numbers(sizes, scale, growth, percent, seed):
    """At most a bin above the true percentile, however the numbers come and grow."""
    draw = torch.Generator().manual_seed(seed)
    parts = [torch.randn(size, generator=draw) * 2 ** (scale + growth * at) for at, size in enumerate(sizes)]
    magnitudes = Magnitudes()
    for part in parts:
        magnitudes.add(part)
    numbers = torch.cat(parts).abs().double().sort().values
    true = numbers[max(0, int(np.ceil(len(numbers) * percent / 100 - 1e-9)) - 1)].item()
    found = magnitudes.percentile(percent)
    assert magnitudes.percentile(100) == numbers[-1].item() == magnitudes.largest
    assert true * (1 - 1e-6) <= found <= true + 2 * numbers[-1].item() / BINS * 1.001
    assert found <= numbers[-1].item()


def test_by_hand():
    magnitudes = Magnitudes()
    magnitudes.add(torch.zeros(2, 3))
    assert magnitudes.percentile(50) == magnitudes.percentile(100) == 0
    magnitudes.add(torch.tensor([-1.0, 0.5]))
    magnitudes.add(torch.tensor([[4.0, 0.0]]))
    assert magnitudes.largest == 4
    assert magnitudes.percentile(70) == pytest.approx(4 / BINS)  # seven of ten are zeros
    assert magnitudes.percentile(80) == pytest.approx(0.5, abs=8 / BINS)
    assert magnitudes.percentile(90) == pytest.approx(1, abs=8 / BINS)
    assert magnitudes.percentile(91) == 4


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none(value):
    with pytest.raises(ValueError, match="must be finite"):
        Magnitudes().add(torch.tensor([1.0, value]))
