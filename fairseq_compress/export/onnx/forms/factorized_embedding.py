"""Factorized embeddings ``A Bᵀ``, arXiv:1909.11942: rows of A ``(V, r)`` times B ``(D, r)``, and back for the output.

B is stored once, as a table. It is small, and multiplied in float32 in both directions, whatever the precision.
"""

from fairseq_compress.export.onnx.forms.plain_embedding import OUTPUT, chosen_products, chosen_rows, products, rows
from fairseq_compress.export.onnx.part import Part
from fairseq_compress.export.onnx.registry import EMBEDDINGS, Chosen, Embedding, Inputs, register
from fairseq_compress.export.onnx.step import Step

TABLE = ".table"


@register(EMBEDDINGS, "factorized")
class FactorizedEmbedding(Embedding):
    def embed(self, part: Part, tokens: str, scale: float) -> str:
        graph, expand = part.graph, f"{part.name}.embed_tokens.expand"
        narrow = graph.reshape(rows(part, tokens, scale, TABLE), -1, part.embeddings.rank)
        x = graph.node("Gemm", narrow, _whole(part, expand), transB=1)
        return graph.node("Reshape", x, graph.shape(tokens, len(part.weights[f"{expand}.weight"])))

    def logits(self, step: Step, x: str, entries: int) -> str:
        return products(step, _reduced(step, x), entries, TABLE)

    def chosen(self, part: Part, chosen: str, entries: int) -> Chosen:
        return chosen_rows(part, chosen, entries, TABLE)

    def chosen_logits(self, step: Step, x: str) -> tuple[str, Inputs]:
        return chosen_products(step, _reduced(step, x), TABLE)


def _reduced(step: Step, x: str) -> str:
    reduced: str = step.graph.node("Gemm", x, _whole(step, f"{OUTPUT}.expand"))
    return reduced


def _whole(part: Part, name: str) -> str:
    """All rows of B in float32, computed when the model is loaded."""
    weight = part.weights[f"{name}.weight"]
    return part.tables.rows(part.graph, name, part.graph.numbers(len(weight)), weight, 1.0)
