"""Integers of 1 to 16 bits without gaps, as they are stored."""

import numpy as np
import torch
from torch import Tensor


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of ``count`` integers."""
    return (count * bits + 7) // 8


def pack_unsigned(values: Tensor, bits: int) -> Tensor:
    """Integers of any shape, each in [0, 2^b - 1] with b in [1, 16], in one row of bytes, uint8, lowest bits first."""
    pairs = values.reshape(-1, 1).cpu().numpy().astype("<u2").view(np.uint8)  # the low byte first
    low = np.unpackbits(pairs, axis=1, count=bits, bitorder="little")
    return torch.from_numpy(np.packbits(low.reshape(-1), bitorder="little"))


def unpack_unsigned(packed: Tensor, bits: int, count: int) -> Tensor:
    """The first ``count`` integers of :func:`pack_unsigned`, int32."""
    low = np.unpackbits(packed.cpu().numpy(), count=count * bits, bitorder="little").reshape(count, bits)
    pairs = np.packbits(np.pad(low, ((0, 0), (0, 16 - bits))), axis=1, bitorder="little")
    return torch.from_numpy(pairs.view("<u2").reshape(count).astype(np.int32))


def pack_integers(values: Tensor, bits: int) -> Tensor:
    """:func:`pack_unsigned` of int8 in [-2^(b-1), 2^(b-1) - 1], b in [2, 8], as two's complement of b bits."""
    return pack_unsigned(values.to(torch.int32) & ((1 << bits) - 1), bits)


def unpack_integers(packed: Tensor, bits: int, count: int) -> Tensor:
    """The first ``count`` integers of :func:`pack_integers`, int8."""
    unsigned = unpack_unsigned(packed, bits, count)
    return (unsigned - ((unsigned >> (bits - 1)) << bits)).to(torch.int8)
