"""Weights of a model with the modules that share them, and chains of transforms on them.

A chain is a parametrization (torch.nn.utils.parametrize), which every reader of ``module.weight`` sees. The state dict
has the names of the plain model.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.ties import tied_groups
from fairseq_compress.weights.chain import STATE_NAMES, Chain, WeightTransform
from fairseq_compress.weights.noise import NoisyTransform

PLAIN = "weight"
_ORIGINAL, _CHAIN = "parametrizations.weight.original", "parametrizations.weight.0."


class RowwiseEmbedding(nn.Embedding):
    """An embedding that transforms only the rows that a batch uses."""

    def forward(self, input: Tensor) -> Tensor:
        chain, table = chain_of(self), parameter_of(self)
        if chain is None or chain.idle:
            return F.embedding(input, table, self.padding_idx)
        if chain.cached:
            return F.embedding(input, self.weight)
        used, places = torch.unique(input, return_inverse=True)
        return F.embedding(places, chain.rows(used, table, self.padding_idx))


@dataclass(frozen=True)
class WeightGroup:
    """All linear layers and embeddings that share one weight."""

    modules: dict[str, nn.Module]
    """By their names, in the model's order."""

    @property
    def name(self) -> str:
        """Name of the first module."""
        return next(iter(self.modules))

    @property
    def parameter(self) -> nn.Parameter:
        """The trained parameter: the weight or, for example, its centroids."""
        return parameter_of(self.modules[self.name])

    @property
    def chain(self) -> Chain | None:
        """The transforms, or None."""
        return chain_of(self.modules[self.name])

    def attach(self, *transforms: WeightTransform) -> None:
        """Attach a chain of transforms to the weight."""
        for name, module in self.modules.items():
            if (other := chain_of(module)) is not None:
                raise ConfigError(
                    f"{name}: its weight has a transform already, {', '.join(map(str, other.children()))}: give the "
                    "plain model (fairseq-compress materialize)"
                )
            if isinstance(module, nn.Embedding) and (
                module.max_norm is not None or module.scale_grad_by_freq or module.sparse
            ):
                raise ConfigError(f"{name}: an embedding with max_norm, scale_grad_by_freq or sparse has no transform")
        chain = Chain(*transforms)
        if chain.mask is not None:
            chain.mask.begin(self.parameter)
        for module in dict.fromkeys(self.modules.values()):
            if type(module) is nn.Embedding:
                module.__class__ = RowwiseEmbedding
            parametrize.register_parametrization(module, "weight", chain, unsafe=True)
            module._register_state_dict_hook(_to_plain_names)
            module.register_load_state_dict_pre_hook(_from_plain_names)


def weight_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Every linear layer and embedding by each of its names, in the model's order."""
    modules = model.named_modules(remove_duplicate=False)
    return {name: module for name, module in modules if isinstance(module, (nn.Linear, nn.Embedding))}


def weight_groups(model: nn.Module) -> list[WeightGroup]:
    """The modules of :func:`weight_modules`, those that share a weight together."""
    modules = weight_modules(model)
    groups = tied_groups({name: parameter_of(module) for name, module in modules.items()})
    return [WeightGroup({name: modules[name] for name in names}) for names in groups]


def compressed_groups(model: nn.Module) -> Iterator[tuple[WeightGroup, Chain]]:
    """The groups that have a chain."""
    for group in weight_groups(model):
        if (chain := group.chain) is not None:
            yield group, chain


def chain_of(module: Any) -> Chain | None:
    """The transforms of the weight of a module, or None."""
    if not parametrize.is_parametrized(module, "weight"):
        return None
    return module.parametrizations["weight"][0]


def parameter_of(module: Any) -> nn.Parameter:
    """The trained parameter of the weight of a module."""
    return module.weight if chain_of(module) is None else module.parametrizations["weight"].original


def weight_before_noise(module: Any) -> Tensor:
    """The weight of a module before noise or fake quantization."""
    chain = chain_of(module)
    noisy = None if chain is None else chain.compression
    if chain is None or not isinstance(noisy, NoisyTransform):
        return module.weight
    return chain.before(noisy, parameter_of(module))


@torch.no_grad()
def effective_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of the equivalent plain model, with ties. Sets the model to evaluation."""
    model.eval()
    weights: dict[str, tuple[str, Tensor]] = {}  # key of what is trained -> key and value of the weight
    for group, chain in compressed_groups(model):
        weight = chain(group.parameter)
        weights |= {f"{name}.{chain.trained_name}": (f"{name}.{PLAIN}", weight) for name in group.modules}
    own = tuple(f".{name}" for name in STATE_NAMES.values())
    state = {key: value for key, value in model.state_dict().items() if not any(name in key for name in own)}
    return dict(weights.get(key, (key, value)) for key, value in state.items())


def _names(chain: Chain, prefix: str) -> Iterator[tuple[str, str]]:
    """Prefixes of keys of the state dict: torch's names, the plain model's."""
    for place in chain._modules:
        yield f"{prefix}{_CHAIN}{place}.", prefix + STATE_NAMES[place]


def _to_plain_names(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Rename the keys of this module, the last ones so far, in the order of the plain model."""
    chain = chain_of(module)
    assert chain is not None
    own = {key: state.pop(key) for key in [key for key in state if key.startswith(prefix)]}
    state[prefix + chain.trained_name] = own.pop(prefix + _ORIGINAL)
    for key, value in own.items():
        for torch_name, name in _names(chain, prefix):
            key = key.replace(torch_name, name, 1)
        state[key] = value


def _from_plain_names(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    chain = chain_of(module)
    assert chain is not None
    chain.take_plain(state, prefix)
    for key in [key for key in state if key.startswith(prefix)]:
        if key == prefix + chain.trained_name:
            state[prefix + _ORIGINAL] = state.pop(key)
        for torch_name, name in _names(chain, prefix):
            if key.startswith(name):
                state[torch_name + key.removeprefix(name)] = state.pop(key)
