r"""Symmetric linear quantization of weights and activations to 2 to 8 bits (Q8BERT, arXiv:1910.06188).

With M = 2^(b-1) - 1, a scale S and rounding half to even:

    q = clamp(round(x · S), -M, M)        x̂ = q / S

A weight has S = M / max |w| for each row, for the whole matrix, or for each group of g neighbours in a row. With eight
bits a row this is, number for number, the int8 of CTranslate2. An activation has S = M / (moving average of max |x|).
Everything is computed in float32, whatever the type of ``x``.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

BITS = range(2, 9)
GRANULARITIES = ("row", "tensor", "group")
_FLOAT16_MAX = 65504.0
_FLOAT32_MAX = 3.4028234663852886e38


class Linear(NamedTuple):
    """How the entries of a matrix are quantized.

    Attributes:
        bits: of an integer, 2 to 8.
        granularity: what shares a scale: ``row``, ``tensor`` or ``group``.
        group_size: g, of ``group``; the columns must be a multiple of it.
    """

    bits: int
    granularity: str = "row"
    group_size: int = 0

    @property
    def greatest(self) -> int:
        """M, the greatest integer."""
        return greatest_integer(self.bits)

    def check(self, shape: torch.Size | tuple[int, ...]) -> None:
        """
        Raises:
            ValueError: a matrix ``(R, C)`` cannot be quantized so.
        """
        if self.bits not in BITS:
            raise ValueError(f"bits: must be from {BITS[0]} to {BITS[-1]}, got {self.bits}")
        if self.granularity not in GRANULARITIES:
            raise ValueError(f"granularity: must be one of {', '.join(GRANULARITIES)}, got {self.granularity!r}")
        if len(shape) != 2:
            raise ValueError(f"weight: must be a matrix, got the shape {tuple(shape)}")
        if self.granularity == "group" and self.group_size < 1:
            raise ValueError(f"group_size: must be at least 1 with the granularity group, got {self.group_size}")
        if self.granularity == "group" and shape[1] % self.group_size:
            raise ValueError(f"group_size: must divide the {shape[1]} columns, got {self.group_size}")
        if self.granularity != "group" and self.group_size:
            raise ValueError(f"group_size: requires the granularity group, got {self.group_size}")


def greatest_integer(bits: int) -> int:
    """M = 2^(b-1) - 1."""
    return 2 ** (bits - 1) - 1


def weight_scales(weight: Tensor, how: Linear) -> Tensor:
    """Scales S of a matrix ``(R, C)`` in float32: ``(R, 1, 1)``, ``(1, 1, 1)`` or, of groups, ``(R, C / g, 1)``.

    Zeros have the scale 1, where CTranslate2 has it too: they are zeros with any. Scales of groups are rounded to what
    float16 holds, in which they are stored; of rows and tensors there are few, they are float32.
    """
    largest = _grouped(weight.detach().float(), how).abs().amax(dim=(0, 1, 2) if how.granularity == "tensor" else 2)
    largest = largest.view(1, 1, 1) if how.granularity == "tensor" else largest.unsqueeze(-1)
    # A maximum so small that its scale would be infinite counts as the smallest that gives a finite one.
    largest = torch.where(largest == 0, float(how.greatest), largest.clamp_min(how.greatest / _FLOAT32_MAX))
    scales = _quotient(how.greatest, largest)
    if how.granularity == "group":
        scales = scales.clamp_max(_FLOAT16_MAX).half().float()
    return scales


def scale_count(shape: tuple[int, int], how: Linear) -> tuple[int, int]:
    """How many scales a matrix ``(R, C)`` has, and the bits in which each is stored."""
    rows, columns = shape
    if how.granularity == "group":
        return rows * (columns // how.group_size), 16
    return (rows if how.granularity == "row" else 1), 32


def quantize(weight: Tensor, scales: Tensor, how: Linear) -> Tensor:
    """Integers q ``(R, C)``, int8, of a matrix and its :func:`weight_scales`."""
    grouped = _grouped(weight.detach().float(), how) * scales
    return grouped.round_().clamp_(-how.greatest, how.greatest).to(torch.int8).view(weight.shape)


def dequantize(integers: Tensor, scales: Tensor, how: Linear) -> Tensor:
    """x̂ ``(R, C)`` in float32."""
    return (_grouped(integers.float(), how) / scales).view(integers.shape)


def quantize_dequantize(weight: Tensor, how: Linear, scales: Tensor | None = None) -> Tensor:
    """x̂ ``(R, C)`` in the type of the weight: the values of :func:`dequantize` after :func:`quantize`. No gradient.

    Args:
        scales: :func:`weight_scales` of the matrix of which ``weight`` may be some rows; None for its own.
    """
    scales = weight_scales(weight, how) if scales is None else scales
    grouped = _grouped(weight.detach().float(), how) * scales
    return (grouped.round_().clamp_(-how.greatest, how.greatest) / scales).view(weight.shape).to(weight.dtype)


def straight_through(value: Tensor, replacement: Tensor) -> Tensor:
    """``replacement`` in the forward pass; its whole gradient goes to ``value`` (arXiv:1308.3432)."""
    replaced: Tensor = _StraightThrough.apply(value, replacement)
    return replaced


def fake_quantize_activations(x: Tensor, largest: Tensor, bits: int) -> Tensor:
    """x̂ of activations with S = M / ``largest``; the gradient is one inside of the clamp and zero outside.

    Args:
        x: of any shape.
        largest: a scalar, the largest magnitude that is represented.
        bits: 2 to 8.
    """
    quantized: Tensor = _ClampedStraightThrough.apply(x, largest, greatest_integer(bits))
    return quantized


def _grouped(matrix: Tensor, how: Linear) -> Tensor:
    """``(R, C)`` as ``(R, G, g)``: g columns share a scale."""
    rows, columns = matrix.shape
    return matrix.reshape(rows, -1, how.group_size if how.granularity == "group" else max(columns, 1))


def _quotient(greatest: int, largest: Tensor) -> Tensor:
    """M / largest, rounded once: torch's ``number / tensor`` multiplies with a reciprocal, and is off by a digit."""
    return torch.full_like(largest, greatest) / largest


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, replacement: Tensor) -> Tensor:
        return replacement.view_as(replacement)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class _ClampedStraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, largest: Tensor, greatest: int) -> Tensor:
        scale = _quotient(greatest, largest.float().clamp_min(greatest / _FLOAT32_MAX))
        rounded = (x.float() * scale).round_()
        ctx.save_for_backward(rounded.abs() <= greatest)
        return (rounded.clamp_(-greatest, greatest) / scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None
