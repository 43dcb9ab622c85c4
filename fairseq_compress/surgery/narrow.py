"""A trained model with fewer heads, FFN units and layers: its weights and its architecture."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fairseq_compress.architecture.configuration import architecture_of
from fairseq_compress.architecture.shape import Architecture, Layer
from fairseq_compress.functional.layer_map import PARTS
from fairseq_compress.modules.axes import FFN, HEADS, Axes, Axis, parameter_axes
from fairseq_compress.modules.layer_sharing import leaders_of, state_of_all_layers
from fairseq_compress.options import raise_problems
from fairseq_compress.surgery.reductions import WHOLE, Reduction, blocks, reduce_weight

Numbers = Mapping[str, Sequence[int]]
Cuts = dict[tuple[str, str], Sequence[int]]
"""Kind and place of an axis -> the heads or units that are kept."""


@dataclass(frozen=True)
class Keep:
    """Layers, heads and units that :func:`narrow` keeps, ascending from 0; by default all."""

    layers: Numbers = field(default_factory=dict)
    """``encoder`` or ``decoder`` -> layers."""
    heads: Numbers = field(default_factory=dict)
    """An attention, such as ``encoder.layers.0.self_attn`` -> heads."""
    ffn: Numbers = field(default_factory=dict)
    """A layer, such as ``encoder.layers.0`` (of a stack ``encoder.layers.0.ffns.1``) -> units between fc1 and fc2."""


class Narrowed(NamedTuple):
    """A smaller model."""

    state: dict[str, Tensor]
    """Its state dict, with ties."""
    architecture: Architecture


@torch.no_grad()
def narrow(model: Any, keep: Keep, weights: Mapping[str, Tensor] | None = None) -> Narrowed:
    """Remove heads, FFN units and layers of a transformer.

    Of a head, the rows of the query, key and value projections, their biases, and the columns of the output projection
    are removed; of a unit the row of fc1, its bias, and the column of fc2. If these are zero in v_proj, its bias and
    fc2, the output does not change.

    Low-rank matrices keep their rank. Layers that share their parameters are narrowed together: name the first.

    Args:
        weights: by default the state dict of the model.
    """
    state = state_of_all_layers(model, dict(model.state_dict() if weights is None else weights))
    axes = parameter_axes(model)
    layers = {part: getattr(model, part).layers for part in PARTS}
    kept = {part: keep.layers.get(part, range(len(layers[part]))) for part in PARTS}
    cuts, problems = _cuts(keep, _sizes(state, axes), layers)
    raise_problems(problems, "narrow")
    narrowed: dict[str, Tensor] = {}
    made: dict[tuple[Any, ...], Tensor] = {}
    for key, value in state.items():
        name = _renamed(key, kept)
        rules = [_reduction(axis, size, cuts) for axis, size in zip(axes.get(key, ()), value.shape, strict=False)]
        if name is None:
            continue
        if why := _why_not(model, key, value, axes, cuts):
            problems.append(why)
        elif any(rule is not WHOLE for rule in rules):
            identity = value.data_ptr(), tuple(value.shape), value.stride()
            if identity not in made:
                made[identity] = reduce_weight(value, rules)
            value = made[identity]
        narrowed[name] = value
    architecture = architecture_of(model.cfg).map_layers(
        lambda part, number, layer: _narrowed_layer(layer, f"{part}.layers.{number}", cuts, problems)
    )
    for part, numbers in kept.items():
        architecture = architecture.keep_layers(part, list(numbers))
    raise_problems([*problems, *architecture.problems()], "narrow")
    return Narrowed(narrowed, architecture)


def _sizes(state: Mapping[str, Tensor], axes: Mapping[str, Axes]) -> dict[str, dict[str, int]]:
    """Kind of axis -> attention or layer -> how many heads or units it has."""
    sizes: dict[str, dict[str, int]] = {HEADS.kind: {}, FFN.kind: {}}
    for key, value in state.items():
        for axis, size in zip(axes.get(key, ()), value.shape, strict=False):
            if axis.kind in sizes:
                sizes[axis.kind][axis.place] = axis.blocks if axis.kind == HEADS.kind else size
    return sizes


def _cuts(keep: Keep, sizes: dict[str, dict[str, int]], layers: Mapping[str, Any]) -> tuple[Cuts, list[str]]:
    """The axes that are cut, also those of layers that share parameters with a named one, and problems."""
    cuts = {(HEADS.kind, name): numbers for name, numbers in keep.heads.items()}
    cuts |= {(FFN.kind, name): numbers for name, numbers in keep.ffn.items()}
    problems = list(_wrong_numbers("layers", keep.layers, {part: len(layers[part]) for part in PARTS}))
    problems += _wrong_numbers("heads", keep.heads, sizes[HEADS.kind])
    problems += _wrong_numbers("ffn", keep.ffn, sizes[FFN.kind])
    for part in PARTS:
        for number, leader in enumerate(leaders_of(layers[part])):
            own, first = f"{part}.layers.{number}", f"{part}.layers.{leader}"
            if number == leader:
                continue
            problems += [
                f"{name}: must not be named, its layer shares the parameters of {first}"
                for _, name in cuts
                if f"{name}.".startswith(f"{own}.")
            ]
            same = {cut: numbers for cut, numbers in cuts.items() if f"{cut[1]}.".startswith(f"{first}.")}
            cuts |= {(kind, own + name.removeprefix(first)): numbers for (kind, name), numbers in same.items()}
    return cuts, problems


def _wrong_numbers(what: str, given: Numbers, known: Mapping[str, int]) -> Iterator[str]:
    for name, numbers in given.items():
        numbers = [int(number) for number in numbers]
        if name not in known:
            yield f"{what}: unknown key {name}; expected one of {', '.join(known)}"
        elif not numbers or numbers != sorted(set(numbers)) or not 0 <= numbers[0] <= numbers[-1] < known[name]:
            yield f"{what}: {name}: must be ascending numbers in [0, {known[name] - 1}], got {numbers}"


def _renamed(key: str, kept_layers: Numbers) -> str | None:
    """The key in the smaller model; None in a layer that is removed."""
    part, _, rest = key.partition(".layers.")
    if part not in kept_layers or not rest:
        return key
    number, _, rest = rest.partition(".")
    kept = list(kept_layers[part])
    return f"{part}.layers.{kept.index(int(number))}.{rest}" if int(number) in kept else None


def _reduction(axis: Axis, size: int, cuts: Cuts) -> Reduction:
    numbers = cuts.get((axis.kind, axis.place))
    return WHOLE if numbers is None else blocks(numbers, size // axis.blocks if axis.kind == HEADS.kind else 1)


def _why_not(model: nn.Module, key: str, value: Tensor, axes: Mapping[str, Axes], cuts: Cuts) -> str | None:
    """The reason why a weight cannot be cut, or None."""
    words = key.split(".")
    owner = next((name for i in range(len(words), 0, -1) if (name := ".".join(words[:i])) in axes), None)
    if owner is None or not any((axis.kind, axis.place) in cuts for axis in axes[owner]):
        return None
    module = model.get_submodule(owner.removesuffix(".weight").removesuffix(".bias"))
    if hasattr(module, "normalized_shape"):
        return f"{owner}: a norm over the units of a feed-forward network cannot be cut"
    if key not in axes and value.dim() > 0:
        return f"{key}: cannot be cut, of a {type(module).__name__} (materialize the model first)"
    return None


def _narrowed_layer(layer: Layer, name: str, cuts: Cuts, problems: list[str]) -> Layer:
    changes: dict[str, Any] = {}
    for attribute, module in (("self_attention", "self_attn"), ("cross_attention", "encoder_attn")):
        heads = cuts.get((HEADS.kind, f"{name}.{module}"))
        if heads is not None:
            changes[attribute] = replace(getattr(layer, attribute), heads=len(heads))
    networks = [name] if layer.bottleneck is None else [f"{name}.ffns.{i}" for i in range(layer.bottleneck.ffn_stack)]
    units = {len(cuts.get((FFN.kind, network), range(layer.ffn))) for network in networks}
    if len(units) > 1:
        problems.append(f"ffn: {name}: must keep as many units in each network, got {sorted(units)}")
    return replace(layer, ffn=units.pop(), **changes)
