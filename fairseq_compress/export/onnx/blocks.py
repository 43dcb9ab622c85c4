"""``--quantization int8_block``, ``int4`` and ``plan``: integers in blocks, for ``MatMulNBits``.

Weights that a compression plan quantized keep their integers and scales, bit for bit, where a kernel takes them. With
``plan`` every weight is stored as the plan has it: 2 to 4 bits are computed in 4, more in 8; codebooks, product
quantization and what no kernel takes are expanded to float32 when the model is loaded.
"""

from itertools import groupby
from typing import NamedTuple

import numpy as np

from fairseq_compress.decoding.beam_search import Floats
from fairseq_compress.export.onnx.block_integers import (
    GREATEST_BLOCK,
    block_of,
    group_of,
    pack_nibbles,
    quantize_groups,
)
from fairseq_compress.export.onnx.unpacking import (
    FLOAT,
    UINT8,
    expanded,
    inner_of,
    inverse_scales,
    linear_codes,
    mask_of,
)
from fairseq_compress.export.onnx_graph import MICROSOFT, GraphBuilder
from fairseq_compress.export.onnx_linear import Float32
from fairseq_compress.export.stored_weights import EXPANDED, KEPT, LOST, Rows, Stored, StoredWeights
from fairseq_compress.functional.quantization.bit_packing import unpack_integers
from fairseq_compress.weights.packed import Packed

ACCURACY = 4  # activations in 8 bits, the products in integers


class Kernel(NamedTuple):
    """How a product is computed."""

    bits: int  # 0: in float32
    block: int = 0
    asymmetric: bool = False


class Matrix(NamedTuple):
    """Names of the tensors of a matrix in a graph; of a float32 one only ``data``."""

    data: str
    scales: str = ""
    zeros: str = ""


class Blocks(Float32):
    """Integers of ``bits`` bits in groups of ``group_size``; ``bits`` 0: what the plan says, else float32."""

    def __init__(
        self, bits: int, group_size: int = 32, asymmetric: bool = False, stored: StoredWeights | None = None
    ) -> None:
        super().__init__(stored)
        self._bits, self._group_size, self._asymmetric = bits, group_size, asymmetric

    def linear(self, graph: GraphBuilder, name: str, x: str, weight: Floats, bias: Floats | None) -> str:
        outputs, at = [], 0
        for kernel, rows in groupby(self._parts(weight), key=lambda part: part[0]):
            parts = [part for _, part in rows]
            many = sum(len(part.values) for part in parts)
            some = None if bias is None else bias[at : at + many]
            matrix = self._joined(graph, name, kernel, parts)
            outputs.append(self._product(graph, name, x, kernel, matrix, (many, weight.shape[1]), some))
            at += many
        return outputs[0] if len(outputs) == 1 else graph.node("Concat", *outputs, axis=1)

    def tied_linear(self, graph: GraphBuilder, name: str, x: str, weight: Floats, bias: Floats) -> str:
        kernel, matrix = self._table(graph, name, weight)
        return self._product(graph, name, x, kernel, matrix, (len(weight), weight.shape[1]), bias)

    def rows(self, graph: GraphBuilder, name: str, indices: str, table: Floats, scale: float) -> str:
        kernel, matrix = self._table(graph, name, table)
        if not kernel.bits:
            return graph.scaled(graph.node("Gather", matrix.data, indices), scale)
        zeros = [matrix.zeros] if matrix.zeros else []
        found = graph.node(
            "GatherBlockQuantized", matrix.data, indices, matrix.scales, *zeros, domain=MICROSOFT, bits=kernel.bits,
            block_size=kernel.block, gather_axis=0, quantize_axis=1,
        )  # fmt: skip
        columns = table.shape[1]
        if columns % kernel.block:
            found = graph.node("Slice", found, graph.integers(0), graph.integers(columns), graph.integers(-1))
        return graph.scaled(found, scale)

    def _table(self, graph: GraphBuilder, name: str, table: Floats) -> tuple[Kernel, Matrix]:
        """The tensors of a table of one form, with rows of zeros behind it."""
        parts = self._parts(table)
        if len({kernel for kernel, _ in parts}) > 1:
            parts = [(self._own(table.shape[1]), Rows(table))]
        return parts[0][0], self._joined(graph, name, parts[0][0], [rows for _, rows in parts])

    def _product(
        self, graph: GraphBuilder, name: str, x: str, kernel: Kernel, matrix: Matrix, shape: tuple[int, int],
        bias: Floats | None,
    ) -> str:  # fmt: skip
        added = "" if bias is None else graph.weight(f"{name}.bias", bias)
        if not kernel.bits:
            return graph.node("Gemm", x, matrix.data, *([added] if added else []), transB=1)
        (rows, columns), blocks = shape, -(-shape[1] // kernel.block)
        data = graph.reshape(matrix.data, rows, blocks, kernel.block * kernel.bits // 8)
        more = ["", added] if added else []
        return graph.node(
            "MatMulNBits", x, data, matrix.scales, *([matrix.zeros] if matrix.zeros or more else []), *more,
            domain=MICROSOFT, K=columns, N=rows, bits=kernel.bits, block_size=kernel.block, accuracy_level=ACCURACY,
        )  # fmt: skip

    def _own(self, columns: int) -> Kernel:
        """For a weight without integers."""
        if not self._bits:
            return Kernel(0)
        return Kernel(self._bits, block_of(group_of(columns, self._group_size)), self._asymmetric)

    def _parts(self, weight: Floats) -> list[tuple[Kernel, Rows]]:
        """The rows of a matrix by form; rows of zeros behind a form have that of the form."""
        found: list[tuple[Kernel, Rows]] = []
        for part in self._stored.parts(weight):
            kernel = self._own(weight.shape[1])
            if part.stored is not None:
                kernel = self._kernel_of(part.stored.packed) or kernel
            elif found and not part.values.any():
                kernel = found[-1][0]
            found.append((kernel, part))
        return found

    def _kernel_of(self, packed: Packed) -> Kernel | None:
        """The kernel that takes the integers of a stored weight; None if they are not kept."""
        inner = inner_of(packed) if packed.kind == "masked" else packed
        if inner.kind == "linear":
            spec, columns = inner.spec, packed.spec["shape"][1]
            grouped = spec["granularity"] == "group"
            block = block_of(spec["group_size"]) if grouped else block_of(group_of(columns, GREATEST_BLOCK))
            bits = self._bits or (4 if spec["bits"] <= 4 else 8)
            if block and spec["bits"] <= bits:
                return Kernel(bits, block)
        return None if self._bits else Kernel(0)

    def _joined(self, graph: GraphBuilder, name: str, kernel: Kernel, parts: list[Rows]) -> Matrix:
        """The tensors of all rows that one kernel takes."""
        every = [self._matrix(graph, name, kernel, part) for part in parts]
        columns = [[each for each in column if each] for column in zip(*every, strict=True)]
        return Matrix(*(graph.joined(column) for column in columns))

    def _matrix(self, graph: GraphBuilder, name: str, kernel: Kernel, part: Rows) -> Matrix:
        stored = part.stored
        if stored is None or self._kernel_of(stored.packed) is None:
            if stored is not None:
                self._stored.record(stored, LOST)
            return self._quantized(graph, name, kernel, part.values)
        if kernel.bits:
            return self._kept(graph, kernel, stored)
        in_file = sum(tensor.nbytes for tensor in stored.packed.tensors.values())
        self._stored.record(stored, EXPANDED, in_file, stored.values.nbytes)
        return Matrix(expanded(graph, stored.name, stored.packed))

    def _quantized(self, graph: GraphBuilder, name: str, kernel: Kernel, weight: Floats) -> Matrix:
        """A matrix without stored integers."""
        if not kernel.bits:
            return Matrix(graph.weight(f"{name}.weight", weight))
        if not weight.any() and not kernel.asymmetric:
            return _zeros(graph, kernel, weight.shape)
        columns = weight.shape[1]
        group = group_of(columns, self._group_size)
        found = quantize_groups(weight, kernel.bits, group, kernel.asymmetric)
        width = -(-columns // kernel.block) * kernel.block
        data = graph.dense(f"{name}.weight", pack_nibbles(found.values[:, :width], kernel.bits))
        inverse = graph.node("Cast", graph.dense(f"{name}.inverse_scales", found.inverse), to=FLOAT)
        scales = _of_blocks(graph, inverse, found.inverse.shape, width // kernel.block, group // kernel.block)
        if found.zeros is None:
            return Matrix(data, scales)
        zeros = np.repeat(found.zeros, group // kernel.block, axis=1)[:, : width // kernel.block]
        return Matrix(data, scales, graph.dense(f"{name}.zeros", pack_nibbles(zeros, kernel.bits)))

    def _kept(self, graph: GraphBuilder, kernel: Kernel, stored: Stored) -> Matrix:
        """The integers and scales of a plan."""
        packed, name = stored.packed, stored.name
        self._stored.record(stored, KEPT)
        masked = packed.kind == "masked"
        mask, inner = (mask_of(graph, name, packed), inner_of(packed)) if masked else (None, packed)
        rows, columns = packed.spec["shape"]
        blocks = -(-columns // kernel.block)
        if mask is None and inner.spec["bits"] == kernel.bits:
            values = unpack_integers(inner.tensors["integers"], kernel.bits, rows * columns).int() + 2 ** (
                kernel.bits - 1
            )
            matrix = values.numpy().astype(np.uint8).reshape(rows, columns)
            padded = np.pad(
                matrix, ((0, 0), (0, blocks * kernel.block - columns)), constant_values=2 ** (kernel.bits - 1)
            )
            data = graph.dense(f"{name}.integers", pack_nibbles(padded, kernel.bits))
        else:
            codes = linear_codes(graph, name, inner, mask)
            data = _kernel_bytes(graph, codes, (rows, columns), inner.spec["bits"], kernel)
        size = inner.tensors["inverse_scales"].shape
        repeats = inner.spec["group_size"] // kernel.block if inner.spec["granularity"] == "group" else blocks
        scales = _of_blocks(graph, inverse_scales(graph, name, inner), (size[0], size[1]), blocks, repeats, rows)
        return Matrix(data, scales)


def _zeros(graph: GraphBuilder, kernel: Kernel, shape: tuple[int, ...]) -> Matrix:
    """A matrix of zeros, of which nothing is in the file."""
    blocks = -(-shape[1] // kernel.block)
    byte = graph.constant(np.asarray([0x88 if kernel.bits == 4 else 0x80], np.uint8))
    data = graph.node("Expand", byte, graph.integers(shape[0], blocks * kernel.block * kernel.bits // 8))
    return Matrix(data, graph.node("Expand", graph.constant(np.ones(1, np.float32)), graph.integers(shape[0], blocks)))


def _of_blocks(
    graph: GraphBuilder, inverse: str, size: tuple[int, ...], blocks: int, repeats: int, rows: int = 0
) -> str:
    """Scales of blocks (R, blocks) from 1 / scale of groups, each of ``repeats`` blocks; of one row, of ``rows``."""
    rows = rows or size[0]
    scales = graph.node("Div", graph.constant(np.ones(1, np.float32)), inverse)
    if size[1] == 1:
        return graph.node("Expand", scales, graph.integers(rows, blocks)) if (rows, blocks) != size else scales
    if repeats > 1 or rows != size[0]:
        scales = graph.reshape(scales, size[0], size[1], 1)
        scales = graph.node("Expand", scales, graph.integers(rows, size[1], repeats))
        scales = graph.reshape(scales, rows, -1)
    if size[1] * repeats > blocks:
        scales = graph.node("Slice", scales, graph.integers(0), graph.integers(blocks), graph.integers(1))
    return scales


def _kernel_bytes(graph: GraphBuilder, codes: str, shape: tuple[int, int], bits: int, kernel: Kernel) -> str:
    """Codes q + 2^(b-1), uint8 (R C,), as bytes of a kernel of at least b bits, whose zero is 2^(bits-1)."""
    rows, columns = shape
    more = 2 ** (kernel.bits - 1) - 2 ** (bits - 1)
    values = graph.node("Cast", codes, to=6)  # int32: not every kernel of ONNX Runtime adds bytes
    values = graph.reshape(graph.node("Add", values, graph.constant(np.asarray([more], np.int32))), rows, columns)
    behind = -columns % kernel.block
    if behind:
        zero = graph.constant(np.asarray(2 ** (kernel.bits - 1), np.int32))
        values = graph.node("Pad", values, graph.integers(0, 0, 0, behind), zero)
    if kernel.bits == 4:
        pairs = graph.node("Mul", graph.reshape(values, rows, -1, 2), graph.constant(np.asarray([1, 16], np.int32)))
        values = graph.node("ReduceSum", pairs, graph.integers(2), keepdims=0)
    return graph.node("Cast", values, to=UINT8)
