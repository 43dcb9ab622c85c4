"""Transforms on the weights of a model, with the state dict of the plain model (torch.nn.utils.parametrize).

A parametrization is seen by every reader of ``module.weight``, also by fairseq's attention, which hands the weights of
its projections to a function without ever calling the projections.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fairseq_compress.errors import ConfigError
from fairseq_compress.weights.transform import WeightTransform

ORIGINAL, TRANSFORM = "parametrizations.weight.original", "parametrizations.weight.0."
PLAIN, PLAIN_TRANSFORM = "weight", "weight_transform."


class RowwiseEmbedding(nn.Embedding):
    """An embedding that transforms the rows which a batch uses, and no others."""

    def forward(self, input: Tensor) -> Tensor:
        transform, table = transform_of(self), original_of(self)
        if transform is None or transform.idle:
            return F.embedding(input, table, self.padding_idx)
        if transform.keeps:
            return F.embedding(input, self.weight)
        used, places = torch.unique(input, return_inverse=True)
        return F.embedding(places, transform.rows(used, table, self.padding_idx))


def weight_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Every linear layer and embedding by each of its names, in the model's order."""
    modules = model.named_modules(remove_duplicate=False)
    return {name: module for name, module in modules if isinstance(module, (nn.Linear, nn.Embedding))}


def transform_of(module: nn.Module) -> WeightTransform | None:
    """The transform on the weight of a module, if there is one."""
    if not parametrize.is_parametrized(module, "weight"):
        return None
    return _transform(module)


def original_of(module: nn.Module) -> nn.Parameter:
    """The parameter behind the weight of a module."""
    weight: Any = module.weight if transform_of(module) is None else _parametrizations(module).original
    return weight


def _transform(module: nn.Module) -> WeightTransform:
    transform: WeightTransform = _parametrizations(module)[0]
    return transform


def _parametrizations(module: Any) -> Any:
    return module.parametrizations["weight"]


def tied_modules(model: nn.Module) -> list[dict[str, nn.Module]]:
    """The modules of :func:`weight_modules`, those that share their weight together."""
    groups: dict[int, dict[str, nn.Module]] = {}
    for name, module in weight_modules(model).items():
        groups.setdefault(id(original_of(module)), {})[name] = module
    return list(groups.values())


def attach(modules: dict[str, nn.Module], transform: WeightTransform) -> None:
    """Put a transform on the weight that all these modules share.

    Raises:
        ConfigError: a module has a transform already, or is an embedding with options that rows cannot keep.
    """
    for name, module in modules.items():
        if transform_of(module) is transform:  # under another name, done
            continue
        if transform_of(module) is not None:
            raise ConfigError(
                f"{name}: its weight has a transform already, {transform_of(module)}: give the plain model "
                "(fairseq-compress materialize)"
            )
        if isinstance(module, nn.Embedding):
            if module.max_norm is not None or module.scale_grad_by_freq or module.sparse:
                raise ConfigError(f"{name}: an embedding with max_norm, scale_grad_by_freq or sparse has no transform")
            if type(module) is nn.Embedding:
                module.__class__ = RowwiseEmbedding
        parametrize.register_parametrization(module, "weight", transform, unsafe=True)
        module._register_state_dict_hook(_to_plain_names)
        module.register_load_state_dict_pre_hook(_from_plain_names)


def transforms(model: nn.Module) -> Iterator[tuple[dict[str, nn.Module], WeightTransform]]:
    """Every transform of a model, with the modules that share it."""
    for group in tied_modules(model):
        transform = transform_of(next(iter(group.values())))
        if transform is not None:
            yield group, transform


@torch.no_grad()
def effective_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of the plain model that computes what this one computes in evaluation; ties stay ties.

    The model is put into evaluation.
    """
    model.eval()
    state: dict[str, Tensor] = model.state_dict()
    weights: dict[str, tuple[str, Tensor]] = {}  # key of what is trained -> key and value of the weight
    for group, transform in transforms(model):
        weight = transform(original_of(next(iter(group.values()))))
        weights |= {f"{name}.{transform.trained_name}": (f"{name}.{PLAIN}", weight) for name in group}
    plain = {}
    for key, value in state.items():
        if key in weights:
            name, weight = weights[key]
            plain[name] = weight
        elif f".{PLAIN_TRANSFORM}" not in key:
            plain[key] = value
    return plain


def _to_plain_names(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Only the keys of this module, which are the last ones so far, move: the order is that of the plain model."""
    own = {key: state.pop(key) for key in [key for key in state if key.startswith(prefix)]}
    state[prefix + _transform(module).trained_name] = own.pop(prefix + ORIGINAL)
    for key, value in own.items():
        state[key.replace(prefix + TRANSFORM, prefix + PLAIN_TRANSFORM, 1)] = value


def _from_plain_names(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    transform = _transform(module)
    if prefix + PLAIN in state:
        transform.take_plain(state, prefix)
    for key in [key for key in state if key.startswith(prefix)]:
        if key == prefix + transform.trained_name:
            state[prefix + ORIGINAL] = state.pop(key)
        elif key.startswith(prefix + PLAIN_TRANSFORM):
            state[key.replace(prefix + PLAIN_TRANSFORM, prefix + TRANSFORM, 1)] = state.pop(key)
