"""Values that change with the number of updates."""

from typing import NamedTuple


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
