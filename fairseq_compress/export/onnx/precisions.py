"""The values of ``--quantization`` for ONNX Runtime."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from fairseq_compress.export.onnx.blocks import Blocks
from fairseq_compress.export.onnx.int8 import Int8Batch, Int8Calibrated, Int8Rows
from fairseq_compress.export.onnx_linear import Float32, Range
from fairseq_compress.export.stored_weights import StoredWeights


class Storage(NamedTuple):
    """What is known of the weights, and how they are quantized."""

    stored: StoredWeights
    """The compressed weights of the checkpoint."""
    ranges: Mapping[str, Range] = {}
    """Of the inputs of the linear layers, by name, for ``int8_calibrated``."""
    group_size: int = 32
    """Columns that share a scale in blocks."""
    asymmetric: bool = False
    """Blocks with zero points."""
    encoder: str | None = None
    """Another quantization for the layers of the encoder."""


PRECISIONS: dict[str, Callable[[Storage], Float32]] = {
    "float32": lambda storage: Float32(storage.stored),
    "int8": lambda storage: Int8Rows(storage.stored),
    "int8_batch": lambda storage: Int8Batch(storage.stored),
    "int8_calibrated": lambda storage: Int8Calibrated(storage.ranges, storage.stored),
    "int8_block": lambda storage: Blocks(8, storage.group_size, storage.asymmetric, storage.stored),
    "int4": lambda storage: Blocks(4, storage.group_size, storage.asymmetric, storage.stored),
    "plan": lambda storage: Blocks(0, stored=storage.stored),
}
