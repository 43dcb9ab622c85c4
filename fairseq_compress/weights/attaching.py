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
from fairseq_compress.weights.attach import attach, original_of, tied_modules, transform_of
from fairseq_compress.weights.methods.codebook import Codebook
from fairseq_compress.weights.rules import ActivationRule, Plan

logger = logging.getLogger(__name__)


def attach_plan(plan: Plan, model: nn.Module) -> None:
    """Compress a model in place, whose weights are still to be loaded. They keep their names in the state dict.

    Modules that share a weight share its transform: a rule that picks one of them has them all.

    Raises:
        ConfigError: a pattern picks nothing, two rules pick one weight, or a rule does not fit what it picks.
    """
    groups = tied_modules(model)
    group_of = {name: number for number, group in enumerate(groups) for name in group}
    taken: dict[int, str] = {}
    for number, rule in enumerate(plan.weights):
        place = f"weights[{number}].modules"
        for group in dict.fromkeys(group_of[name] for name in select(group_of, rule.modules, place)):
            first = next(iter(groups[group]))
            if group in taken:
                raise ConfigError(f"{place}: {first} is picked by {taken[group]} already")
            taken[group] = place
            try:
                transform = rule.transform(*original_of(groups[group][first]).shape)
            except ValueError as error:
                raise ConfigError(f"weights[{number}].{error} (of {first})") from None
            attach(groups[group], transform)
        _warn_of_left(rule.modules, model)
    _quantize_inputs(plan.activations, model)


def _warn_of_left(patterns: Sequence[str], model: nn.Module) -> None:
    """Sparse layers and tensor trains have no matrix for a transform, so no pattern picks them."""
    kinds = (SparseLinear, TensorTrainEmbedding)
    names = [name for name, module in model.named_modules() if isinstance(module, kinds)]
    left = [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if left:
        logger.warning(
            "compression plan: %d layers that %s matches stay as they are, for they are sparse or a tensor train: %s",
            len(left), ", ".join(patterns), left[0] + (", ..." if len(left) > 1 else ""),
        )  # fmt: skip


def refuse_other_compression(model: nn.Module, state: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    """Refuse a state dict with centroids or ranges for which the model has no place; called before it is loaded.

    ``prefix`` begins the keys of this model, where it is part of another.

    Raises:
        ConfigError: names the first.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    for key in (name.removeprefix(prefix) for name in state if name.startswith(prefix)):
        layer, last = key.rpartition(".")[::2]
        if last == Codebook.trained_name and not (
            layer in modules and isinstance(transform_of(modules[layer]), Codebook)
        ):
            has = "is made of centroids"
        elif key.endswith(RANGE) and layer not in modules:
            layer, has = key.removesuffix(RANGE), "has a range for its input"
        else:
            continue
        raise ConfigError(
            f"compression plan: in the checkpoint {layer} {has}, for which this model's plan has no place: give "
            "the plan of the checkpoint (--compression-plan), or its plain model (fairseq-compress materialize)"
        )


def _quantize_inputs(rules: tuple[ActivationRule, ...], model: nn.Module) -> None:
    modules = dict(model.named_modules())
    # A factorized output multiplies by the transpose of its second factor, which is not called.
    not_called = {id(module.expand) for module in modules.values() if isinstance(module, FactorizedOutput)}
    not_called -= {id(module.expand) for module in modules.values() if isinstance(module, FactorizedEmbedding)}
    linear = [
        name for name, module in modules.items() if isinstance(module, nn.Linear) and id(module) not in not_called
    ]
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
                    f"{place}: {name} is not called as a module by fairseq's own attention, so that its input cannot "
                    "be quantized; use one of our architectures, such as transformer_small, or leave it out"
                )
            # Layers of fairseq's encoders and decoders get (T, B, C), what is before and behind them (B, T, C).
            quantize_input(modules[name], ActivationQuantizer(rule.bits, rule.decay, time_first=".layers." in name))
    if rules and follow(model) == 0:
        raise ConfigError("activations: must be those of a model with an encoder or a decoder, got one with neither")
