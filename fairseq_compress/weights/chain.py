"""The chain of transforms between what is trained and the weight that a model computes with.

    trained parameter → storage (centroids are looked up) → mask or gate → noise or fake quantization → weight

Each place has at most one transform. Of storage and quantization a weight has one.
"""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_compress.modules.evaluation_cache import EvaluationCache
from fairseq_compress.weights.packed import Packed, pack_plain

STORAGE, MASK, QUANTIZATION = "storage", "mask", "quantization"
STATE_NAMES = {STORAGE: "weight_transform.", MASK: "weight_mask.", QUANTIZATION: "weight_transform."}
"""Place -> how the keys of a transform begin in the state dict of the module."""


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


class StorageTransform(WeightTransform):
    """A transform whose parameter is trained in place of the weight."""

    place = STORAGE
    trained_name: str
    """Of the parameter, in the state dict of the module."""
    start: Tensor
    """Its initial value."""

    def lookup(self, used: Tensor, parameter: Tensor, padding: int | None) -> Tensor:
        """Rows ``(N, C)`` of the weight; the row of the padding gives no gradient."""
        raise NotImplementedError

    def take_plain(self, weight: Tensor, state: dict[str, Tensor], prefix: str) -> None:
        """Replace a plain weight in a state dict by the parameter and buffers of this transform."""
        raise NotImplementedError


class MaskTransform(WeightTransform):
    """A transform that removes entries of the weight."""

    place = MASK

    def kept(self) -> Tensor:
        """The mask ``(R, C)``, bool: True is kept."""
        raise NotImplementedError

    def begin(self, weight: Tensor) -> None:
        """Make the mask of the weight to which the chain is attached."""
        raise NotImplementedError

    def take_plain(self, weight: Tensor | None, state: dict[str, Tensor], prefix: str) -> Tensor | None:
        """Complete a state dict that has no mask; returns the masked weight."""
        raise NotImplementedError

    def pack_masked(self, packed: Packed) -> Packed:
        """The packed form with its mask."""
        raise NotImplementedError


class Chain(nn.Module):
    """The transforms of a weight, for all modules that share it: a parametrization of ``torch.nn.utils.parametrize``.

    After ``make_generation_fast_``, which fairseq calls before it generates, the weight is computed once.
    """

    def __init__(self, *transforms: WeightTransform) -> None:
        super().__init__()
        for transform in transforms:
            self.add_module(transform.place, transform)
        found: list[Any] = [self._modules.get(place) for place in (STORAGE, MASK, QUANTIZATION)]
        self._of_place: tuple[StorageTransform | None, MaskTransform | None, WeightTransform | None] = tuple(found)
        self._steps = tuple(transform for transform in found[1:] if transform is not None)
        self.cache = EvaluationCache()

    @property
    def places(self) -> list[str]:
        """Of its transforms."""
        return list(self._modules)

    @property
    def compression(self) -> WeightTransform | None:
        """The transform of storage or quantization."""
        storage, _, quantization = self._of_place
        return storage or quantization

    @property
    def masking(self) -> MaskTransform | None:
        """The transform that removes entries."""
        return self._of_place[1]

    @property
    def trained_name(self) -> str:
        """Of what is trained, in the state dict of a module."""
        storage = self._of_place[0]
        return "weight" if storage is None else storage.trained_name

    @property
    def cached(self) -> bool:
        """Whether :meth:`forward` only looks up its result."""
        return self.cache.enabled and not self.training

    @property
    def idle(self) -> bool:
        """Whether the parameter is the weight."""
        return self._of_place[0] is None and all(step.idle for step in self._steps)

    def forward(self, parameter: Tensor) -> Tensor:
        """The weight ``(R, C)``."""
        if self.idle:
            return parameter
        if not self.cached:
            return self.before(None, parameter)
        sources = [parameter] if self.masking is None else [parameter, *self.masking.buffers()]
        # With requires_grad as of a parameter: torch chooses between two kernels by it, which differ in the last digit.
        return self.cache.get(
            "weight", sources, lambda: self.before(None, parameter).detach().requires_grad_(parameter.requires_grad)
        )

    def before(self, last: WeightTransform | None, parameter: Tensor) -> Tensor:
        """The weight as one of the transforms gets it; None: as the model gets it."""
        storage = self._of_place[0]
        weight = parameter if storage is None else storage(parameter)
        for step in self._steps:
            if step is last:
                break
            weight = step(weight)
        return weight

    def rows(self, used: Tensor, parameter: Tensor, padding: int | None) -> Tensor:
        """Rows ``(N, C)`` of the weight with the numbers ``used`` (N,); the row of the padding gives no gradient."""
        storage = self._of_place[0]
        rows = F.embedding(used, parameter, padding) if storage is None else storage.lookup(used, parameter, padding)
        for step in self._steps:
            if not step.idle:
                rows = step.rows(rows, used, lambda step=step: self.before(step, parameter))  # type: ignore[misc]
        return rows

    def right_inverse(self, weight: Tensor) -> Tensor:
        """What is trained in place of the weight: called by torch when the chain is attached."""
        storage = self._of_place[0]
        return weight if storage is None else storage.start

    def take_plain(self, state: dict[str, Tensor], prefix: str) -> None:
        """Complete a state dict of the plain model with the parameters and buffers of this chain."""
        storage, mask, _ = self._of_place
        weight = state.get(f"{prefix}weight")
        if mask is not None:
            weight = mask.take_plain(weight, state, prefix)
        if storage is not None and weight is not None:
            storage.take_plain(weight, state, prefix)

    def pack(self, parameter: Tensor) -> Packed:
        """The packed form of the weight."""
        last, mask = self.compression, self.masking
        if last is None:
            packed = pack_plain(self.before(None, parameter))
        else:
            packed = last.pack(parameter if last.place == STORAGE else self.before(last, parameter))
        return packed if mask is None else mask.pack_masked(packed)

    def make_generation_fast_(self, **kwargs: Any) -> None:
        """Cache the weight from now on."""
        self.cache.enabled = True
