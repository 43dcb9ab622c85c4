"""Quant-noise (arXiv:2004.07320): in each forward a random fraction of the blocks of a weight is replaced.

A block is some neighbouring entries of a row. Blocks that are not drawn pass with exact values and gradients.
"""

import torch
from torch import Tensor

from fairseq_compress.functional.linear_quantization import straight_through


def draw_blocks(rows: int, columns: int, block: int, probability: float, device: torch.device) -> Tensor:
    """A mask ``(R, C)``, true in drawn blocks: each is drawn for itself, from torch's generator of the device.

    The last block of a row is shorter where ``block`` does not divide the columns.
    """
    blocks = -(-columns // block)
    drawn = torch.rand(rows, blocks, device=device) < probability
    return drawn.repeat_interleave(block, dim=1)[:, :columns] if block > 1 else drawn


def mix(weight: Tensor, quantized: Tensor, drawn: Tensor) -> Tensor:
    """Quantized values where drawn, else the weight's own; the gradient is one everywhere."""
    return straight_through(weight, torch.where(drawn, quantized, weight.detach()))


def drop(weight: Tensor, drawn: Tensor) -> Tensor:
    """Zeros where drawn, which is the proxy for product quantization; no gradient there."""
    return weight.masked_fill(drawn, 0.0)
