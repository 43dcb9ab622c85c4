"""Integers in blocks along a row, in the layout of ``MatMulNBits`` and ``GatherBlockQuantized`` of ONNX Runtime.

    w ≈ (v - z) · scale        v, z unsigned integers of b = 4 or 8 bits

A block of k neighbours has one scale (float32) and one zero point, 2^(b-1) if none is given. Two 4-bit integers share a
byte, the first in its low half.

What the product computes with ``accuracy_level=4``: each block of a row x has its own scale s = max|x| / 127, and
x̂ = round(x / s); the sum is Σ_blocks s · scale · Σ x̂ (v - z), the inner one in integers. k is at most 32: with 64 or
128 some kernels add the blocks of a row in an order that depends on the number of rows, and a sentence would depend on
its batch. Larger groups are several blocks with one scale.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fairseq_compress.decoding.beam_search import Floats
from fairseq_compress.functional.quantization.linear import LinearScheme, inverse_scales, quantize

GREATEST_BLOCK = 32
LEAST_BLOCK = 16
_FLOAT16_MAX = 65504.0
Bytes = NDArray[np.uint8]


class Groups(NamedTuple):
    """A quantized matrix (R, C) whose groups of g columns share a scale."""

    values: Bytes
    """v (R, G g); behind C zeros, that is z."""
    inverse: NDArray[np.float16]
    """1 / scale (R, G)."""
    zeros: Bytes | None
    """z (R, G)."""


def group_of(columns: int, size: int) -> int:
    """Columns that share a scale: ``size``, or the largest half of it that divides the columns, at least 16."""
    while columns % size and size > LEAST_BLOCK:
        size //= 2
    return size


def block_of(group: int) -> int:
    """k of the kernels for groups of a size; 0 if there is none."""
    return next((size for size in (GREATEST_BLOCK, LEAST_BLOCK) if group % size == 0), 0)


def quantize_groups(weight: Floats, bits: int, group: int, asymmetric: bool) -> Groups:
    """Quantize each group: symmetric as the method ``linear`` of a plan does, or from its least to its greatest."""
    padded = np.pad(weight, ((0, 0), (0, -weight.shape[1] % group)))
    if asymmetric:
        return _asymmetric(padded, bits, group)
    scheme, matrix = LinearScheme(bits, "group", group), torch.from_numpy(np.ascontiguousarray(padded))
    inverse = inverse_scales(matrix, scheme)
    values = quantize(matrix, inverse, scheme).int() + 2 ** (bits - 1)
    return Groups(values.numpy().astype(np.uint8), inverse.flatten(1).half().numpy(), None)


def _asymmetric(weight: Floats, bits: int, group: int) -> Groups:
    """1 / scale = (2^b - 1) / (max - min), zero included in the range; v = round(w / scale) + z."""
    grouped, most = weight.reshape(len(weight), -1, group), 2**bits - 1
    low, high = (np.minimum(grouped.min(axis=2), 0), np.maximum(grouped.max(axis=2), 0))
    width = np.where(high > low, high - low, most).astype(np.float64)
    inverse = np.minimum(most / width, _FLOAT16_MAX).astype(np.float16)
    exact = inverse.astype(np.float32)
    zeros = np.clip(np.rint(-low * exact), 0, most)
    values = np.clip(np.rint(grouped * exact[..., None]) + zeros[..., None], 0, most)
    return Groups(values.reshape(weight.shape).astype(np.uint8), inverse, zeros.astype(np.uint8))


def pack_nibbles(values: Bytes, bits: int) -> Bytes:
    """Rows of integers of 8 or 4 bits as rows of bytes; an odd row ends in a zero."""
    if bits == 8:
        return values
    even: Bytes = np.pad(values, ((0, 0), (0, values.shape[1] % 2))).astype(np.uint8)
    return even[:, 0::2] | (even[:, 1::2] << np.uint8(4))
