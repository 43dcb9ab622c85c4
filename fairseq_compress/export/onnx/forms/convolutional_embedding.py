"""Embeddings by a convolution over neighbouring tokens, arXiv:2004.02984.

In the encoder a window of K is centred; a step keeps the narrow rows of the K - 1 tokens before, zeros at first. The
output is tied to the narrow table.
"""

import numpy as np
from onnx import TensorProto

from fairseq_compress.export.onnx.encoder import MASK
from fairseq_compress.export.onnx.forms.plain_embedding import chosen_products, chosen_rows, products, rows
from fairseq_compress.export.onnx.part import Part
from fairseq_compress.export.onnx.registry import EMBEDDINGS, Chosen, Embedding, Inputs, register
from fairseq_compress.export.onnx.step import Step
from fairseq_compress.export.onnx_graph import GraphBuilder

TABLE = ".table"
END = int(np.iinfo(np.int64).max)


@register(EMBEDDINGS, "convolutional")
class ConvolutionalEmbedding(Embedding):
    def embed(self, part: Part, tokens: str, scale: float) -> str:
        narrow = rows(part, tokens, 1.0, TABLE)
        windows = _former(part, narrow) if isinstance(part, Step) else _centred(part, narrow)
        x = part.linear(windows, f"{part.name}.embed_tokens.convolution")
        return part.graph.scaled(part.graph.node("Reshape", x, part.graph.shape(tokens, part.width)), scale)

    def logits(self, step: Step, x: str, entries: int) -> str:
        return products(step, x, entries, inputs=TABLE)

    def chosen(self, part: Part, chosen: str, entries: int) -> Chosen:
        return chosen_rows(part, chosen, entries, inputs=TABLE)

    def chosen_logits(self, step: Step, x: str) -> tuple[str, Inputs]:
        return chosen_products(step, x, inputs=TABLE)


def _former(step: Step, narrow: str) -> str:
    """Windows ``(B G, K E)`` that end with the present token."""
    graph, width, taps = step.graph, step.embeddings.rank, step.embeddings.taps
    narrow = graph.reshape(narrow, -1, width)
    if taps == 1:
        return narrow
    windows = graph.node("Concat", step.state("window", (taps - 1) * width), narrow, axis=1)
    step.renew("window", _slice(graph, windows, width, END))
    return windows


def _centred(part: Part, narrow: str) -> str:
    """Windows ``(B S, K E)``; padding and what is outside of a sentence are zero."""
    graph, width, taps = part.graph, part.embeddings.rank, part.embeddings.taps
    side = taps // 2
    mask = graph.node("Unsqueeze", graph.node("Cast", MASK, to=TensorProto.FLOAT), graph.integers(-1))
    narrow = graph.node("Pad", graph.node("Mul", narrow, mask), graph.integers(0, side, 0, 0, side, 0))
    shifted = [_slice(graph, narrow, tap, tap + 1 - taps if tap + 1 < taps else END) for tap in range(taps)]
    return graph.reshape(graph.node("Concat", *shifted, axis=2), -1, taps * width)


def _slice(graph: GraphBuilder, value: str, begin: int, end: int) -> str:
    """Along the second axis."""
    return graph.node("Slice", value, graph.integers(begin), graph.integers(end), graph.integers(1))
