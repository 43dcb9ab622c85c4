"""Masks of a weight (R, C): True is kept; the sparsity is the fraction removed. Stored as one bit an entry."""

import torch
from torch import Tensor


def random_mask(weight: Tensor, sparsity: float, seed: int) -> Tensor:
    """A mask that removes round(sparsity · R · C) entries, drawn uniformly; the values of the weight do not count."""
    order = torch.randperm(weight.numel(), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones(weight.numel(), dtype=torch.bool)
    mask[order[: round(sparsity * weight.numel())]] = False
    return mask.view(weight.shape).to(weight.device)


CRITERIA = {"random": random_mask}
"""Name in a plan -> (weight, sparsity, seed) -> mask. A method of pruning is one more entry."""


def pack_mask(mask: Tensor) -> Tensor:
    """Eight entries a byte, uint8 (⌈R · C / 8⌉,), lowest bits first."""
    bits = torch.nn.functional.pad(mask.flatten().to(torch.uint8), (0, -mask.numel() % 8)).view(-1, 8)
    return (bits << _places(mask)).sum(dim=1, dtype=torch.uint8)


def unpack_mask(bits: Tensor, shape: tuple[int, int]) -> Tensor:
    """The mask (R, C), bool, of :func:`pack_mask`."""
    flat = (bits.unsqueeze(1) >> _places(bits)) & 1
    return flat.flatten()[: shape[0] * shape[1]].view(shape).bool()


def _places(like: Tensor) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=like.device)
