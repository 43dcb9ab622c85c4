"""Tied tensors: names of a model, or keys of a state dict, that are one tensor."""

from collections.abc import Hashable, Mapping

import torch
from torch import Tensor


def identity(tensor: Tensor) -> Hashable:
    """Equal for tensors that are the same view of one storage."""
    if tensor.data_ptr() == 0:  # empty, or on the device meta
        return id(tensor)
    return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()


def tied_groups(tensors: Mapping[str, Tensor], by_value: bool = False) -> list[tuple[str, ...]]:
    """The names, those of one tensor together, in order of first appearance.

    Args:
        by_value: also tie tensors that are bit-equal and not constant, for checkpoints of GPU runs: fairseq
            copies them to the CPU key by key.
    """
    groups: dict[Hashable, list[str]] = {}
    alike: dict[tuple[torch.dtype, torch.Size], list[list[str]]] = {}
    for name, tensor in tensors.items():
        key = identity(tensor)
        if key not in groups:
            candidates = alike.setdefault((tensor.dtype, tensor.shape), []) if by_value else []
            group = next((each for each in candidates if _equal(tensors[each[0]], tensor)), None)
            if group is None:
                candidates.append(group := [])
            groups[key] = group
        groups[key].append(name)
    return list(dict.fromkeys(tuple(group) for group in groups.values()))


def _equal(first: Tensor, second: Tensor) -> bool:
    return bool(first.numel() > 1 and torch.equal(first, second) and (first != first.flatten()[0]).any())
