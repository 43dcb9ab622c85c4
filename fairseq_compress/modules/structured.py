"""Layers whose weight W is computed from fewer numbers: low-rank, sparse, tensor-train.

W is not a parameter. A state dict with a dense ``weight`` loads as its best approximation.
"""

import logging
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)
WEIGHT = "weight"


class StructuredWeight(nn.Module):
    """A linear layer or an embedding whose weight W is not a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(_from_dense)

    @property
    @abstractmethod
    def dense_shape(self) -> tuple[int, int]:
        """Of W: (outputs, inputs) of a linear layer, (entries, width) of an embedding."""

    @abstractmethod
    def dense_weight(self) -> Tensor:
        """W, in the shape :attr:`dense_shape`, with its graph. Only a loss of weights calls it in training."""

    @abstractmethod
    def approximation(self, weight: Tensor) -> dict[str, Tensor]:
        """The layer's own parameters, by their names in its state dict, that come closest to a dense ``weight``."""

    @property
    @abstractmethod
    def multiply_adds(self) -> int:
        """Multiply-adds of a forward pass for one row of the input, of an embedding for one token."""

    @property
    def generation_multiply_adds(self) -> int:
        """The same after ``make_generation_fast_``."""
        return self.multiply_adds


def structured_modules(model: nn.Module) -> dict[str, StructuredWeight]:
    """Every structured layer of a model under each of its names."""
    modules = model.named_modules(remove_duplicate=False)
    return {name: module for name, module in modules if isinstance(module, StructuredWeight)}


@torch.no_grad()
def relative_error(module: StructuredWeight, weight: Tensor) -> float:
    """‖W - Ŵ‖ / ‖W‖ (Frobenius) of a dense ``weight`` W and that of the layer Ŵ; 0 for W = 0."""
    exact = weight.double()
    norm = exact.norm()
    return float((exact - module.dense_weight().double()).norm() / norm) if norm > 0 else 0.0


@torch.no_grad()
def _from_dense(module: StructuredWeight, state: dict[str, Any], prefix: str, *_: Any) -> None:
    weight = state.get(prefix + WEIGHT)
    if weight is None or tuple(weight.shape) != module.dense_shape:  # of another shape: load_state_dict refuses it
        return
    del state[prefix + WEIGHT]
    state.update({prefix + name: value for name, value in module.approximation(weight).items()})
    logger.info("%s: approximated from a dense weight", prefix.removesuffix("."))
