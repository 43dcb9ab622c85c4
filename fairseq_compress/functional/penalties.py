"""Penalties: functions of a model's parameters that are added to any loss, such as the expected number of weights."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fairseq_compress.functional.schedules import Ramp


class Penalty(NamedTuple):
    """One addend, weight · value. A module that has any gives them by a method ``penalties() -> Iterable[Penalty]``."""

    name: str
    """It is logged as ``NAME_penalty``, without its weight; penalties of one name add up."""
    value: Callable[[], Tensor]
    """A scalar of the parameters as they are, with its graph."""
    weight: Ramp
    """By the number of the update."""


def penalties_of(model: nn.Module) -> Iterator[Penalty]:
    """The penalties of all modules of a model."""
    for module in model.modules():
        if hasattr(type(module), "penalties"):
            yield from module.penalties()  # type: ignore[operator]


def add_penalties(
    penalties: Sequence[Penalty], update: int, loss: Tensor, sample_size: Any, logged: dict[str, Any]
) -> tuple[Tensor, dict[str, Any]]:
    """``loss`` + ``sample_size`` · Σ weight · value, and ``logged`` with ``sample_size`` · value of each name.

    A trainer divides the gradient of an update by the sum of all its sample sizes, over accumulated batches and
    processes. So the update sees weight · value once, however it is cut. Computed in float32, outside of autocast.
    """
    logged = dict(logged)
    for penalty in penalties:
        with torch.autocast(loss.device.type, enabled=False):
            value = sample_size * penalty.value().to(torch.promote_types(loss.dtype, torch.float32))
        loss = loss + penalty.weight.at(update) * value
        key = f"{penalty.name}_penalty"
        logged[key] = logged.get(key, 0) + value.detach()
    return loss, logged
