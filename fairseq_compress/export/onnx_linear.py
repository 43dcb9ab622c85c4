"""Linear layers and tables of an ONNX graph in float32: the base of the precisions that ``--quantization`` offers."""

import numpy as np

from fairseq_compress.decoding.beam_search import Floats
from fairseq_compress.export.onnx.registry import CHOSEN_ROWS, Chosen, Inputs
from fairseq_compress.export.onnx_graph import GraphBuilder
from fairseq_compress.export.stored_weights import StoredWeights
from fairseq_compress.weights.packed import Packed

Range = tuple[float, float]  # least and greatest value


class Float32:
    """Unquantized matrices; ``stored`` are the compressed weights of the checkpoint, of which only values are kept."""

    def __init__(self, stored: StoredWeights | None = None) -> None:
        self._stored = StoredWeights() if stored is None else stored
        self._stored.record_kept(_is_masked_float)  # zeros take few bytes: see onnx/storage.py

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

    def chosen(self, graph: GraphBuilder, name: str, indices: str, table: Floats) -> Chosen:
        """Rows ``indices (U,)`` of a table, for :meth:`chosen_linear` in another graph."""
        return in_float32(self.rows(graph, name, indices, table, 1.0), table.shape[1])

    def chosen_linear(self, graph: GraphBuilder, name: str, x: str, table: Floats) -> tuple[str, Inputs]:
        """Products ``(N', U)`` of ``x (N, in)`` with chosen rows, which are inputs of the graph."""
        return float32_products(graph, x, table.shape[1])


def in_float32(rows: str, width: int) -> Chosen:
    """Chosen rows ``(U, width)`` in float32."""
    return {CHOSEN_ROWS: (rows, np.float32, ["U", width])}


def float32_products(graph: GraphBuilder, x: str, width: int) -> tuple[str, Inputs]:
    """Products ``(N + 1, U)`` of ``x (N, width)`` with :func:`in_float32`.

    One row more is computed than x has: with a single row ONNX Runtime adds in another order, and a sentence would
    depend on its batch.
    """
    more = graph.node("Concat", x, graph.constant(np.zeros((1, width), np.float32)), axis=0)
    return graph.node("Gemm", more, CHOSEN_ROWS, transB=1), {CHOSEN_ROWS: (np.float32, ["U", width])}


def _is_masked_float(packed: Packed) -> bool:
    return packed.kind == "masked" and packed.spec["kind"] == "plain"
