"""Schedules and the training clock."""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass
class TrainingClock:
    """Progress of training, ``task.clock``; every module of the model with a method ``set_clock`` gets it."""

    update: int = 0
    """Number of finished updates."""
    epoch: int = 1
    tokens: int = 0
    """Target tokens trained on, by all processes."""
    counts: bool = True
    """False in a dummy batch."""


class Ramp(NamedTuple):
    """A line from ``start`` at update ``first`` to ``end`` at update ``last``; constant before and after."""

    start: float
    end: float
    first: int = 0
    last: int = 0

    def at(self, update: int) -> float:
        if update >= self.last:
            return self.end
        if update <= self.first:
            return self.start
        return self.start + (self.end - self.start) * (update - self.first) / (self.last - self.first)
