"""Values that change in the course of a training, and the clock that they follow."""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass
class TrainingClock:
    """Where a training is. The task keeps it; whoever follows a schedule gets this object and reads it.

    Criterions find it as ``task.clock``, penalties of a model are evaluated at its update, and every module of the
    model with a method ``set_clock`` is given it when the model is built.
    """

    update: int = 0
    """Updates made."""
    epoch: int = 1
    tokens: int = 0
    """Target tokens trained on, by all processes."""
    counts: bool = True
    """False in a batch of nothing, with which a process keeps up with the others."""


class Ramp(NamedTuple):
    """A line from ``start`` at update ``first`` to ``end`` at update ``last``; constant before and after."""

    start: float
    end: float
    first: int = 0
    last: int = 0

    def at(self, update: int) -> float:
        """The value at an update."""
        if update >= self.last:
            return self.end
        if update <= self.first:
            return self.start
        return self.start + (self.end - self.start) * (update - self.first) / (self.last - self.first)
