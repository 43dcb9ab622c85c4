"""A plan attached to a model."""

from torch import nn

from fairseq_compress.errors import ConfigError
from fairseq_compress.modules.activation_quantizer import ActivationQuantizer, quantize_input
from fairseq_compress.modules.attention import HookableMultiheadAttention
from fairseq_compress.parametrizations.attach import attach, original_of, tied_modules
from fairseq_compress.plans.rules import ActivationRule, Plan
from fairseq_compress.selection import select


def attach_plan(plan: Plan, model: nn.Module, filled: bool) -> None:
    """Compress a model in place. Weights and biases keep their names in the state dict.

    Modules that share a weight share its transform: a rule that picks one of them has them all.

    Args:
        filled: whether the model's weights are trained ones; else they are still to be loaded.

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
                transform = rule.transform(original_of(groups[group][first]).detach(), filled)
            except ValueError as error:
                raise ConfigError(f"weights[{number}].{error} (of {first})") from None
            attach(groups[group], transform)
    _quantize_inputs(plan.activations, model)


def _quantize_inputs(rules: tuple[ActivationRule, ...], model: nn.Module) -> None:
    modules = dict(model.named_modules())
    linear = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
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
            quantize_input(modules[name], ActivationQuantizer(rule.bits, rule.decay))
