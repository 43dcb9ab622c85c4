"""From which layer of its teacher each layer of a new model starts: ``--init-layers``."""

import re

from torch import nn

from fairseq_compress.functional.layer_map import PARTS
from fairseq_compress.modules.layer_sharing import leaders_of

_GIVEN = re.compile(r"(?P<part>encoder|decoder):(?P<list>none|\d+(,\d+)*)")

Layers = dict[str, list[int]]
"""``encoder`` and ``decoder`` -> the teacher's layer for each of the student's; an empty list copies no layer."""


def parse_layers(text: str | None) -> tuple[Layers, list[str]]:
    """What ``--init-layers`` says, and what is wrong with it.

    Its form is ``encoder:0,2,4 decoder:none``: parts with a space or ``;`` between, each once, one or both; for each
    the teacher's layers in the student's order, counted from 0, one more than once if wanted; or ``none``.
    """
    found: Layers = {}
    problems = []
    for item in [] if text is None else re.split(r"[\s;]+", text.strip()):
        match = _GIVEN.fullmatch(item)
        if match is None:
            form = "must be parts such as encoder:0,2,4 or decoder:none, separated by a space"
            problems.append(f"--init-layers: {form}, got {item!r}")
        elif match["part"] in found:
            problems.append(f"--init-layers: must name {match['part']} once, got {text!r}")
        else:
            numbers = match["list"]
            found[match["part"]] = [] if numbers == "none" else [int(number) for number in numbers.split(",")]
    return found, problems


def evenly_spread(student: int, teacher: int) -> list[int]:
    """For layer i of n of the student, layer round(i · (N - 1) / (n - 1)) of N, halves to the even one; 0 if n = 1.

    So the first and the last layer are among them if n > 1. n is at most N.
    """
    return [round(i * (teacher - 1) / (student - 1)) if student > 1 else 0 for i in range(student)]


def _spread_over(layers: nn.ModuleList, teacher: int) -> list[int]:
    """Evenly spread ones, for layers that share that of the first.

    If there are more layers than in the teacher, spread over those that have parameters of their own.
    """
    leaders = leaders_of(layers)
    own = list(range(len(leaders))) if len(leaders) <= teacher else sorted(set(leaders))
    spread = evenly_spread(len(own), teacher)
    return [spread[own.index(leader)] for leader in leaders]


def choose_layers(given: Layers, student: nn.Module, teacher: nn.Module) -> tuple[Layers, list[str]]:
    """The layers that were given, evenly spread ones for a part that was not, and what is wrong with them."""
    chosen: Layers = {}
    problems = []
    for part in PARTS:
        count, available = len(getattr(student, part).layers), len(getattr(teacher, part).layers)
        if part not in given and len(set(leaders_of(getattr(student, part).layers))) > available:
            problems.append(
                f"--init-layers: must list the teacher's layers for the {part}, which has more of them than the "
                f"teacher, got nothing for {count} from {available}"
            )
        chosen[part] = layers = given.get(part, _spread_over(getattr(student, part).layers, available))
        if layers and len(layers) != count:
            problems.append(
                f"--init-layers: must list a layer of the teacher for each of the student's {count} {part} layers, "
                f"got {len(layers)}"
            )
        outside = [str(layer) for layer in given.get(part, []) if layer >= available]
        if outside:
            problems.append(
                f"--init-layers: {part} layers must be from 0 to {available - 1}, the teacher's last, "
                f"got {', '.join(outside)}"
            )
    return chosen, problems
