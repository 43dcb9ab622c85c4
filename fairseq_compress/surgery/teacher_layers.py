"""The teacher's layer from which each layer of a new model starts: ``--init-layers``."""

from torch import nn

from fairseq_compress.functional.layer_map import PARTS, LayerMap, even_start_layers, layer_map_problems
from fairseq_compress.modules.layer_sharing import leaders_of


def choose_layers(given: LayerMap, student: nn.Module, teacher: nn.Module) -> tuple[LayerMap, list[str]]:
    """The given layers, evenly spread ones for a part that is not given, and how they break the depths.

    Layers that share their parameters start from the layer of the first of them. If there are more layers than in the
    teacher, the unshared ones are spread.
    """
    depths = [{part: len(getattr(model, part).layers) for part in PARTS} for model in (student, teacher)]
    chosen: LayerMap = {}
    problems = []
    for part in PARTS:
        available, leaders = depths[1][part], leaders_of(getattr(student, part).layers)
        own = list(range(len(leaders))) if len(leaders) <= available else sorted(set(leaders))
        if part not in given and len(own) > available:
            problems.append(
                f"must list the teacher's layers for the {part}, which has more of them than the teacher, got nothing "
                f"for {len(leaders)} from {available}"
            )
        spread = even_start_layers(len(own), available)
        chosen[part] = given.get(part, [spread[own.index(leader)] for leader in leaders])
    return chosen, [f"--init-layers: {problem}" for problem in problems + layer_map_problems(chosen, *depths)]
