"""``linear``: integers and scales, by quantization-aware training, quant-noise or plain rounding."""

from dataclasses import asdict, dataclass, field

from torch import Tensor

from fairseq_compress.functional.quantization.bit_packing import pack_integers, unpack_integers
from fairseq_compress.functional.quantization.block_noise import draw_blocks, mix
from fairseq_compress.functional.quantization.linear import (
    LinearScheme,
    dequantize,
    fake_quantize,
    inverse_scales,
    quantize,
    straight_through,
)
from fairseq_compress.functional.schedules import Ramp
from fairseq_compress.weights.noise import Noise, NoisyTransform
from fairseq_compress.weights.packed import Packed, check_bytes, packed_form
from fairseq_compress.weights.rules import WeightRule, method

FIELDS = tuple(LinearScheme.__dataclass_fields__)


@method("linear")
@dataclass(frozen=True)
class LinearRule(LinearScheme, WeightRule):
    """Integers of b bits with a scale for each row, group or matrix."""

    noise: Noise = field(default_factory=Noise)

    def transform(self, rows: int, columns: int, name: str = "") -> "LinearQuantizer":
        self.check((rows, columns))
        scheme = LinearScheme(self.bits, self.granularity, self.group_size)
        return LinearQuantizer(scheme, self.noise.ramp(), self.noise.block)


class LinearQuantizer(NoisyTransform):
    """ŵ of :mod:`fairseq_compress.functional.quantization.linear`, with straight-through gradients.

    In training a random fraction p of the blocks is quantized: p = 1 is quantization-aware training
    (arXiv:1910.06188), less is quant-noise (arXiv:2004.07320), 0 is the weight itself. In evaluation everything is.
    """

    def __init__(self, scheme: LinearScheme, probability: Ramp | None = None, block: int = 8) -> None:
        super().__init__(probability or Ramp(1.0, 1.0), block)
        self.scheme, self.uses_whole = scheme, scheme.granularity == "tensor"

    @property
    def idle(self) -> bool:
        return self.training and self.p <= 0

    def transform(self, rows: Tensor, weight: Tensor) -> Tensor:
        quantized = fake_quantize(rows, self.scheme, inverse_scales(weight, self.scheme) if self.uses_whole else None)
        if not self.training or self.p >= 1:
            return straight_through(rows, quantized)
        return mix(rows, quantized, draw_blocks(rows.shape[0], rows.shape[1], self.block, self.p, rows.device))

    def pack(self, weight: Tensor) -> Packed:
        return pack_linear(weight, self.scheme)

    def extra_repr(self) -> str:
        size = f", group_size={self.scheme.group_size}" if self.scheme.granularity == "group" else ""
        return f"bits={self.scheme.bits}, granularity={self.scheme.granularity}{size}{self.noise_repr()}"


def pack_linear(weight: Tensor, scheme: LinearScheme) -> Packed:
    """Integers of b bits without gaps, and 1 / scale in float16 for groups, else float32."""
    rows, columns = weight.shape
    inverse = inverse_scales(weight, scheme)
    stored = inverse.half() if scheme.scale_count((rows, columns))[1] == 16 else inverse
    integers = pack_integers(quantize(weight, inverse, scheme), scheme.bits)
    spec = asdict(scheme) | {"shape": [rows, columns]}
    return Packed("linear", spec, {"integers": integers, "inverse_scales": stored})


@packed_form("linear", lambda packed: ("integers", packed.spec["bits"]))
def unpack_linear(packed: Packed) -> Tensor:
    """ŵ of :func:`pack_linear`."""
    scheme = LinearScheme(*(packed.spec[name] for name in FIELDS))
    rows, columns = packed.spec["shape"]
    scheme.check((rows, columns))
    integers, inverse = packed.tensors["integers"], packed.tensors["inverse_scales"].float()
    check_bytes("integers", integers, rows * columns, scheme.bits)
    check_bytes("inverse_scales", inverse, scheme.scale_count((rows, columns))[0], 8)
    return dequantize(unpack_integers(integers, scheme.bits, rows * columns).view(rows, columns), inverse, scheme)
