"""Penalties: functions of a model's parameters that are added to any loss."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fairseq_compress.functional.schedules import Ramp


class Penalty(NamedTuple):
    """A term weight · value of the loss. A module returns its own by a method ``penalties() -> Iterable[Penalty]``."""

    name: str
    """Logged as ``NAME_penalty``, without its weight; penalties of one name add up."""
    value: Callable[[], Tensor]
    """A scalar with its graph."""
    weight: Ramp


def penalties_of(model: nn.Module) -> Iterator[Penalty]:
    """The penalties of all modules of a model."""
    for module in model.modules():
        if hasattr(type(module), "penalties"):
            yield from module.penalties()  # type: ignore[operator]


def add_penalties(
    penalties: Sequence[Penalty], update: int, loss: Tensor, sample_size: Any, logged: dict[str, Any]
) -> tuple[Tensor, dict[str, Any]]:
    """``loss`` + ``sample_size`` · Σ weight · value, and ``logged`` with ``sample_size`` · value of each name.

    The trainer divides gradients by the sum of all sample sizes of an update, so it adds weight · value once. Computed
    in float32, outside of autocast.
    """
    logged = dict(logged)
    for penalty in penalties:
        with torch.autocast(loss.device.type, enabled=False):
            value = sample_size * penalty.value().to(torch.promote_types(loss.dtype, torch.float32))
        loss = loss + penalty.weight.at(update) * value
        key = f"{penalty.name}_penalty"
        logged[key] = logged.get(key, 0) + value.detach()
    return loss, logged
