"""The graph of the encoder, which computes the keys and values of the source for every decoder layer too.

Shapes: B sentences, S source tokens, C the width of the stream, H heads of width D.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_compress.export.onnx.part import Part, cross_attentions
from fairseq_compress.export.onnx.shortlist import CHOSEN
from fairseq_compress.export.onnx.weights import Weights
from fairseq_compress.export.onnx_graph import GraphBuilder, WeightFile
from fairseq_compress.export.onnx_linear import Float32

TOKENS, MASK = "tokens", "mask"


class Encoder(Part):
    """The encoder in a graph with the inputs ``tokens`` and ``mask``, (B, S)."""

    def self_attention(self, number: int, x: str, values: str | None = None) -> str:
        own, shape = f"{self.prefix(number)}.self_attn", self.layers[number].self_attention
        names = [f"{own}.{part}_proj" for part in "qkv"]
        sizes = self.graph.shape(TOKENS, shape.width)
        if values is None and self.one_product(*names):
            whole = self.graph.node("Reshape", self.joined(x, *names), self.graph.shape(TOKENS, 3 * shape.width))
            qkv = self.graph.node("Split", whole, outputs=3, axis=2, num_outputs=3)
        else:
            flat = [*self.separate(x, *names[:2]), self.linear(values or x, names[2])]
            qkv = [self.graph.node("Reshape", each, sizes) for each in flat]
        q, k, v = qkv
        return self.linear(self.attend(shape, q, k, v, MASK), f"{own}.out_proj")


def write_encoder(
    path: Path, file: WeightFile, weights: Weights, values: dict[str, Any], precision: Float32, tables: Float32,
    select: Callable[[Part, dict[str, Any]], list[str]] | None = None,
) -> list[str]:  # fmt: skip
    """From ``tokens (B, S)``, ``positions (1, S, C)``, ``mask (B, S)`` to ``source_L (2, B, H, S, D)``.

    L is the number of a decoder layer that attends to the source; ``tables`` is the precision of embeddings. ``select``
    adds the rows of a shortlist (:func:`fairseq_compress.export.onnx.shortlist.select_rows`), whose names are returned.
    """
    graph = GraphBuilder(file)
    encoder = Encoder("encoder", graph, weights, values, precision, tables=tables)
    decoder = Part("decoder", graph, weights, values, precision, tables=tables)
    x = encoder.stack(encoder.embed(TOKENS, "positions"))
    outputs: dict[str, Any] = {}
    for number, shape in cross_attentions(decoder.layers).items():
        cross = f"{decoder.prefix(number)}.encoder_attn"
        sizes = graph.shape(TOKENS, 2, shape.heads, shape.head_width)
        kv = graph.node("Reshape", decoder.joined(x, f"{cross}.k_proj", f"{cross}.v_proj"), sizes)
        graph.node("Transpose", kv, outputs=[f"source_{number}"], perm=[2, 0, 3, 1, 4])
        outputs[f"source_{number}"] = (np.float32, [2, "B", shape.heads, "S", shape.head_width])
    positions = (np.float32, [1, "S", encoder.width])
    inputs: dict[str, Any] = {TOKENS: (np.int64, ["B", "S"]), "positions": positions, MASK: (np.int32, ["B", "S"])}
    chosen = [] if select is None else select(decoder, outputs)
    if chosen:
        inputs[CHOSEN] = (np.int64, ["U"])
    graph.save(path, inputs, outputs)
    return chosen
