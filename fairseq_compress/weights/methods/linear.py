"""Linear fake quantization of a weight: QAT, and quant-noise."""

from torch import Tensor

from fairseq_compress.functional.quantization.block_noise import draw_blocks, mix
from fairseq_compress.functional.quantization.linear import (
    Linear,
    quantize_dequantize,
    straight_through,
    weight_scales,
)
from fairseq_compress.functional.schedules import Ramp
from fairseq_compress.weights.packed import Packed, pack_linear
from fairseq_compress.weights.transform import NoisyTransform


class LinearQuantizer(NoisyTransform):
    """x̂ of :mod:`fairseq_compress.functional.quantization.linear`, with straight-through gradients.

    In training a random fraction p of the blocks is quantized: p = 1 is quantization-aware training
    (arXiv:1910.06188), less is quant-noise (arXiv:2004.07320), 0 is the weight itself. In evaluation everything is.

    Args:
        how: bits and what shares a scale.
        probability: p, by updates.
        block: entries of a row that are drawn together.
    """

    def __init__(self, how: Linear, probability: Ramp | None = None, block: int = 8) -> None:
        super().__init__(probability or Ramp(1.0, 1.0), block)
        self.how = how

    @property
    def idle(self) -> bool:
        return self.training and self.p <= 0

    def transform(self, rows: Tensor, weight: Tensor) -> Tensor:
        p = self.p if self.training else 1.0
        scales = weight_scales(weight, self.how) if self.how.granularity == "tensor" else None
        quantized = quantize_dequantize(rows, self.how, scales)
        if p >= 1:
            return straight_through(rows, quantized)
        return mix(rows, quantized, draw_blocks(rows.shape[0], rows.shape[1], self.block, p, rows.device))

    def pack(self, weight: Tensor) -> Packed:
        return pack_linear(weight, self.how)

    def extra_repr(self) -> str:
        size = f", group_size={self.how.group_size}" if self.how.granularity == "group" else ""
        return (
            f"bits={self.how.bits}, granularity={self.how.granularity}{size}{noise_repr(self.probability, self.block)}"
        )


def noise_repr(probability: Ramp, block: int) -> str:
    """What ``print(model)`` tells of a noise; nothing where all blocks are always replaced."""
    if probability.start == probability.end == 1:
        return ""
    ramp = f"{probability.start:g}"
    if probability.start != probability.end:
        ramp += f"..{probability.end:g} in updates {probability.first}..{probability.last}"
    return f", noise={ramp}, block={block}"
