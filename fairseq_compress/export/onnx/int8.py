"""``--quantization int8``, ``int8_batch``, ``int8_calibrated``: integer weights with one scale a row.

``int8``
    Each row of activations is divided by its own largest value and quantized with a constant scale, and the product is
    multiplied by the row's value again: a sentence does not depend on its batch. Activations of 8 bits, weights of each
    row over max|w| / 64. Only 7 bits of weights: on processors without VNNI the product of 8 by 8 bits adds pairs in 16
    bits, which saturate silently (512 products of 255 and 127 give half their sum). Where a plan has 8-bit integers
    with a scale for each row, these are kept, and activations have 7 bits.
``int8_batch``
    ``DynamicQuantizeMatMul``: activations of 8 bits with the range of the whole tensor, computed each time. Fewer
    operators, but a sentence depends on the sentences translated with it.
``int8_calibrated``
    ``QuantizeLinear`` with a range found beforehand, and ``MatMulIntegerToFloat``: weights of each row over
    max|w| / 127, activations of 7 bits. Values outside the range, up to twice as far, are exact where 8 bits hold them.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fairseq_compress.decoding.beam_search import Floats
from fairseq_compress.export.onnx.registry import CHOSEN_ROWS, ROW_SCALES, Chosen, Inputs
from fairseq_compress.export.onnx_graph import MICROSOFT, GraphBuilder
from fairseq_compress.export.onnx_linear import Float32, Range
from fairseq_compress.export.stored_weights import KEPT, LOST, StoredWeights
from fairseq_compress.functional.quantization.bit_packing import unpack_integers
from fairseq_compress.weights.packed import Packed

SEVEN_BITS, EIGHT_BITS = 64, 127  # greatest integers of weights
ACTIVATION_STEPS = 127  # of 7 bits
Integers = NDArray[np.int8]


class Int8Batch(Float32):
    """Activations of 8 bits with the range of the whole tensor; the base of the other kinds."""

    weights, most = SEVEN_BITS, 63
    """Greatest integer of a weight that is quantized here, and of one that a plan may bring along."""

    def __init__(self, stored: StoredWeights | None = None) -> None:
        super().__init__(stored)

    def linear(self, graph: GraphBuilder, name: str, x: str, weight: Floats, bias: Floats | None) -> str:
        integers, scales = self._integers(weight)
        stored = graph.weight(f"{name}.weight", np.ascontiguousarray(integers.T))
        return self._product(graph, name, x, stored, integers, graph.weight(f"{name}.scale", scales), bias)

    def tied_linear(self, graph: GraphBuilder, name: str, x: str, weight: Floats, bias: Floats) -> str:
        integers, scales = self._integers(weight)
        stored = graph.weight(f"{name}.weight", integers)
        transposed = graph.node("Transpose", stored, perm=[1, 0])  # once, when it is loaded
        return self._product(graph, name, x, transposed, integers, graph.weight(f"{name}.scale", scales), bias)

    def rows(self, graph: GraphBuilder, name: str, indices: str, table: Floats, scale: float) -> str:
        integers, scales = self._integers(table)
        found = graph.node("Cast", graph.node("Gather", graph.weight(f"{name}.weight", integers), indices), to=1)
        factors = graph.node("Gather", graph.weight(f"{name}.scale", scales), indices)
        factors = graph.scaled(graph.node("Unsqueeze", factors, graph.integers(-1)), scale)
        return graph.node("Mul", found, factors)

    def chosen(self, graph: GraphBuilder, name: str, indices: str, table: Floats) -> Chosen:
        integers, scales = self._integers(table)
        rows = graph.node("Gather", graph.weight(f"{name}.weight", integers), indices)
        factors = graph.node("Gather", graph.weight(f"{name}.scale", scales), indices)
        transposed = graph.node("Transpose", rows, perm=[1, 0])
        return {CHOSEN_ROWS: (transposed, np.int8, [table.shape[1], "U"]), ROW_SCALES: (factors, np.float32, ["U"])}

    def chosen_linear(self, graph: GraphBuilder, name: str, x: str, table: Floats) -> tuple[str, Inputs]:
        inputs: Inputs = {CHOSEN_ROWS: (np.int8, [table.shape[1], "U"]), ROW_SCALES: (np.float32, ["U"])}
        return self._product(graph, name, x, CHOSEN_ROWS, self._integers(table)[0], ROW_SCALES, None), inputs

    def _integers(self, weight: Floats) -> tuple[Integers, Floats]:
        """Integers (out, in) and scales (out,): those of the plan, else :func:`quantize_rows`."""
        found = []
        for part in self._stored.parts(weight):
            own = None if part.stored is None else integers_of_rows(part.stored.packed, self.most)
            if part.stored is not None:
                self._stored.record(part.stored, LOST if own is None else KEPT)
            found.append(own or quantize_rows(part.values, self.weights))
        integers, scales = zip(*found, strict=True)
        return np.concatenate(integers), np.concatenate(scales)

    def _product(
        self, graph: GraphBuilder, name: str, x: str, weight: str, integers: Integers, factors: str,
        bias: Floats | None,
    ) -> str:  # fmt: skip
        added = "" if bias is None else graph.weight(f"{name}.bias", bias)
        return graph.node("DynamicQuantizeMatMul", x, weight, factors, "", added, domain=MICROSOFT)


class Int8Rows(Int8Batch):
    """Activations of 8 bits with the range of each row."""

    most = EIGHT_BITS

    def _product(
        self, graph: GraphBuilder, name: str, x: str, weight: str, integers: Integers, factors: str,
        bias: Floats | None,
    ) -> str:  # fmt: skip
        wide = int(np.abs(integers.astype(np.int32)).max(initial=0)) <= SEVEN_BITS
        zero = 128 if wide else 64  # integers from 1 to 255, or from 1 to 127
        step = graph.constant(np.asarray(1 / (zero - 1), np.float32))
        middle = graph.constant(np.asarray(zero, np.uint8))
        greatest = graph.once("ReduceMax", graph.once("Abs", x), graph.integers(1), keepdims=1)
        # of a row of zeros 0 / 0, which is some integer, and 0 again when it is multiplied by 0
        quantized = graph.once("QuantizeLinear", graph.once("Div", x, greatest), step, middle)
        product = graph.node("MatMulIntegerToFloat", quantized, weight, step, factors, middle, domain=MICROSOFT)
        product = graph.node("Mul", product, greatest)
        return product if bias is None else graph.node("Add", product, graph.weight(f"{name}.bias", bias))


class Int8Calibrated(Int8Batch):
    """Activations of 7 bits with the calibrated range of each layer."""

    weights = most = EIGHT_BITS

    def __init__(self, ranges: Mapping[str, Range], stored: StoredWeights | None = None) -> None:
        super().__init__(stored)
        self._ranges = ranges

    def _product(
        self, graph: GraphBuilder, name: str, x: str, weight: str, integers: Integers, factors: str,
        bias: Floats | None,
    ) -> str:  # fmt: skip
        low, high = min(self._ranges[name][0], 0.0), max(self._ranges[name][1], 0.0)
        width = max(high - low, 1e-6) / ACTIVATION_STEPS
        step = graph.constant(np.asarray(width, np.float32))
        zero = graph.constant(np.asarray(round(-low / width), np.uint8))
        quantized = graph.once("QuantizeLinear", x, step, zero)
        added = "" if bias is None else graph.weight(f"{name}.bias", bias)
        return graph.node("MatMulIntegerToFloat", quantized, weight, step, factors, zero, "", added, domain=MICROSOFT)


def quantize_rows(weight: Floats, limit: int) -> tuple[Integers, Floats]:
    """Integers ``(out, in)`` and scales ``(out,)``: round(w / s), s = max|w| / limit of each row; 1 for zeros."""
    greatest = np.abs(weight).max(axis=1)
    scales = np.where(greatest > 0, greatest / limit, 1).astype(np.float32)
    return np.rint(weight / scales[:, None]).astype(np.int8), scales


def integers_of_rows(packed: Packed, most: int) -> tuple[Integers, Floats] | None:
    """Integers and scales of a ``linear`` weight with a scale for each row or one for all, of at most ``most``."""
    if packed.kind != "linear" or packed.spec["granularity"] == "group" or 2 ** (packed.spec["bits"] - 1) - 1 > most:
        return None
    rows, columns = packed.spec["shape"]
    integers = unpack_integers(packed.tensors["integers"], packed.spec["bits"], rows * columns).numpy()
    inverse = packed.tensors["inverse_scales"].numpy().reshape(-1)
    return integers.reshape(rows, columns), np.broadcast_to(np.float32(1) / inverse, (rows,)).astype(np.float32)
