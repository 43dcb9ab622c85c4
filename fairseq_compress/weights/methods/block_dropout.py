"""``block_dropout``: quant-noise for a later product quantization; training forwards see blocks of zeros."""

from dataclasses import dataclass, field

from torch import Tensor

from fairseq_compress.functional.quantization.block_noise import draw_blocks, drop
from fairseq_compress.functional.schedules import Ramp
from fairseq_compress.weights.noise import Noise, NoisyTransform
from fairseq_compress.weights.rules import WeightRule, method


@method("block_dropout")
@dataclass(frozen=True)
class BlockDropoutRule(WeightRule):
    """Blocks of zeros in training."""

    noise: Noise = field(default_factory=Noise)

    def problems(self) -> list[str]:
        most = max(self.noise.ramp()[:2])
        return ["noise.start: must be in [0, 1) with block_dropout, got 1"] if most == 1 else []

    def transform(self, rows: int, columns: int, name: str = "") -> "BlockDropout":
        return BlockDropout(self.noise.ramp(), self.noise.block)


class BlockDropout(NoisyTransform):
    r"""Quant-noise with φ_proxy (arXiv:2004.07320): in each training forward a random fraction p of the blocks is zero.

    .. math:: \hat w = \frac{1 - m}{1 - p} \odot w, \quad \partial L / \partial w := \partial L / \partial \hat w

    with the mask m of drawn blocks, as ``fairseq.modules.quant_noise``. In evaluation ŵ = w.
    """

    def __init__(self, probability: Ramp, block: int = 8) -> None:
        super().__init__(probability, block)

    @property
    def idle(self) -> bool:
        return not self.training or self.p <= 0

    def transform(self, rows: Tensor, weight: Tensor) -> Tensor:
        return drop(rows, draw_blocks(rows.shape[0], rows.shape[1], self.block, self.p, rows.device), self.p)

    def extra_repr(self) -> str:
        return self.noise_repr().removeprefix(", ")
