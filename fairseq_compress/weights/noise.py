"""Transforms that replace a random fraction of the blocks of a weight in training (quant-noise, arXiv:2004.07320)."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from fairseq_compress.functional.schedules import Ramp
from fairseq_compress.options import option
from fairseq_compress.weights.chain import WeightTransform


@dataclass(frozen=True)
class Noise:
    """The fraction p of the blocks that a training forward draws, linear in the updates."""

    start: float = option(1.0, "p until first_update", range="[0, 1]")
    end: float | None = option(None, "p from last_update on; default: start", range="[0, 1]")
    first_update: int = option(0, "update where p begins to change", range="[0, inf)")
    last_update: int = option(0, "update where p ends to change", range="[0, inf)")
    block: int = option(8, "neighbours in a row that are drawn together", range="[1, inf)")

    def problems(self) -> list[str]:
        if self.first_update <= self.last_update:
            return []
        return [f"first_update: must be in [0, last_update ({self.last_update})], got {self.first_update}"]

    def ramp(self) -> Ramp:
        """p by updates."""
        return Ramp(self.start, self.start if self.end is None else self.end, self.first_update, self.last_update)


class NoisyTransform(WeightTransform):
    """A transform of random blocks of ``block`` entries of a row, drawn in training with probability p by updates."""

    uses_whole = False
    """Whether the transform of some rows depends on the other rows."""

    def __init__(self, probability: Ramp, block: int) -> None:
        super().__init__()
        self.probability, self.block = probability, block
        self.p = probability.at(0)

    def set_num_updates(self, num_updates: int) -> None:
        self.p = self.probability.at(num_updates)

    def whole(self, weight: Tensor) -> Tensor:
        return self.transform(weight, weight)

    def rows(self, rows: Tensor, used: Tensor, weight: Callable[[], Tensor]) -> Tensor:
        return self.transform(rows, weight() if self.uses_whole else rows)

    def transform(self, rows: Tensor, weight: Tensor) -> Tensor:
        """Some rows ``(N, C)`` of the transformed ``weight``, which is whole where ``uses_whole`` is set."""
        raise NotImplementedError

    def noise_repr(self) -> str:
        """The noise in ``print(model)``; nothing where all blocks are always replaced."""
        start, end, first, last = self.probability
        if start == end == 1:
            return ""
        ramp = f"{start:g}" if start == end else f"{start:g}..{end:g} in updates {first}..{last}"
        return f", noise={ramp}, block={self.block}"
