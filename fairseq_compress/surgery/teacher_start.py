"""A new model initialized from a trained one: some of its layers, sliced or projected if narrower.

DistilBERT (arXiv:1910.01108) starts from the embeddings and from one layer out of two of its teacher.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.layer_map import PARTS, LayerMap
from fairseq_compress.modules.axes import FFN, HEADS, POSITIONS, WIDTH, Axis
from fairseq_compress.modules.structured import relative_error, structured_modules
from fairseq_compress.surgery.plain_parameters import Identity, PlainParameter, dense_state, plain_parameters
from fairseq_compress.surgery.reductions import (
    COPIED,
    KINDS,
    PROJECTED,
    WHOLE,
    Reduction,
    leading,
    principal,
    reduce_gain,
    reduce_weight,
)

logger = logging.getLogger(__name__)

WIDTHS = ("refuse", "slices", "svd")
REDUCIBLE = (WIDTH.kind, FFN.kind, HEADS.kind, POSITIONS.kind)
_LAYER = re.compile(r"(?P<part>encoder|decoder)\.layers\.(?P<number>\d+)(?P<rest>\..+)")

Parameters = Mapping[str, PlainParameter]


class _Start(NamedTuple):
    """The initial value of a weight of the student."""

    source: str
    value: Tensor
    kind: str
    energy: tuple[float, float]
    """The sum of squares of a matrix and of that of the teacher; zeros of a vector."""


def size_problems(teacher: Any, student: Any, layers: LayerMap, widths: str) -> list[str]:
    """Reasons why a student of this shape cannot start from this teacher."""
    depths = {part: len(getattr(teacher, part).layers) for part in PARTS}
    inside: LayerMap = {  # a map of wrong depths is reported apart
        part: [None if layer is None else min(layer, depths[part] - 1) for layer in layers[part]] for part in PARTS
    }
    of_teacher = plain_parameters(teacher)
    differences: dict[str, tuple[int, int, int]] = {}  # text -> its place in the message, larger or smaller
    for key, own in plain_parameters(student).items():
        other = of_teacher.get(_source(key, inside) or "")
        if other is None or own.axes is None or other.axes is None:
            continue
        for axis, size, teacher_axis, teacher_size in zip(own.axes, own.shape, other.axes, other.shape, strict=True):
            if axis.kind not in REDUCIBLE or axis.kind != teacher_axis.kind:
                continue
            sizes = [(axis.name, size, teacher_size)]
            if axis.kind == HEADS.kind:
                widths_of_head = size // axis.blocks, teacher_size // teacher_axis.blocks
                sizes = [(axis.name, axis.blocks, teacher_axis.blocks), (f"{axis.part} head width", *widths_of_head)]
            for n, (label, ours, others) in enumerate(sizes):
                place = PARTS.index(axis.part), REDUCIBLE.index(axis.kind) * 2 + n
                differences[f"{label} {ours} from {others}"] = (*place, ours - others)
    ordered = sorted(differences, key=lambda text: differences[text][:2])
    larger, narrower = ([text for text in ordered if sign * differences[text][2] > 0] for sign in (1, -1))
    problems = []
    if larger:
        problems.append(f"--init-from-teacher: the student must be no larger than the teacher, got {', '.join(larger)}")
    if narrower and widths == "refuse":
        problems.append(
            "--init-widths: must be slices or svd where the student is smaller than the teacher, "
            f"got refuse and {', '.join(narrower)}"
        )
    return problems


@torch.no_grad()
def initialize_from(student: Any, teacher: Any, layers: LayerMap, widths: str, name: str) -> frozenset[str]:
    """Load the teacher's weights into a new student and log their sources; returns the names of the loaded weights.

    Tables that the student shares must be equal in the teacher. A compressed teacher gives its effective weights. The
    sizes must have passed :func:`size_problems`.

    Args:
        layers: of :func:`~fairseq_compress.surgery.teacher_layers.choose_layers`.
        widths: one of :data:`WIDTHS`, for a narrower student.
        name: of the teacher, for messages.
    """
    parameters, of_teacher = plain_parameters(student), plain_parameters(teacher)
    weights = {key: value for key, value in dense_state(teacher).items() if key in of_teacher}
    starts, problems = _starts(parameters, of_teacher, weights, layers, widths == "svd")
    groups: dict[Identity, list[str]] = {}
    for key, parameter in parameters.items():
        groups.setdefault(parameter.identity, []).append(key)
    problems += _sharing_problems(groups.values(), starts, weights)
    if problems:
        raise ConfigError(f"--init-from-teacher {name}: {'; '.join(problems)}")
    # Not the load_state_dict of fairseq's models: it takes a state without its version for one of 2018, and removes the
    # last layer norm of the model.
    values = {key: start.value for key, start in starts.items()}
    unknown = nn.Module.load_state_dict(student, dict(values), strict=False).unexpected_keys
    assert not unknown, unknown  # every key is a name of the student's own
    _copy_equal_cores(student, teacher, set(values))
    errors = {
        f"{layer}.weight": relative_error(module, values[f"{layer}.weight"])
        for layer, module in structured_modules(student).items()
        if f"{layer}.weight" in values
    }
    filled = {key for group in groups.values() if any(key in starts for key in group) for key in group}
    _log(name, starts, errors)
    used = {start.source for start in starts.values()}
    for what, keys, names in (("left as initialized", filled, parameters), ("not taken from it", used, of_teacher)):
        left = _units([key for key in names if key not in keys], names)
        logger.info("start from %s: %s: %s", name, what, left)
    return frozenset(filled)


def _starts(
    parameters: Parameters, of_teacher: Parameters, weights: Mapping[str, Tensor], layers: LayerMap, project: bool
) -> tuple[dict[str, _Start], list[str]]:
    """The initial value of each weight of the student that the teacher has, and problems."""
    starts, problems = {}, []
    streams: dict[str, Reduction] = {}
    for key, own in parameters.items():
        source = _source(key, layers)
        if source is None or source not in weights:
            continue
        weight, other = weights[source], of_teacher[source]
        rules: list[Reduction | None] = []
        for axis, size, teacher_axis, teacher_size in zip(
            own.axes or (), own.shape, other.axes or (), other.shape, strict=False
        ):
            if project and axis.kind == WIDTH.kind and size < teacher_size:
                table = weights[f"{axis.part}.embed_tokens.weight"]
                if axis.part not in streams and table.size(1) == teacher_size:
                    streams[axis.part] = principal(table, size)
                rules.append(streams.get(axis.part))
            else:
                rules.append(_sliced(axis, size, teacher_axis, teacher_size))
        reduced = [rule for rule in rules if rule is not None]
        value = weight
        if len(reduced) == len(rules) == weight.dim():
            gain = weight.dim() == 1 and not key.endswith("bias")
            value = reduce_gain(weight, reduced[0]) if gain else reduce_weight(weight, reduced)
        if value.shape != own.shape:
            shape = tuple(weight.shape)
            problems.append(f"{key} must have the teacher's shape {shape}, for no rule reduces it, got {own.shape}")
            continue
        kind = max((rule.kind for rule in reduced), key=KINDS.index, default=COPIED)
        energy = (_energy(value), _energy(weight)) if weight.dim() > 1 else (0.0, 0.0)
        starts[key] = _Start(source, value, kind, energy)
    return starts, problems


def _sliced(axis: Axis, size: int, of_teacher: Axis, teacher_size: int) -> Reduction | None:
    """The leading entries of an axis of the teacher's; None without a rule."""
    if (size, axis.blocks) == (teacher_size, of_teacher.blocks):
        return WHOLE
    narrower = axis.blocks <= of_teacher.blocks and size // axis.blocks <= teacher_size // of_teacher.blocks
    if axis.kind not in REDUCIBLE or axis.kind != of_teacher.kind or not narrower:
        return None
    return leading(teacher_size, size, of_teacher.blocks, axis.blocks)


def _source(key: str, layers: LayerMap) -> str | None:
    """The key of the teacher's weight for one of the student's; None in a layer that is not copied."""
    match = _LAYER.fullmatch(key)
    if match is None:
        return key
    chosen, number = layers[match["part"]], int(match["number"])
    layer = chosen[number] if number < len(chosen) else None
    return None if layer is None else f"{match['part']}.layers.{layer}{match['rest']}"


def _energy(weight: Tensor) -> float:
    return float(weight.double().square().sum())


def _sharing_problems(
    groups: Iterable[list[str]], starts: Mapping[str, _Start], weights: Mapping[str, Tensor]
) -> list[str]:
    problems = []
    for group in groups:
        sources = [starts[key].source for key in group if key in starts]
        different = [source for source in sources[1:] if not torch.equal(weights[source], weights[sources[0]])]
        if different:
            problems.append(
                f"the student shares the weight of {', '.join(group)}, which must be one in the teacher too, "
                f"got {', '.join([sources[0], *different])} of different values"
            )
    return problems


def _copy_equal_cores(student: nn.Module, teacher: nn.Module, taken: set[str]) -> None:
    """Tensor trains of one shape: rows of the table that mean nothing are lost on the way through a dense one."""
    of_teacher = structured_modules(teacher)
    for name, module in structured_modules(student).items():
        own, other = (getattr(layer, "cores", None) for layer in (module, of_teacher.get(name)))
        if f"{name}.weight" in taken and own and other and [c.shape for c in own] == [c.shape for c in other]:
            for core, source in zip(own, other, strict=True):
                core.copy_(source)


def _log(name: str, starts: Mapping[str, _Start], errors: Mapping[str, float]) -> None:
    """Log the source of each unit, with the largest error of approximated weights."""
    units: dict[str, list[str]] = {}
    for key, start in starts.items():
        units.setdefault(f"{_unit(key)} <- {_unit(start.source)}", []).append(key)
    for pair, keys in units.items():
        members = [starts[key] for key in keys]
        kind = max((start.kind for start in members), key=KINDS.index)
        if kind == PROJECTED:
            kept, whole = (sum(start.energy[side] for start in members) for side in (0, 1))
            kind += f", kept energy {100 * kept / whole:.1f}%" if whole else ""
        close = [errors[key] for key in keys if key in errors]
        kind += f", approximated with a relative error of up to {max(close):.3f}" if close else ""
        logger.info("start from %s: %s: %s", name, pair, kind)


def _unit(key: str) -> str:
    """The layer of the model, or the module outside of layers, that has a weight."""
    match = _LAYER.fullmatch(key)
    return key.rpartition(".")[0] if match is None else f"{match['part']}.layers.{match['number']}"


def _units(keys: list[str], everything: Iterable[str]) -> str:
    """Keys in a line, those of a whole unit as one."""
    partly = {_unit(key) for key in everything if key not in set(keys)}
    return ", ".join(dict.fromkeys(key if _unit(key) in partly else _unit(key) for key in keys)) or "nothing"
