"""A compression plan: rules for weights and activations. docs/compression-plans.md explains every key."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, TypeVar

from fairseq_compress.functional.quantization.linear import BITS
from fairseq_compress.options import option
from fairseq_compress.weights.chain import QUANTIZATION, WeightTransform


@dataclass(frozen=True)
class WeightRule:
    """How the weights of some modules are compressed."""

    modules: tuple[str, ...]
    """Patterns of names (:func:`fairseq_compress.selection.select`)."""
    method: str = "linear"
    _: KW_ONLY
    stage: int = option(1, "stage in which the rule begins", range="[1, inf)")

    place: ClassVar[str] = QUANTIZATION
    """Of its transform in the chain."""

    def transform(self, rows: int, columns: int, name: str = "") -> WeightTransform:
        """A new transform of a weight ``(R, C)`` that is still to be loaded.

        Args:
            name: of the weight's first module.
        """
        raise NotImplementedError


METHODS: dict[str, type[WeightRule]] = {}
Rule = TypeVar("Rule", bound=type[WeightRule])


def method(name: str) -> Callable[[Rule], Rule]:
    """Register a rule as the value ``name`` of the key ``method`` of a plan."""

    def register(rule: Rule) -> Rule:
        METHODS[name] = rule
        return rule

    return register


@dataclass(frozen=True)
class ActivationRule:
    """How the inputs of some linear layers are quantized."""

    modules: tuple[str, ...]
    bits: int = option(8, "bits of an integer", range=BITS)
    decay: float = option(0.9999, "of the moving average of the range", range="[0, 1)")
    _: KW_ONLY
    stage: int = option(1, "stage in which the rule begins", range="[1, inf)")


@dataclass(frozen=True)
class Plan:
    """A compression plan."""

    weights: tuple[WeightRule, ...] = ()
    activations: tuple[ActivationRule, ...] = ()

    def stages(self) -> list[int]:
        """Numbers of the stages, ascending."""
        return sorted({rule.stage for rules in (self.weights, self.activations) for rule in rules})

    def until(self, stage: int) -> "Plan":
        """The rules that have begun in a stage."""
        begun = [tuple(rule for rule in rules if rule.stage <= stage) for rules in (self.weights, self.activations)]
        return Plan(*begun)  # type: ignore[arg-type]
