"""Linear layers and tables of an ONNX graph, in the precisions that ``--quantization`` offers.

``float32``
    ``Gemm``.
``int8``
    ``DynamicQuantizeMatMul``: weights of each row over max|w| / 64, activations of 8 bits with the range of the whole
    tensor, computed each time. Only 7 bits of weights: on processors without VNNI the product of 8 by 8 bits adds
    pairs in 16 bits, which saturate silently (512 products of 255 and 127 give half their sum).
``int8_calibrated``
    ``QuantizeLinear`` with a range found beforehand, and ``MatMulIntegerToFloat``: weights of each row over
    max|w| / 127, activations of 7 bits, for the same reason. A sentence's translation does not depend on its batch.
    Values outside the range, up to twice as far, are exact where 8 bits hold them.
"""

import numpy as np
from numpy.typing import NDArray

from fairseq_compress.decoding.beam_search import Floats
from fairseq_compress.export.onnx_graph import MICROSOFT, GraphBuilder

WEIGHT_LIMIT = {"int8": 64, "int8_calibrated": 127}
ACTIVATION_STEPS = 127  # of 7 bits
Range = tuple[float, float]  # least and greatest value


class Float32:
    """Unquantized matrices; the base of other precisions."""

    def linear(self, graph: GraphBuilder, name: str, x: str, weight: Floats, bias: Floats | None) -> str:
        """``x (N, in)`` times ``weight (out, in)`` transposed, plus bias."""
        biases = [] if bias is None else [graph.weight(f"{name}.bias", bias)]
        return graph.node("Gemm", x, graph.weight(f"{name}.weight", weight), *biases, transB=1)

    def tied_linear(self, graph: GraphBuilder, name: str, x: str, weight: Floats, bias: Floats) -> str:
        """:meth:`linear` with the table of :meth:`rows`, which is stored once."""
        return self.linear(graph, name, x, weight, bias)

    def rows(self, graph: GraphBuilder, name: str, indices: str, table: Floats, scale: float) -> str:
        """Rows of a table, times ``scale``."""
        return graph.scaled(graph.node("Gather", graph.weight(f"{name}.weight", table), indices), scale)


class Int8(Float32):
    """Integer weights; activations quantized with calibrated ``ranges`` of the layers, or dynamically."""

    def __init__(self, ranges: dict[str, Range] | None = None) -> None:
        self._ranges = ranges
        self._limit = WEIGHT_LIMIT["int8" if ranges is None else "int8_calibrated"]

    def linear(self, graph: GraphBuilder, name: str, x: str, weight: Floats, bias: Floats | None) -> str:
        integers, scales = quantize_rows(weight, self._limit)
        stored = graph.weight(f"{name}.weight", np.ascontiguousarray(integers.T))
        return self._product(graph, name, x, stored, scales, bias)

    def tied_linear(self, graph: GraphBuilder, name: str, x: str, weight: Floats, bias: Floats) -> str:
        integers, scales = quantize_rows(weight, self._limit)
        stored = graph.weight(f"{name}.weight", integers)
        transposed = graph.node("Transpose", stored, perm=[1, 0])  # once, when it is loaded
        return self._product(graph, name, x, transposed, scales, bias)

    def rows(self, graph: GraphBuilder, name: str, indices: str, table: Floats, scale: float) -> str:
        integers, scales = quantize_rows(table, self._limit)
        found = graph.node("Cast", graph.node("Gather", graph.weight(f"{name}.weight", integers), indices), to=1)
        factors = graph.node("Gather", graph.weight(f"{name}.scale", scales), indices)
        factors = graph.scaled(graph.node("Unsqueeze", factors, graph.integers(-1)), scale)
        return graph.node("Mul", found, factors)

    def _product(
        self, graph: GraphBuilder, name: str, x: str, integers: str, scales: Floats, bias: Floats | None
    ) -> str:
        factors = graph.weight(f"{name}.scale", scales)
        added = "" if bias is None else graph.weight(f"{name}.bias", bias)
        if self._ranges is None:
            return graph.node("DynamicQuantizeMatMul", x, integers, factors, "", added, domain=MICROSOFT)
        low, high = min(self._ranges[name][0], 0.0), max(self._ranges[name][1], 0.0)
        width = max(high - low, 1e-6) / ACTIVATION_STEPS
        step = graph.constant(np.asarray(width, np.float32))
        zero = graph.constant(np.asarray(round(-low / width), np.uint8))
        quantized = graph.node("QuantizeLinear", x, step, zero)
        return graph.node("MatMulIntegerToFloat", quantized, integers, step, factors, zero, "", added, domain=MICROSOFT)


def quantize_rows(weight: Floats, limit: int) -> tuple[NDArray[np.int8], Floats]:
    """Integers ``(out, in)`` and scales ``(out,)``: round(w / s), s = max|w| / limit of each row; 1 for zeros."""
    greatest = np.abs(weight).max(axis=1)
    scales = np.where(greatest > 0, greatest / limit, 1).astype(np.float32)
    return np.rint(weight / scales[:, None]).astype(np.int8), scales
