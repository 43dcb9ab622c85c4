"""A new model that starts from the weights of a trained one: some of its layers, in slices or projected if narrower.

DistilBERT (arXiv:1910.01108) starts from the embeddings and from one layer out of two of its teacher.
"""

import logging
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from fairseq.models.transformer import TransformerModelBase
from torch import Tensor, nn

from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.layer_map import PARTS
from fairseq_compress.modules.structured import relative_error, structured_modules
from fairseq_compress.surgery.plain_parameters import PlainParameter, dense_state, plain_parameters, plain_shapes
from fairseq_compress.surgery.teacher_layers import Layers
from fairseq_compress.surgery.transformer_axes import (
    HEADS,
    Sizes,
    axes_of,
    axis_sizes,
    reductions,
)
from fairseq_compress.surgery.width_reduction import COPIED, KINDS, PROJECTED, Axis, reduce_gain, reduce_weight

logger = logging.getLogger(__name__)

WIDTHS = ("refuse", "slices", "svd")
_LAYER = re.compile(r"(?P<part>encoder|decoder)\.layers\.(?P<number>\d+)(?P<rest>\..+)")


class _Taken(NamedTuple):
    """What one weight of the student starts from."""

    source: str
    value: Tensor
    kind: str
    energy: tuple[float, float]
    """The sum of squares of a matrix and of that of the teacher; zeros of a vector."""


def why_not_by_size(teacher: Sizes, student: Sizes, layers: Layers, widths: str) -> list[str]:
    """What keeps a student of these sizes from starting from this teacher."""
    larger, narrower = [], []
    for name, sizes in student.items():
        part, kind = name.split(" ", 1)
        inside = kind == HEADS or kind.startswith("FFN")
        if name not in teacher or (inside and not layers[part]):
            continue
        labels = (name, f"{part} head width") if kind == HEADS else (name,)
        for label, ours, theirs in zip(labels, sizes, teacher[name], strict=True):
            difference = f"{label} {ours} from {theirs}"
            larger += [difference] if ours > theirs else []
            narrower += [difference] if ours < theirs else []
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
def take_over(
    student: TransformerModelBase, teacher: TransformerModelBase, layers: Layers, widths: str, name: str
) -> frozenset[str]:
    """Load the teacher's weights into a new student, and log what came from where, and what did not.

    The student's rules of sharing hold: a table that it shares must be the same in the teacher under all of its names.
    Of a compressed teacher the effective weights are taken; on a student with a compression plan they are what its
    transforms start from. The sizes must have been found fit by :func:`why_not_by_size`.

    Args:
        layers: of :func:`choose_layers`.
        widths: one of :data:`WIDTHS`; counts only where the student is narrower.
        name: of the teacher, for messages.

    Returns:
        The names of the weights that came from the teacher.

    Raises:
        ConfigError: the teacher has tables apart that the student shares, or a weight of another shape for which there
            is no rule; all of them in one message.
    """
    parameters, theirs = plain_parameters(student), plain_shapes(teacher)
    shapes = {key: parameter.shape for key, parameter in parameters.items()}
    weights = {key: value for key, value in dense_state(teacher).items() if key in theirs}
    tables = {part: weights[f"{part}.embed_tokens.weight"] for part in PARTS} if widths == "svd" else None
    axes = reductions(axis_sizes(teacher, theirs), axis_sizes(student, shapes), tables)
    taken, problems = _take(shapes, layers, weights, axes)
    groups = _shared(parameters)
    problems += _apart(groups, taken, weights)
    if problems:
        raise ConfigError(f"--init-from-teacher {name}: {'; '.join(problems)}")
    # Not the load_state_dict of fairseq's models: it takes a state without its version for one of 2018, and removes the
    # last layer norm of the model.
    values = {key: found.value for key, found in taken.items()}
    unknown = nn.Module.load_state_dict(student, dict(values), strict=False).unexpected_keys
    assert not unknown, unknown  # every key is a name of the student's own
    _copy_equal_cores(student, teacher, set(values))
    errors = {
        f"{layer}.weight": relative_error(module, values[f"{layer}.weight"])
        for layer, module in structured_modules(student).items()
        if f"{layer}.weight" in values
    }
    filled = {key for group in groups if any(key in taken for key in group) for key in group}
    _log(name, taken, errors)
    _log_left(name, taken, [key for key in shapes if key not in filled], shapes, theirs)
    return frozenset(filled)


def _copy_equal_cores(student: nn.Module, teacher: nn.Module, taken: set[str]) -> None:
    """Tensor trains of one shape: rows of the table that mean nothing are lost on the way through a dense one."""
    theirs = structured_modules(teacher)
    for name, module in structured_modules(student).items():
        own, other = (getattr(layer, "cores", None) for layer in (module, theirs.get(name)))
        if f"{name}.weight" in taken and own and other and [c.shape for c in own] == [c.shape for c in other]:
            for core, source in zip(own, other, strict=True):
                core.copy_(source)


def _take(
    shapes: Mapping[str, tuple[int, ...]], layers: Layers, weights: Mapping[str, Tensor], axes: Mapping[str, Axis]
) -> tuple[dict[str, _Taken], list[str]]:
    """What each of the student's weights starts from, but for those that the teacher lacks, and what is wrong."""
    taken = {}
    problems = []
    for key, shape in shapes.items():
        source = _source(key, layers)
        if source is None or source not in weights:
            continue
        found = _taken(key, source, weights[source], axes)
        if found is not None and found.value.shape == shape:
            taken[key] = found
        else:
            theirs = tuple(weights[source].shape)
            problems.append(f"{key} must have the teacher's shape {theirs}, for no rule reduces it, got {shape}")
    return taken, problems


def _source(key: str, layers: Layers) -> str | None:
    """The key of the teacher's weight for one of the student's; None in a layer that is not copied."""
    match = _LAYER.fullmatch(key)
    if match is None:
        return key
    chosen = layers[match["part"]]
    return f"{match['part']}.layers.{chosen[int(match['number'])]}{match['rest']}" if chosen else None


def _taken(key: str, source: str, weight: Tensor, axes: Mapping[str, Axis]) -> _Taken | None:
    """None if an axis of the weight is not what its name says."""
    named = axes_of(key)
    if named is None:
        return _Taken(source, weight, COPIED, (0.0, 0.0))
    rules = [axes.get(name, Axis(size)) for name, size in zip(named.names, weight.shape, strict=True)]
    if any(rule.kind != COPIED and rule.size != size for rule, size in zip(rules, weight.shape, strict=True)):
        return None
    value = reduce_gain(weight, rules[0]) if named.gain else reduce_weight(weight, rules)
    kind = max((rule.kind for rule in rules), key=KINDS.index)
    energy = (_energy(value), _energy(weight)) if weight.dim() > 1 else (0.0, 0.0)
    return _Taken(source, value, kind, energy)


def _energy(weight: Tensor) -> float:
    return float(weight.double().square().sum())


def _shared(parameters: Mapping[str, PlainParameter]) -> list[list[str]]:
    """The names of each parameter."""
    groups: dict[frozenset[Hashable], list[str]] = {}
    for key, parameter in parameters.items():
        groups.setdefault(parameter.identity, []).append(key)
    return list(groups.values())


def _apart(groups: Sequence[list[str]], taken: Mapping[str, _Taken], weights: Mapping[str, Tensor]) -> list[str]:
    problems = []
    for group in groups:
        sources = [taken[key].source for key in group if key in taken]
        different = [source for source in sources[1:] if not torch.equal(weights[source], weights[sources[0]])]
        if different:
            problems.append(
                f"the student shares the weight of {', '.join(group)}, which must be one in the teacher too, "
                f"got {', '.join([sources[0], *different])} of different values"
            )
    return problems


def _log(name: str, taken: Mapping[str, _Taken], errors: Mapping[str, float]) -> None:
    """What came from where, with the largest error of weights that only come close to what they start from."""
    units: dict[str, list[str]] = {}
    for key, found in taken.items():
        units.setdefault(f"{_unit(key)} <- {_unit(found.source)}", []).append(key)
    for pair, keys in units.items():
        members = [taken[key] for key in keys]
        kind = max((found.kind for found in members), key=KINDS.index)
        if kind == PROJECTED:
            kept, whole = (sum(found.energy[side] for found in members) for side in (0, 1))
            kind += f", kept energy {100 * kept / whole:.1f}%" if whole else ""
        close = [errors[key] for key in keys if key in errors]
        kind += f", approximated with a relative error of up to {max(close):.3f}" if close else ""
        logger.info("start from %s: %s: %s", name, pair, kind)


def _log_left(
    name: str, taken: Mapping[str, _Taken], left: list[str], shapes: Iterable[str], theirs: Iterable[str]
) -> None:
    used = {found.source for found in taken.values()}
    logger.info("start from %s: left as initialized: %s", name, _units(left, shapes))
    logger.info(
        "start from %s: not taken from it: %s", name, _units([key for key in theirs if key not in used], theirs)
    )


def _unit(key: str) -> str:
    """The layer of the model, or the module outside of layers, in which a weight is."""
    match = _LAYER.fullmatch(key)
    return key.rpartition(".")[0] if match is None else f"{match['part']}.layers.{match['number']}"


def _units(keys: list[str], everything: Iterable[str]) -> str:
    """Keys in a line, those of a whole unit as one."""
    partly = {_unit(key) for key in everything if key not in set(keys)}
    return ", ".join(dict.fromkeys(key if _unit(key) in partly else _unit(key) for key in keys)) or "nothing"
