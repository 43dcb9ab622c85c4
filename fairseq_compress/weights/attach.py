"""A plan attached to a model."""

import logging
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from fairseq_compress.errors import ConfigError
from fairseq_compress.modules.activation_quantizer import RANGE, ActivationQuantizer, quantize_input
from fairseq_compress.modules.attention import HookableMultiheadAttention
from fairseq_compress.modules.factorized_embedding import FactorizedEmbedding
from fairseq_compress.modules.factorized_output import FactorizedOutput
from fairseq_compress.modules.positions import follow
from fairseq_compress.modules.sparse_linear import SparseLinear
from fairseq_compress.modules.tensor_train_embedding import TensorTrainEmbedding
from fairseq_compress.selection import select
from fairseq_compress.weights.chain import MASK, STATE_NAMES, STORAGE, WeightTransform
from fairseq_compress.weights.groups import WeightGroup, chain_of, weight_groups
from fairseq_compress.weights.rules import ActivationRule, Plan, WeightRule

logger = logging.getLogger(__name__)


def attach_plan(plan: Plan, model: nn.Module) -> None:
    """Compress a model in place before its weights are loaded; modules that share a weight share its rule."""
    groups = weight_groups(model)
    group_of = {name: number for number, group in enumerate(groups) for name in group.modules}
    chosen: dict[int, dict[bool, tuple[str, WeightTransform]]] = {}
    for number, rule in enumerate(plan.weights):
        place = f"weights[{number}].modules"
        for picked in dict.fromkeys(group_of[name] for name in select(group_of, rule.modules, place)):
            taken, is_mask = chosen.setdefault(picked, {}), rule.place == MASK
            if is_mask in taken:
                raise ConfigError(f"{place}: {groups[picked].name} is picked by {taken[is_mask][0]} already")
            taken[is_mask] = place, _transform(rule, groups[picked], f"weights[{number}]")
        _warn_of_left(rule.modules, model)
    for picked, taken in chosen.items():
        groups[picked].attach(*(transform for _, transform in taken.values()))
    _quantize_inputs(plan.activations, model)


def _transform(rule: WeightRule, group: WeightGroup, place: str) -> WeightTransform:
    rows, columns = group.parameter.shape
    try:
        return rule.transform(rows, columns, group.name)
    except ValueError as error:
        raise ConfigError(f"{place}.{error} (of {group.name})") from None


def _warn_of_left(patterns: Sequence[str], model: nn.Module) -> None:
    """Warn of sparse layers and tensor trains, which no pattern selects."""
    kinds = (SparseLinear, TensorTrainEmbedding)
    names = [name for name, module in model.named_modules() if isinstance(module, kinds)]
    left = [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if left:
        logger.warning(
            "compression plan: %d layers that match %s are not compressed, being sparse or tensor trains: %s",
            len(left), ", ".join(patterns), left[0] + (", ..." if len(left) > 1 else ""),
        )  # fmt: skip


def refuse_other_compression(model: nn.Module, state: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    """Refuse a state dict with centroids, masks or ranges that the model does not have."""
    modules = dict(model.named_modules(remove_duplicate=False))
    for key in (name.removeprefix(prefix) for name in state if name.startswith(prefix)):
        for mark, place, has in (
            (".weight_centroids", STORAGE, "is made of centroids"),
            (f".{STATE_NAMES[MASK]}bits", MASK, "has a mask"),
            (RANGE, None, "has a range for its input"),
        ):
            layer = key.removesuffix(mark)
            if layer == key or _has_place(modules, layer, place):
                continue
            raise ConfigError(
                f"compression plan: in the checkpoint {layer} {has}, for which this model's plan has no place: give "
                "the plan of the checkpoint (--compression-plan), or its plain model (fairseq-compress materialize)"
            )


def _has_place(modules: Mapping[str, nn.Module], layer: str, place: str | None) -> bool:
    if place is None:
        return layer + RANGE.rpartition(".")[0] in modules
    chain = chain_of(modules[layer]) if layer in modules else None
    return chain is not None and place in chain._modules


def _quantize_inputs(rules: tuple[ActivationRule, ...], model: nn.Module) -> None:
    modules = dict(model.named_modules())
    # A factorized output multiplies by the transpose of its second factor, which is not called.
    not_called = {module.expand for module in modules.values() if isinstance(module, FactorizedOutput)}
    not_called -= {module.expand for module in modules.values() if isinstance(module, FactorizedEmbedding)}
    linear = [name for name, module in modules.items() if isinstance(module, nn.Linear) and module not in not_called]
    taken: dict[str, str] = {}
    for number, rule in enumerate(rules):
        place = f"activations[{number}].modules"
        for name in select(linear, rule.modules, place):
            if name in taken:
                raise ConfigError(f"{place}: {name} is picked by {taken[name]} already")
            taken[name] = place
            parent = modules[name.rpartition(".")[0]]
            if hasattr(parent, "k_proj") and not isinstance(parent, HookableMultiheadAttention):
                raise ConfigError(
                    f"{place}: {name} is not called as a module by fairseq's own attention, so its input cannot be "
                    "quantized; use one of our architectures, such as transformer_small, or leave it out"
                )
            # Layers of fairseq's encoders and decoders get (T, B, C), everything else (B, T, C).
            quantize_input(modules[name], ActivationQuantizer(rule.bits, rule.decay, time_first=".layers." in name))
    if rules and follow(model) == 0:
        raise ConfigError("activations: requires a model with an encoder or a decoder, got one with neither")
