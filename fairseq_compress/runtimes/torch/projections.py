"""The matrix products of a decoding step: in the type of the weights, or in int8."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fairseq_compress.errors import CheckpointError

# With 7 bits for the activations a sum of two products fits 16 bits (2 · 127 · 127 < 2**15), so that processors without
# VNNI, which add such pairs in 16 bits, do not saturate, and every processor computes the same integers.
SEVEN_BITS = True
Projection = Callable[[Tensor], Tensor]  # x ↦ x Wᵀ + b, (N, in) -> (N, out)
MakeProjection = Callable[[Tensor, Tensor | None], Projection]  # of W (out, in) and b (out,) or None


class Affine:
    """The product in the type of the weights."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight.t().contiguous(), bias  # (in, out): MKL need not turn it

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self._weight if self._bias is None else torch.addmm(self._bias, x, self._weight)


class Int8Affine:
    """Dynamic int8 quantization on a CPU: the product of integers, accumulated in 32 bits and dequantized to float32.

    Row i of the weight is round(W_i / s_i) with s_i = max_j |W_ij| / 127. The input is quantized to 7 bits with one
    scale and zero point, so a result depends slightly on the rest of its batch.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        if not weight.isfinite().all():
            raise CheckpointError("the model has weights that are NaN or infinite: it is damaged")
        scales = weight.abs().amax(1).double().clamp_min(1e-30) / 127
        zeros = torch.zeros(weight.size(0), dtype=torch.long)
        with warnings.catch_warnings():  # torch deprecates these types; linear_dynamic takes no others
            warnings.filterwarnings("ignore", "torch.quantize_per")
            rows = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        self._packed = torch.ops.quantized.linear_prepack(rows, bias)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.ops.quantized.linear_dynamic(x, self._packed, SEVEN_BITS)


def side_by_side(*linears: nn.Linear) -> tuple[Tensor, Tensor | None]:
    """Concatenated weight and bias of several linear layers of one input."""
    weight = torch.cat([linear.weight.detach() for linear in linears])
    if all(linear.bias is None for linear in linears):
        return weight, None
    biases = [linear.weight[:, 0] * 0 if linear.bias is None else linear.bias.detach() for linear in linears]
    return weight, torch.cat(biases)
