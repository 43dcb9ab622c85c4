"""A model's parameters as those of the equivalent plain transformer, with dense weights in all layers."""

from collections.abc import Hashable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fairseq_compress.functional.ties import identity
from fairseq_compress.modules.axes import Axes, parameter_axes
from fairseq_compress.modules.layer_sharing import state_of_all_layers
from fairseq_compress.modules.structured import StructuredWeight, structured_modules
from fairseq_compress.weights.groups import PLAIN, chain_of, effective_state, parameter_of

BIAS = "bias"
Shape = tuple[int, ...]
Identity = frozenset[Hashable]


class PlainParameter(NamedTuple):
    """A parameter of the plain model."""

    shape: Shape
    identity: Identity
    """Equal for names that share tensors."""
    axes: Axes | None
    """None if no module declares them."""


def plain_parameters(model: nn.Module) -> dict[str, PlainParameter]:
    """Every parameter under each of its names, in the model's order."""
    axes = parameter_axes(model)
    return {name: PlainParameter(shape, parts, axes.get(name)) for name, shape, parts in _collect(model, "")}


def plain_shapes(model: nn.Module) -> dict[str, Shape]:
    """The shapes of :func:`plain_parameters`."""
    return {name: shape for name, shape, _ in _collect(model, "")}


@torch.no_grad()
def dense_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of the equivalent plain model, with ties. Sets the model to evaluation."""
    structured = structured_modules(model)
    identities = {name: parts for name, _, parts in _collect(model, "")}
    made: dict[Identity, Tensor] = {}
    dense: dict[str, Tensor] = {}
    for key, value in state_of_all_layers(model, effective_state(model)).items():
        words = key.split(".")
        owner = next((name for i in range(len(words), 0, -1) if (name := ".".join(words[:i])) in structured), None)
        if owner is None:
            dense[key] = value
            continue
        parts = identities[f"{owner}.{PLAIN}"]
        if parts not in made:
            made[parts] = structured[owner].dense_weight().detach()
        dense.setdefault(f"{owner}.{PLAIN}", made[parts])
        bias = getattr(structured[owner], BIAS, None)
        if bias is not None:
            dense.setdefault(f"{owner}.{BIAS}", bias.detach())
    return dense


def _collect(module: Any, prefix: str) -> Iterator[tuple[str, Shape, Identity]]:
    if isinstance(module, StructuredWeight):
        bias = getattr(module, BIAS, None)
        weight = frozenset(identity(parameter) for parameter in module.parameters() if parameter is not bias)
        yield prefix + PLAIN, module.dense_shape, weight
        if bias is not None:
            yield prefix + BIAS, tuple(bias.shape), frozenset([identity(bias)])
        return
    if chain_of(module) is not None:  # its parameter may be centroids
        embedding = isinstance(module, nn.Embedding)
        names = ("num_embeddings", "embedding_dim") if embedding else ("out_features", "in_features")
        shape = tuple(getattr(module, name) for name in names)
        yield prefix + PLAIN, shape, frozenset([identity(parameter_of(module))])
    for name, parameter in module._parameters.items():
        if parameter is not None:
            yield prefix + name, tuple(parameter.shape), frozenset([identity(parameter)])
    for name, child in module._modules.items():  # also those that appear twice
        if child is not None and name != "parametrizations":
            yield from _collect(child, f"{prefix}{name}.")
