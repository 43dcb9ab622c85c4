"""The chain of transforms from a trained parameter to the weight of a model.

    trained parameter → storage (centroids are looked up) → mask or gate → noise or fake quantization → weight

Each place has at most one transform, and a weight has storage or quantization, not both.
"""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_compress.modules.evaluation_cache import EvaluationCache
from fairseq_compress.weights.packed import Packed, pack_plain

STORAGE, MASK, QUANTIZATION = "storage", "mask", "quantization"
STATE_NAMES = {STORAGE: "weight_transform.", MASK: "weight_mask.", QUANTIZATION: "weight_transform."}
"""Place -> prefix of a transform's keys in the state dict of the module."""


class WeightTransform(nn.Module):
    """A weight ``(R, C)`` to one of the same shape. Nothing is random in evaluation."""

    place = QUANTIZATION

    @property
    def idle(self) -> bool:
        """Whether the weight is returned unchanged."""
        return False

    def forward(self, weight: Tensor) -> Tensor:
        """The transformed weight ``(R, C)``."""
        return weight if self.idle else self.whole(weight)

    def whole(self, weight: Tensor) -> Tensor:
        """The transformed weight, where the transform is not idle."""
        raise NotImplementedError

    def rows(self, rows: Tensor, used: Tensor, weight: Callable[[], Tensor]) -> Tensor:
        """Some rows ``(N, C)`` of the transformed weight.

        Args:
            rows: the same rows before this transform.
            used: their numbers ``(N,)``.
            weight: computes the whole weight before this transform.
        """
        raise NotImplementedError

    def pack(self, weight: Tensor) -> Packed:
        """The packed form of the weight, given as it is before this transform."""
        return pack_plain(weight)


class Chain(nn.Module):
    """The transforms of a weight, for all modules that share it: a parametrization of ``torch.nn.utils.parametrize``.

    After ``make_generation_fast_`` the weight is cached.
    """

    def __init__(self, *transforms: WeightTransform) -> None:
        super().__init__()
        self.storage: Any = None  # a Codebook
        self.mask: Any = None  # a Mask
        self.quantization: Any = None
        for transform in transforms:
            setattr(self, transform.place, transform)
        self.cache = EvaluationCache()

    @property
    def compression(self) -> Any:
        """The transform of storage or quantization."""
        return self.storage or self.quantization

    @property
    def trained_name(self) -> str:
        """Name of the trained parameter in the state dict of a module."""
        return "weight" if self.storage is None else str(self.storage.trained_name)

    @property
    def cached(self) -> bool:
        """Whether :meth:`forward` uses the cache."""
        return self.cache.enabled and not self.training

    @property
    def idle(self) -> bool:
        """Whether the parameter is the weight."""
        return all(transform.idle for transform in self.children())

    def forward(self, parameter: Tensor) -> Tensor:
        """The weight ``(R, C)``."""
        if not self.cached:
            return self.before(None, parameter)
        sources = [parameter] if self.mask is None else [parameter, *self.mask.buffers()]
        # With requires_grad as of a parameter: torch chooses between two kernels by it, which differ in the last digit.
        return self.cache.get(
            "weight", sources, lambda: self.before(None, parameter).detach().requires_grad_(parameter.requires_grad)
        )

    def before(self, last: WeightTransform | None, parameter: Tensor) -> Tensor:
        """The input of the transform ``last``; None: the weight of the model."""
        weight = parameter if self.storage is None else self.storage(parameter)
        for transform in self._after_storage():
            if transform is last:
                break
            weight = transform(weight)
        return weight

    def rows(self, used: Tensor, parameter: Tensor, padding: int | None) -> Tensor:
        """Rows ``(N, C)`` of the weight with the numbers ``used`` (N,); the row of the padding gives no gradient."""
        lookup = F.embedding if self.storage is None else self.storage.lookup
        rows: Tensor = lookup(used, parameter, padding)
        for transform in self._after_storage():
            if not transform.idle:
                rows = transform.rows(rows, used, lambda last=transform: self.before(last, parameter))  # type: ignore[misc]
        return rows

    def _after_storage(self) -> list[WeightTransform]:
        return [transform for transform in (self.mask, self.quantization) if transform is not None]

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The initial value of the trained parameter; called by torch."""
        return weight if self.storage is None else self.storage.start

    def take_plain(self, state: dict[str, Tensor], prefix: str) -> None:
        """Complete a state dict of the plain model with the parameters and buffers of this chain."""
        weight = state.get(f"{prefix}weight")
        if self.mask is not None:
            weight = self.mask.take_plain(weight, state, prefix)
        if self.storage is not None and weight is not None:
            self.storage.take_plain(weight, state, prefix)

    def pack(self, parameter: Tensor) -> Packed:
        """The packed form of the weight."""
        last = self.compression
        weight = parameter if self.storage is not None else self.before(last, parameter)
        packed: Packed = pack_plain(weight) if last is None else last.pack(weight)
        return packed if self.mask is None else self.mask.pack_masked(packed)

    def make_generation_fast_(self, **kwargs: Any) -> None:
        self.cache.enabled = True
