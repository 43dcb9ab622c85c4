"""Layer maps between student and teacher, and the schedules of their losses."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

PARTS = ("encoder", "decoder")
LayerMap = dict[str, list[int | None]]
"""Part -> the teacher's layer for each of the student's, None for none; an empty list for a part without any."""


class Pair(NamedTuple):
    """A layer of the student and its layer of the teacher, both counted from 0."""

    part: str
    student: int
    teacher: int


class Moment(NamedTuple):
    """The active losses of one update."""

    output: bool
    """Losses at the model's output: gold, distillation, cosine of the last hidden states."""
    layers: bool
    """Losses of ``pairs``: feature and attention maps."""
    pairs: tuple[Pair, ...]
    stage: int | None = None
    """Number of the stage in progressive transfer."""


def even_layers(student: int, teacher: int) -> list[int]:
    """The even rule of losses: layer i of n learns from layer round((i + 1) · N / n) - 1 of N, halves rounded up.

    The last learns from the last; a student deeper than its teacher repeats layers (never below 0).
    """
    return [max(1, (2 * (i + 1) * teacher + student) // (2 * student)) - 1 for i in range(student)]


def even_start_layers(student: int, teacher: int) -> list[int]:
    """The even rule of starts: layer i of n starts from layer round(i · (N - 1) / (n - 1)) of N, halves to even.

    The first starts from the first and, if n > 1, the last from the last. n is at most N.
    """
    return [round(i * (teacher - 1) / (student - 1)) if student > 1 else 0 for i in range(student)]


def parse_layer_map(text: str) -> tuple[LayerMap, list[str]]:
    """A text such as ``encoder:1,3,5 decoder:2,-`` -> the teacher's layer for each of the student's, and problems.

    Parts in any order, each once, with a space or ``;`` between; for each part the teacher's layers in the student's
    order, from 0; ``-`` for a layer without one, ``none`` for a part without any.
    """
    found: LayerMap = {}
    problems = []
    for item in re.split(r"[\s;]+", text.strip()):
        match = re.fullmatch(r"(encoder|decoder):(none|(?:\d+|-)(?:,(?:\d+|-))*)", item, re.ASCII)
        if match is None:
            form = "must be parts such as encoder:0,2,4 or decoder:none, separated by a space"
            problems.append(f"{form}, got {item!r}")
        elif match[1] in found:
            problems.append(f"must name {match[1]} once, got {text!r}")
        else:
            layers = [] if match[2] == "none" else match[2].split(",")
            found[match[1]] = [None if layer == "-" else int(layer) for layer in layers]
    return found, problems


def read_layer_map(text: str) -> LayerMap:
    """:func:`parse_layer_map` of a text with both parts; ``ValueError`` for any other."""
    found, problems = parse_layer_map(text)
    if problems or set(found) != set(PARTS):
        raise ValueError(text)
    return found


def layer_map_problems(
    layers: Mapping[str, Sequence[int | None]], student: Mapping[str, int], teacher: Mapping[str, int] | None = None
) -> list[str]:
    """How a map breaks the depths of the student and, where it is known, of the teacher."""
    problems = [
        f"must name {student[part]} layers of the {part}, one for each of the student's, got {len(layers[part])}"
        for part in PARTS
        if layers[part] and len(layers[part]) != student[part]
    ]
    for part in PARTS if teacher is not None else ():
        deepest = max((layer for layer in layers[part] if layer is not None), default=0)
        if teacher is not None and layers[part] and deepest >= teacher[part]:
            problems.append(f"must name layers 0 to {teacher[part] - 1} of the teacher's {part}, got {deepest}")
    return problems


def pairs_of(layers: Mapping[str, Sequence[int | None]]) -> tuple[Pair, ...]:
    """The pairs of a map, encoder first, from the bottom up."""
    return tuple(
        Pair(part, student, layer) for part in PARTS for student, layer in enumerate(layers[part]) if layer is not None
    )


class Transfer(NamedTuple):
    """The three schedules of knowledge transfer of MobileBERT (arXiv:2004.02984, section 3.4).

    - ``auxiliary`` (AKT): all losses, always.
    - ``joint`` (JKT): the losses of all layers for ``updates`` updates (the layer phase), then those at the output.
    - ``progressive`` (PKT): the same, but in the layer phase the pairs of layers take turns, encoder first and from the
      bottom up, for an equal number of updates each: stage k of P begins at update ⌈k · ``updates`` / P⌉.

    The output phase begins with fresh moments of the optimizer and the learning-rate schedule at update 0.
    """

    kind: str = "auxiliary"
    updates: int = 0
    """Length of the layer phase."""
    pairs: tuple[Pair, ...] = ()

    def at(self, update: int) -> Moment:
        """Active losses of the training step after ``update`` updates."""
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
        """Active losses at the end of training."""
        return self.at(self.updates)

    @property
    def whole(self) -> Moment:
        """All losses."""
        return Moment(True, True, self.pairs)
