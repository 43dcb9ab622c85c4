r"""Symmetric linear quantization of weights and activations to 2 to 8 bits (Q8BERT, arXiv:1910.06188).

With M = 2^(b-1) - 1 and rounding half to even:

    scale = max |w| / M        q = clamp(round(w / scale), -M, M)        ŵ = q · scale

A weight has a scale for each row, for the whole matrix, or for each group of g neighbours in a row; an activation has
scale = (moving average of max |x|) / M. Everything is computed in float32, whatever the type of the input.

What is computed and stored is 1 / scale, the ``inverse_scales``: with q = round(w · (1 / scale)), eight bits a row are,
number for number, the int8 of CTranslate2.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fairseq_compress import options
from fairseq_compress.options import option

GRANULARITIES = ("row", "tensor", "group")
BITS = "[2, 8]"
_FLOAT16_MAX = 65504.0
_FLOAT32_MAX = 3.4028234663852886e38


@dataclass(frozen=True)
class LinearScheme:
    """How the entries of a matrix are quantized."""

    bits: int = option(8, "bits of an integer", range=BITS)
    granularity: str = option("row", "what shares a scale", choices=GRANULARITIES)
    group_size: int = option(0, "columns that share a scale", range="[0, inf)", needs="granularity=group")

    @property
    def greatest(self) -> int:
        """M, the greatest integer."""
        return greatest_integer(self.bits)

    def problems(self) -> list[str]:
        if self.granularity == "group" and self.group_size < 1:
            return [f"group_size: must be in [1, inf) with granularity group, got {self.group_size}"]
        return []

    def check(self, shape: torch.Size | tuple[int, ...]) -> None:
        """Raise ``ValueError`` if a matrix ``(R, C)`` cannot be quantized so."""
        found = list(options.all_problems(self, ""))
        if len(shape) != 2:
            found.append(f"weight: must be a matrix, got the shape {tuple(shape)}")
        elif not found and self.granularity == "group" and shape[1] % self.group_size:
            found.append(f"group_size: must divide the {shape[1]} columns, got {self.group_size}")
        if found:
            raise ValueError("; ".join(found))

    def scale_count(self, shape: tuple[int, int]) -> tuple[int, int]:
        """The number of scales of a matrix ``(R, C)``, and the bits in which each is stored."""
        rows, columns = shape
        if self.granularity == "group":
            return rows * (columns // self.group_size), 16
        return (rows if self.granularity == "row" else 1), 32

    def grouped(self, matrix: Tensor) -> Tensor:
        """``(R, C)`` as ``(R, G, g)``: g columns share a scale."""
        rows, columns = matrix.shape
        return matrix.reshape(rows, -1, self.group_size if self.granularity == "group" else max(columns, 1))


def greatest_integer(bits: int) -> int:
    """M = 2^(b-1) - 1."""
    return 2 ** (bits - 1) - 1


def inverse_scales(weight: Tensor, scheme: LinearScheme) -> Tensor:
    """1 / scale of a matrix ``(R, C)`` in float32: ``(R, 1, 1)``, ``(1, 1, 1)`` or, of groups, ``(R, C / g, 1)``.

    Zeros have the scale 1, as in CTranslate2. Those of groups are rounded to float16, in which they are stored.
    """
    dims = (0, 1, 2) if scheme.granularity == "tensor" else (2,)
    largest = scheme.grouped(weight.detach().float()).abs().amax(dim=dims, keepdim=True)
    # A maximum so small that 1 / scale would be infinite counts as the smallest that gives a finite one.
    largest = torch.where(largest == 0, float(scheme.greatest), largest.clamp_min(scheme.greatest / _FLOAT32_MAX))
    inverse = _quotient(scheme.greatest, largest)
    return inverse.clamp_max(_FLOAT16_MAX).half().float() if scheme.granularity == "group" else inverse


def quantize(weight: Tensor, inverse: Tensor, scheme: LinearScheme) -> Tensor:
    """Integers q ``(R, C)``, int8, of a matrix and its :func:`inverse_scales`."""
    return _rounded(weight, inverse, scheme).to(torch.int8).view(weight.shape)


def dequantize(integers: Tensor, inverse: Tensor, scheme: LinearScheme) -> Tensor:
    """ŵ ``(R, C)`` in float32."""
    return (scheme.grouped(integers.float()) / inverse).view(integers.shape)


def fake_quantize(weight: Tensor, scheme: LinearScheme, inverse: Tensor | None = None) -> Tensor:
    """ŵ ``(R, C)`` in the type of the weight: :func:`dequantize` of :func:`quantize`. No gradient.

    Args:
        inverse: :func:`inverse_scales` of the matrix of which ``weight`` may be some rows; None for its own.
    """
    inverse = inverse_scales(weight, scheme) if inverse is None else inverse
    return (_rounded(weight, inverse, scheme) / inverse).view(weight.shape).to(weight.dtype)


def straight_through(value: Tensor, replacement: Tensor) -> Tensor:
    """``replacement`` in the forward pass; its whole gradient goes to ``value`` (arXiv:1308.3432)."""
    return _StraightThrough.apply(value, replacement)


def fake_quantize_activations(x: Tensor, largest: Tensor, bits: int) -> Tensor:
    """x̂ of activations with scale = ``largest`` / M; the gradient is one inside of the clamp and zero outside."""
    return _ClampedStraightThrough.apply(x, largest, greatest_integer(bits))


def _rounded(weight: Tensor, inverse: Tensor, scheme: LinearScheme) -> Tensor:
    grouped = scheme.grouped(weight.detach().float()) * inverse
    return grouped.round_().clamp_(-scheme.greatest, scheme.greatest)


def _quotient(greatest: int, largest: Tensor) -> Tensor:
    """M / largest, rounded once: torch's ``number / tensor`` multiplies by a reciprocal, which is off by a digit."""
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
        inverse = _quotient(greatest, largest.float().clamp_min(greatest / _FLOAT32_MAX))
        rounded = (x.float() * inverse).round_()
        ctx.save_for_backward(rounded.abs() <= greatest)
        return (rounded.clamp_(-greatest, greatest) / inverse).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None
