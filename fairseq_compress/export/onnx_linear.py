"""Linear layers and tables of an ONNX graph in float32: the base of the precisions that ``--quantization`` offers."""

from fairseq_compress.decoding.beam_search import Floats
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


def _is_masked_float(packed: Packed) -> bool:
    return packed.kind == "masked" and packed.spec["kind"] == "plain"
