"""What all transforms of a weight have in common."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_compress.functional.schedules import Ramp
from fairseq_compress.weights.packed import Packed


class WeightTransform(nn.Module):
    """A weight ``(R, C)`` to one of the same shape. One transform serves all modules that share the weight.

    Outside of training a transform draws nothing. After ``make_generation_fast_``, which fairseq calls on every module
    before it generates, the result is computed once and kept for as long as the weight stays what it is.
    """

    trained_name = "weight"
    """Of what is trained in place of the weight, in the state dict of the module."""

    def __init__(self) -> None:
        super().__init__()
        self._keeps = False
        self._kept: tuple[Any, Tensor] | None = None

    def forward(self, weight: Tensor) -> Tensor:
        """The transformed weight, of what is trained in its place, which mostly is a weight of the same shape."""
        if self.idle:
            return weight
        if not self.keeps:
            return self.whole(weight)
        stamp = (weight.data_ptr(), weight._version, weight.dtype, weight.device)
        if self._kept is None or self._kept[0] != stamp:
            # As a parameter would be: torch chooses between two kernels by this, which differ in the last digit.
            self._kept = (stamp, self.whole(weight).detach().requires_grad_(weight.requires_grad))
        return self._kept[1]

    @property
    def keeps(self) -> bool:
        """Whether :meth:`forward` costs nothing, as its result was kept."""
        return self._keeps and not self.training

    @property
    def idle(self) -> bool:
        """Whether the weight passes as it is."""
        return False

    def whole(self, weight: Tensor) -> Tensor:
        """The transformed weight ``(R, C)``, computed anew."""
        return self.transform(weight, weight)

    def rows(self, used: Tensor, weight: Tensor, padding: int | None) -> Tensor:
        """Rows ``(N, C)`` of the transformed weight; that of the padding gives no gradient.

        Args:
            used: their numbers ``(N,)``.
        """
        return self.transform(F.embedding(used, weight, padding), weight)

    def transform(self, rows: Tensor, weight: Tensor) -> Tensor:
        """Some rows ``(N, C)`` of the weight, transformed as in the whole."""
        raise NotImplementedError

    def make_generation_fast_(self, **kwargs: Any) -> None:
        """Keep the result from now on."""
        self._keeps = True

    def take_plain(self, state: dict[str, Tensor], prefix: str) -> None:
        """Put into a state dict of the plain model, before it is loaded, what this one has in place of the weight."""

    def pack(self, weight: Tensor) -> Packed:
        """What a packed checkpoint stores for the weight."""
        raise NotImplementedError


class NoisyTransform(WeightTransform):
    """A transform that in training replaces a random share p of the blocks of a weight.

    Args:
        probability: p, by updates.
        block: entries of a row that are drawn together.
    """

    def __init__(self, probability: Ramp, block: int) -> None:
        super().__init__()
        self.probability, self.block = probability, block
        self.p = probability.at(0)

    def set_num_updates(self, num_updates: int) -> None:
        """Called by fairseq before each update."""
        self.p = self.probability.at(num_updates)
