"""What a runtime does not support, by the options of a transformer."""

from collections.abc import Collection, Iterable
from typing import Any


def unsupported_options(values: dict[str, Any], activations: Collection[str], switches: Iterable[str]) -> list[str]:
    """Options of a model that a runtime does not support.

    Args:
        values: of :func:`fairseq_compress.checkpoint.materialize.model_values`.
        activations: those that the runtime supports.
        switches: options that must be off.
    """
    reasons = []
    if values["activation_fn"] not in activations:
        reasons.append(f"--activation-fn {values['activation_fn']}")
    reasons += [f"--{option.replace('_', '-')}" for option in switches if values.get(option)]
    if values.get("adaptive_softmax_cutoff"):
        reasons.append("--adaptive-softmax-cutoff")
    return reasons
