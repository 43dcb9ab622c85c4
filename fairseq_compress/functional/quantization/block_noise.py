"""Quant-noise (arXiv:2004.07320): each forward replaces a random fraction of the blocks of a weight.

A block is a number of neighbouring entries of a row. Gradients go straight through to all entries.
"""

import torch
from torch import Tensor

from fairseq_compress.functional.quantization.linear import straight_through


def draw_blocks(rows: int, columns: int, block: int, probability: float, device: torch.device) -> Tensor:
    """A mask ``(R, C)``, true in random blocks of neighbours in a row, from torch's generator of the device."""
    blocks = -(-columns // block)
    drawn = torch.rand(rows, blocks, device=device) < probability
    return drawn.repeat_interleave(block, dim=1)[:, :columns] if block > 1 else drawn


def mix(weight: Tensor, quantized: Tensor, drawn: Tensor) -> Tensor:
    """Quantized values where drawn, else the weight's own; the gradient is one everywhere."""
    return straight_through(weight, torch.where(drawn, quantized, weight.detach()))


def drop(weight: Tensor, drawn: Tensor, probability: float) -> Tensor:
    """φ_proxy, the noise for product quantization: zeros where drawn, the other entries times 1 / (1 - p).

    The gradient is one everywhere, also where drawn, as in the paper and in ``fairseq.modules.quant_noise``.
    """
    return straight_through(weight, weight.detach().masked_fill(drawn, 0.0) * (1 / (1 - probability)))
