"""Tensor-train embeddings, arXiv:1901.10787: the file has the cores ``(r, v, d, r')``, as tables of v rows.

A token's row is a product of one slice of each core. The output needs all rows: their table is computed in float32 when
the model is loaded, as in torch.
"""

import math

import numpy as np

from fairseq_compress.decoding.beam_search import Floats
from fairseq_compress.export.onnx.forms.plain_embedding import OUTPUT, behind
from fairseq_compress.export.onnx.part import Part
from fairseq_compress.export.onnx.registry import EMBEDDINGS, Chosen, Embedding, Inputs, register
from fairseq_compress.export.onnx.step import Step
from fairseq_compress.export.onnx.weights import ROWS
from fairseq_compress.export.onnx_linear import float32_products, in_float32


@register(EMBEDDINGS, "tensor_train")
class TensorTrainEmbedding(Embedding):
    def embed(self, part: Part, tokens: str, scale: float) -> str:
        graph, name = part.graph, f"{part.name}.embed_tokens"
        cores = _cores(part, name)
        after = [math.prod(core.shape[1] for core in cores[place + 1 :]) for place in range(len(cores))]
        x, width = "", 1
        for place, core in enumerate(cores):
            rank, entries, d, next_rank = core.shape
            digit = graph.node("Div", tokens, graph.constant(np.asarray(after[place], np.int64)))
            digit = graph.node("Mod", digit, graph.constant(np.asarray(entries, np.int64)))
            slices = _slices(part, f"{name}.cores.{place}", core, graph.reshape(digit, -1))
            slices = graph.reshape(slices, -1, rank, d * next_rank)
            width *= d
            x = slices if place == 0 else graph.node("MatMul", x, slices)
            x = graph.reshape(x, -1, width, next_rank)
        return graph.scaled(graph.node("Reshape", x, graph.shape(tokens, width)), scale)

    def logits(self, step: Step, x: str, entries: int) -> str:
        table = _table(step, entries)
        bias = behind(np.zeros((entries + -entries % ROWS, 1), np.float32), entries)
        return step.graph.node("Gemm", x, table, step.graph.weight(f"{OUTPUT}.bias", bias), transB=1)

    def chosen(self, part: Part, chosen: str, entries: int) -> Chosen:
        rows = part.graph.node("Gather", _table(part, entries), chosen)
        return in_float32(rows, part.width)

    def chosen_logits(self, step: Step, x: str) -> tuple[str, Inputs]:
        return float32_products(step.graph, x, step.width)


def _table(part: Part, entries: int) -> str:
    """All rows of the output in float32, computed when the model is loaded."""
    graph, cores = part.graph, _cores(part, OUTPUT)
    table, count, width = "", 1, 1
    for place, core in enumerate(cores):
        rank, v, d, next_rank = core.shape
        slices = _slices(part, f"{OUTPUT}.cores.{place}", core, graph.numbers(v))  # (v, r d r')
        slices = graph.node("Transpose", graph.reshape(slices, v, rank, d * next_rank), perm=[1, 0, 2])
        slices = graph.reshape(slices, rank, v * d * next_rank)
        if place:
            slices = graph.node("MatMul", graph.reshape(table, count * width, rank), slices)
        table = graph.node("Transpose", graph.reshape(slices, count, width, v, d * next_rank), perm=[0, 2, 1, 3])
        count, width = count * v, width * d
    table = graph.node("Slice", graph.reshape(table, count, width), graph.integers(0), graph.integers(entries))
    # the output of the padding is zero, and so are rows behind the last token
    padding = graph.integers(part.padding), graph.constant(np.zeros((1, width), np.float32))
    table = graph.node("ScatterND", table, graph.node("Unsqueeze", padding[0], graph.integers(1)), padding[1])
    found: str = graph.node("Pad", table, graph.integers(0, 0, -entries % ROWS, 0))
    return found


def _cores(part: Part, name: str) -> list[Floats]:
    keys = [f"{name}.cores.{place}" for place in range(len(part.weights)) if f"{name}.cores.{place}" in part.weights]
    return [part.weights[key] for key in keys]


def _slices(part: Part, name: str, core: Floats, digits: str) -> str:
    """Slices ``(N, r d r')`` of a core at ``digits``."""
    table = np.ascontiguousarray(core.swapaxes(0, 1)).reshape(core.shape[1], -1)
    return part.tables.rows(part.graph, name, digits, table, 1.0)
