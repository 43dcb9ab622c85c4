"""Quant-noise for product quantization: blocks of a weight are zeros in training."""

from torch import Tensor

from fairseq_compress.functional.block_noise import draw_blocks, drop
from fairseq_compress.functional.packed_weights import Packed, pack_plain
from fairseq_compress.functional.schedules import Ramp
from fairseq_compress.parametrizations.linear_quantizer import noise_repr
from fairseq_compress.parametrizations.transform import NoisyTransform


class BlockDropout(NoisyTransform):
    """In each training forward a random fraction p of the blocks is zero (arXiv:2004.07320); else the weight itself.

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
        return drop(rows, draw_blocks(rows.shape[0], rows.shape[1], self.block, self.p, rows.device))

    def pack(self, weight: Tensor) -> Packed:
        return pack_plain(weight)

    def extra_repr(self) -> str:
        return noise_repr(self.probability, self.block).removeprefix(", ")
