"""Pairs of matrices of a student and its teacher."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.layer_map import PARTS, even_layers, layer_map_problems, pairs_of
from fairseq_compress.functional.losses.projection_losses import Axes, WeightPair
from fairseq_compress.models.layer_recorder import sizes_of
from fairseq_compress.models.student_output import unwrapped
from fairseq_compress.modules.structured import StructuredWeight
from fairseq_compress.surgery.plain_parameters import plain_parameters
from fairseq_compress.weights.groups import weight_before_noise

LayerMap = Mapping[str, Sequence[int | None]]
Shape = tuple[int, ...]


class MatchedWeight(NamedTuple):
    """A matrix (outputs, inputs) of the student and the teacher's of the same name in the layer it learns from."""

    name: str
    """Of the student's, as in the state dict of a plain transformer."""
    teacher_name: str
    axes: Axes
    """Names of :mod:`fairseq_compress.modules.axes`."""
    shapes: tuple[Shape, Shape]
    student: Callable[[], Tensor]
    """The dense weight with its graph, before fake quantization or noise."""
    teacher: Callable[[], Tensor]

    def pair(self) -> WeightPair:
        """The current weights."""
        return WeightPair(self.axes, self.student(), self.teacher())


def matched_weights(student: nn.Module, teacher: nn.Module, layer_map: LayerMap | None = None) -> list[MatchedWeight]:
    """All matrices that a layer of the student and its teacher layer have in common, by their names.

    No embeddings, output layer, biases and layer norms. A structured matrix counts as its dense equivalent; layers that
    share matrices count each.

    Args:
        student, teacher: transformers of fairseq's form, in any wrapper.
        layer_map: of :func:`~fairseq_compress.functional.layer_map.read_layer_map`; None for :func:`even_layers`.
    """
    own, other = sizes_of(student).layers, sizes_of(teacher).layers
    if layer_map is None:
        layer_map = {part: even_layers(own[part], other[part]) for part in PARTS}
    problems = layer_map_problems(layer_map, own, other)
    if problems:
        raise ConfigError("; ".join(f"layer map: {problem}" for problem in problems))
    models = unwrapped(student), unwrapped(teacher)
    parameters = [plain_parameters(model) for model in models]
    found: list[MatchedWeight] = []
    for part, number, teacher_number in pairs_of(layer_map):
        prefixes = f"{part}.layers.{number}.", f"{part}.layers.{teacher_number}."
        for name, parameter in parameters[0].items():
            teacher_name = name.replace(*prefixes, 1)
            match = parameters[1].get(teacher_name)
            if name.startswith(prefixes[0]) and match is not None and len(parameter.shape) == len(match.shape) == 2:
                if parameter.axes is None:
                    raise ConfigError(f"{name}: must be a matrix whose axes its module declares")
                output, inputs = (axis.name for axis in parameter.axes)
                getters = _getter(models[0], name), _getter(models[1], teacher_name)
                shapes = parameter.shape, match.shape
                found.append(MatchedWeight(name, teacher_name, (output, inputs), shapes, *getters))
    if not found:
        raise ConfigError(f"layer map: must pair layers that have a matrix in common, got {dict(layer_map)}")
    return found


def projection_sizes(weights: Iterable[MatchedWeight]) -> dict[str, tuple[int, int]]:
    """Kind of axis -> its size in the student and in the teacher, in the order of first appearance."""
    sizes: dict[str, tuple[int, int]] = {}
    for weight in weights:
        for axis, (kind, pair) in enumerate(zip(weight.axes, zip(*weight.shapes, strict=True), strict=True)):
            if sizes.setdefault(kind, pair) != pair:
                side = ("outputs", "inputs")[axis]
                raise ConfigError(
                    f"{weight.name}: the {side} must be {sizes[kind]} (student, teacher) as elsewhere on {kind}, "
                    f"got {pair}"
                )
    return sizes


def _getter(model: nn.Module, key: str) -> Callable[[], Tensor]:
    module: Any = model.get_submodule(key.removesuffix(".weight"))
    if isinstance(module, StructuredWeight):
        return module.dense_weight
    return partial(weight_before_noise, module)
