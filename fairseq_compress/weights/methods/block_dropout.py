"""Quant-noise for product quantization: blocks of a weight are zeros in training."""

from torch import Tensor

from fairseq_compress.functional.quantization.block_noise import draw_blocks, drop
from fairseq_compress.functional.schedules import Ramp
from fairseq_compress.weights.methods.linear import noise_repr
from fairseq_compress.weights.packed import Packed, pack_plain
from fairseq_compress.weights.transform import NoisyTransform


class BlockDropout(NoisyTransform):
    r"""Quant-noise with φ_proxy (arXiv:2004.07320): in each training forward a random fraction p of the blocks is zero.

    .. math:: \hat w = \frac{1 - m}{1 - p} \odot w, \quad \partial L / \partial w := \partial L / \partial \hat w

    with the mask m of drawn blocks, 1 with probability p: what ``fairseq.modules.quant_noise`` computes, but the weight
    itself keeps its values. In evaluation ŵ = w.

    Args:
        probability: p, by updates.
        block: entries of a row that are drawn together; that of the product quantization to come.
    """

    def __init__(self, probability: Ramp, block: int = 8) -> None:
        super().__init__(probability, block)

    @property
    def idle(self) -> bool:
        return not self.training or self.p <= 0

    def transform(self, rows: Tensor, weight: Tensor) -> Tensor:
        return drop(rows, draw_blocks(rows.shape[0], rows.shape[1], self.block, self.p, rows.device), self.p)

    def pack(self, weight: Tensor) -> Packed:
        return pack_plain(weight)

    def extra_repr(self) -> str:
        return noise_repr(self.probability, self.block).removeprefix(", ")
