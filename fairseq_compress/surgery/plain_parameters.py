"""A model's parameters as those of the plain transformer that computes the same.

There a compressed weight is what it is worth in evaluation, a structured one (low-rank, sparse, tensor-train) is dense,
and layers that share their parameters have them all.
"""

from collections.abc import Hashable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fairseq_compress.functional.ties import identity
from fairseq_compress.modules.layer_sharing import state_of_all_layers
from fairseq_compress.modules.structured import StructuredWeight, structured_modules
from fairseq_compress.weights.groups import PLAIN, chain_of, effective_state, parameter_of

BIAS = "bias"


class PlainParameter(NamedTuple):
    """A parameter of the plain model."""

    shape: tuple[int, ...]
    identity: frozenset[Hashable]
    """Of what it is made of: equal for names that share it."""


def plain_parameters(model: nn.Module) -> dict[str, PlainParameter]:
    """Every parameter under each of its names, in the model's order."""
    return dict(_collect(model, ""))


def plain_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of :func:`plain_parameters`."""
    return {name: parameter.shape for name, parameter in plain_parameters(model).items()}


@torch.no_grad()
def dense_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of the plain model that computes what this one computes in evaluation; ties stay ties.

    The model is put into evaluation.
    """
    state = state_of_all_layers(model, effective_state(model))
    structured = structured_modules(model)
    parameters = plain_parameters(model)
    made: dict[frozenset[Hashable], Tensor] = {}
    dense: dict[str, Tensor] = {}
    for key, value in state.items():
        owner = _owner(key, structured)
        if owner is None:
            dense[key] = value
            continue
        key_of_weight = parameters[f"{owner}.{PLAIN}"].identity
        if key_of_weight not in made:
            made[key_of_weight] = structured[owner].dense_weight().detach()
        dense.setdefault(f"{owner}.{PLAIN}", made[key_of_weight])
        bias = getattr(structured[owner], BIAS, None)
        if bias is not None:
            dense.setdefault(f"{owner}.{BIAS}", bias.detach())
    return dense


def _owner(key: str, structured: dict[str, StructuredWeight]) -> str | None:
    """The structured layer to which a key belongs."""
    name = key
    while "." in name:
        name = name.rpartition(".")[0]
        if name in structured:
            return name
    return None


def _collect(module: Any, prefix: str) -> Iterator[tuple[str, PlainParameter]]:
    if isinstance(module, StructuredWeight):
        bias = getattr(module, BIAS, None)
        weight = frozenset(identity(parameter) for parameter in module.parameters() if parameter is not bias)
        yield prefix + PLAIN, PlainParameter(module.dense_shape, weight)
        if bias is not None:
            yield prefix + BIAS, PlainParameter(tuple(bias.shape), frozenset([identity(bias)]))
        return
    if chain_of(module) is not None:
        yield prefix + PLAIN, PlainParameter(_dense_shape(module), frozenset([identity(parameter_of(module))]))
    for name, parameter in module._parameters.items():
        if parameter is not None:
            yield prefix + name, PlainParameter(tuple(parameter.shape), frozenset([identity(parameter)]))
    for name, child in module._modules.items():  # also those that appear twice
        if child is not None and name != "parametrizations":
            yield from _collect(child, f"{prefix}{name}.")


def _dense_shape(module: Any) -> tuple[int, int]:
    """Of a weight whose parameter may be centroids."""
    if isinstance(module, nn.Embedding):
        return module.num_embeddings, module.embedding_dim
    return module.out_features, module.in_features
