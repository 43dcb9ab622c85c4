"""From which layer of the teacher each layer of the student learns, and when: pairs, and stages of an update count."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

PARTS = ("encoder", "decoder")


class Pair(NamedTuple):
    """A layer of the student and the layer of the teacher that it learns from, both counted from 0."""

    part: str
    student: int
    teacher: int


class Moment(NamedTuple):
    """What counts in one update."""

    output: bool
    """Losses at the model's output: gold, distillation, cosine of the last hidden states."""
    layers: bool
    """Losses of layers: feature and attention maps."""
    pairs: tuple[Pair, ...]
    """Whose losses of layers count."""
    stage: int | None = None
    """The number of the stage, where pairs take turns."""


def even_layers(student: int, teacher: int) -> list[int]:
    """The default: layer i of n learns from layer round((i + 1) · N / n) - 1 of N, from 0, halves rounded up.

    So the last learns from the last, and a student that is deeper than its teacher repeats layers (never below 0).
    """
    return [max(1, (2 * (i + 1) * teacher + student) // (2 * student)) - 1 for i in range(student)]


def read_layer_map(text: str) -> dict[str, list[int | None]]:
    """``encoder:1,3,5 decoder:2,-`` -> the teacher's layers, counted from 0, None for ``-``; ``;`` may be the space.

    Raises:
        ValueError: another form; a part is missing or there twice.
    """
    found: dict[str, list[int | None]] = {}
    for word in re.split(r"[\s;]+", text.strip()):
        match = re.fullmatch(r"(encoder|decoder):((?:\d+|-)(?:,(?:\d+|-))*)", word, re.ASCII)
        if not match or match[1] in found:
            raise ValueError(text)
        found[match[1]] = [None if item == "-" else int(item) for item in match[2].split(",")]
    if set(found) != set(PARTS):
        raise ValueError(text)
    return found


def layer_map_problems(
    layers: Mapping[str, Sequence[int | None]], student: Mapping[str, int], teacher: Mapping[str, int] | None = None
) -> list[str]:
    """How a map breaks the depths of the student and, where it is known, of the teacher."""
    problems = [
        f"must name {student[part]} layers of the {part}, one for each of the student's, got {len(layers[part])}"
        for part in PARTS
        if len(layers[part]) != student[part]
    ]
    for part in PARTS if teacher is not None else ():
        deepest = max((layer for layer in layers[part] if layer is not None), default=0)
        if teacher is not None and deepest >= teacher[part]:
            problems.append(f"must name layers 0 to {teacher[part] - 1} of the teacher's {part}, got {deepest}")
    return problems


def pairs_of(layers: Mapping[str, Sequence[int | None]]) -> tuple[Pair, ...]:
    """The pairs of a map, encoder first, from the bottom up."""
    return tuple(
        Pair(part, student, layer) for part in PARTS for student, layer in enumerate(layers[part]) if layer is not None
    )


class Transfer(NamedTuple):
    """Which losses count when: the three ways of knowledge transfer of MobileBERT (arXiv:2004.02984, section 3.4).

    - ``auxiliary`` (AKT): all losses, always.
    - ``joint`` (JKT): the losses of all layers for ``updates`` updates (the layer phase), then those at the output.
    - ``progressive`` (PKT): the same, but in the layer phase the pairs of layers take turns, encoder first and from the
      bottom up, for an equal number of updates each: stage k of P begins at update ⌈k · ``updates`` / P⌉.

    The output phase is a training of its own: fresh moments of the optimizer, and a schedule of the learning rate that
    counts updates from its beginning.
    """

    kind: str = "auxiliary"
    updates: int = 0
    """Of the layer phase; 0 if there is none."""
    pairs: tuple[Pair, ...] = ()

    def at(self, update: int) -> Moment:
        """What counts in the training step after ``update`` updates."""
        if self.kind == "auxiliary":
            return Moment(True, True, self.pairs)
        if update >= self.updates:
            return Moment(True, False, ())
        if self.kind == "joint":
            return Moment(False, True, self.pairs)
        stage = update * len(self.pairs) // self.updates
        return Moment(False, True, self.pairs[stage : stage + 1], stage)

    def rate(self, update: int) -> float:
        r"""The learning rate of the step after ``update`` updates of the layer phase, as a part of ``--lr``:

            min(10 (u + 1) / U, 0.9 + 0.1 √(1 - u / U)),    u updates into a stage of U

        A warm-up over a tenth of each stage, of the only one in joint transfer, then hardly any decay: the official
        code of MobileBERT, but for its first rate of 0, and without the factor of 3 for its optimizer, LAMB.
        """
        stages = len(self.pairs) if self.kind == "progressive" else 1
        stage = update * stages // self.updates
        begin, end = (-(-number * self.updates // stages) for number in (stage, stage + 1))
        passed, length = update - begin, end - begin
        return min(10 * (passed + 1) / length, 0.9 + 0.1 * math.sqrt(1 - passed / length))

    @property
    def last(self) -> Moment:
        """The objective at the end of a training."""
        return self.at(self.updates)

    @property
    def whole(self) -> Moment:
        """Everything there is."""
        return Moment(True, True, self.pairs)
