"""Layers that share their parameters (ALBERT, arXiv:1909.11942; orders of sharing: arXiv:2104.06022).

Layers stay separate modules, each with its own incremental state and hooks. Their parameters are the same objects:
gradients add up, an optimizer and a state dict have each once.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from fairseq_compress.functional.ties import identity

_LEADERS = "shared_with"
_BUFFERS = "shared_buffers"


def share_layers(layers: nn.ModuleList, leaders: Sequence[int]) -> None:
    """Give every layer the parameters and buffers of its leader, which is one of the layers before it, or itself.

    State dicts then have the leaders' keys only; one of a model without sharing loads with the leaders' values.
    """
    pairs = [(follower, leader) for follower, leader in enumerate(leaders) if follower != leader]
    for follower, leader in pairs:
        _tie(layers[follower], layers[leader])
    setattr(layers, _LEADERS, tuple(leaders))
    setattr(layers, _BUFFERS, {name for _, leader in pairs for name, _ in layers[leader].named_buffers()})
    layers._register_state_dict_hook(_without_followers)
    layers.register_load_state_dict_pre_hook(_copy_to_followers)


def leaders_of(layers: nn.Module) -> tuple[int, ...]:
    """The leader of each layer: itself where nothing is shared."""
    return getattr(layers, _LEADERS, tuple(range(len(list(layers.children())))))


def state_of_all_layers(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict in which layers that share have all their keys, with the same tensors."""
    full = dict(state)
    for name, module in model.named_modules():
        if hasattr(module, _LEADERS):
            _copy_to_followers(module, full, f"{name}.")
    return full


def _tie(follower: nn.Module, leader: nn.Module) -> None:
    sources = dict(leader.named_modules())
    for name, module in follower.named_modules():
        module._parameters.update(sources[name]._parameters)
        module._buffers.update(sources[name]._buffers)


def _shared_names(layers: Any, follower: int) -> set[str]:
    """Names in a layer's state dict whose tensors are its leader's.

    Buffers are matched by name: moving a model to another device copies them for each module.
    """
    own, first = layers[follower].state_dict(), layers[leaders_of(layers)[follower]].state_dict()
    by_name = getattr(layers, _BUFFERS)
    return {
        name
        for name, value in own.items()
        if name in first and (name in by_name or identity(value) == identity(first[name]))
    }


def _followers(layers: nn.Module) -> list[int]:
    return [number for number, leader in enumerate(leaders_of(layers)) if number != leader]


def _without_followers(layers: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for follower in _followers(layers):
        for name in _shared_names(layers, follower):
            del state[f"{prefix}{follower}.{name}"]


def _copy_to_followers(layers: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    leaders = leaders_of(layers)
    for follower in _followers(layers):
        start = f"{prefix}{leaders[follower]}."
        own = {f"{prefix}{follower}.{name}" for name in layers[follower].state_dict()} - {  # type: ignore[index]
            f"{prefix}{follower}.{name}" for name in _shared_names(layers, follower)
        }
        for key in [key for key in state if key.startswith(start)]:
            copy = f"{prefix}{follower}.{key.removeprefix(start)}"
            if copy not in own:
                state[copy] = state[key]
