"""Embeddings, norms, projections and attention of the graphs of encoder and decoder.

Shapes: B sentences, N tokens of each, C the width of the stream, H heads of width D.
"""

import argparse
from typing import Any

import numpy as np

from fairseq_compress.architecture.configuration import architecture_of
from fairseq_compress.architecture.shape import Attention
from fairseq_compress.decoding.beam_search import Floats
from fairseq_compress.export.onnx_graph import MICROSOFT, GraphBuilder
from fairseq_compress.export.onnx_linear import Float32

ACTIVATIONS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "relu": ("Relu", "", {}),
    "gelu": ("Gelu", MICROSOFT, {}),
    "gelu_accurate": ("FastGelu", MICROSOFT, {}),
    "gelu_fast": ("FastGelu", MICROSOFT, {}),
    "tanh": ("Tanh", "", {}),
}
EPSILON = 1e-5  # of fairseq's layer norms
Weights = dict[str, Floats]


class Side:
    """Builder of the layers of one side, ``encoder`` or ``decoder``."""

    def __init__(
        self, side: str, graph: GraphBuilder, weights: Weights, values: dict[str, Any], precision: Float32
    ) -> None:
        self.graph = graph
        self.side, self.weights, self.values, self.precision = side, weights, values, precision
        self.before: bool = values[f"{side}_normalize_before"]
        stack = architecture_of(argparse.Namespace(**values)).stack(side)
        self.layers, self.width = stack.layers, stack.width

    def linear(self, x: str, *names: str, scales: tuple[float, ...] = ()) -> str:
        """Concatenated projections of one input, each times its scale."""
        factors = scales or (1.0,) * len(names)

        def joined(part: str) -> Floats:
            pairs = zip(names, factors, strict=True)
            return np.concatenate([self.weights[f"{name}.{part}"] * np.float32(factor) for name, factor in pairs])

        bias = joined("bias") if f"{names[0]}.bias" in self.weights else None
        return self.precision.linear(self.graph, names[0], x, joined("weight"), bias)

    def norm(self, x: str, name: str) -> str:
        """A layer norm."""
        affine = [self.graph.weight(key, self.weights[key]) for key in (f"{name}.weight", f"{name}.bias")]
        return self.graph.node("LayerNormalization", x, *affine, axis=-1, epsilon=EPSILON)

    def embed(self, tokens: str, positions: str) -> str:
        """Tokens ``(B, N)`` and rows of positions to ``(B N, C)``."""
        scale = 1.0 if self.values["no_scale_embedding"] else self.width**0.5
        key = f"{self.side}.embed_tokens"
        name = "encoder.embed_tokens" if self.shares_tables() else key
        x = self.precision.rows(self.graph, name, tokens, self.weights[f"{key}.weight"], scale)
        if f"{self.side}.project_in_dim.weight" in self.weights:
            x = self.graph.reshape(x, -1, self.weights[f"{key}.weight"].shape[1])
            x = self.linear(x, f"{self.side}.project_in_dim")
            x = self.graph.node("Reshape", x, self.graph.shape(tokens, self.width))
        x = self.graph.node("Add", x, positions)
        if self.values["layernorm_embedding"]:
            x = self.norm(x, f"{self.side}.layernorm_embedding")
        return self.graph.reshape(x, -1, self.width)

    def shares_tables(self) -> bool:
        """Whether the decoder reads the table of the encoder."""
        encoder, decoder = (self.weights[f"{side}.embed_tokens.weight"] for side in ("encoder", "decoder"))
        return np.array_equal(encoder, decoder)

    def residual(self, x: str, norm: str, block: Any, *more: Any) -> str:
        """``x + block(norm(x), more)`` or ``norm(x + block(x, more))``."""
        inner = self.norm(x, norm) if self.before else x
        x = self.graph.node("Add", block(inner, *more), x)
        return x if self.before else self.norm(x, norm)

    def feed_forward(self, x: str, layer: str) -> str:
        x = self.linear(x, f"{layer}.fc1")
        operator, domain, attributes = ACTIVATIONS[self.values["activation_fn"]]
        return self.linear(self.graph.node(operator, x, domain=domain, **attributes), f"{layer}.fc2")

    def projections(
        self, x: str, name: str, shape: Attention, parts: str, sizes: tuple[int, int] | None = None
    ) -> list[str]:
        """``q`` or ``qkv`` of an attention, ``(B N, C)`` to ``(B, N, H D)`` or other sizes; queries are over √D."""
        scales = (shape.head_width**-0.5, *(1.0,) * (len(parts) - 1))
        x = self.linear(x, *(f"{name}.{part}_proj" for part in parts), scales=scales)
        width = len(parts) * shape.width
        if sizes is None:
            x = self.graph.node("Reshape", x, self.graph.shape("tokens", width))
        else:
            x = self.graph.reshape(x, *sizes, width)
        if len(parts) == 1:
            return [x]
        return self.graph.node("Split", x, outputs=len(parts), axis=2, num_outputs=len(parts))

    def attend(self, shape: Attention, q: str, k: str, v: str, mask: str) -> str:
        """Queries ``(B, N, H D)``, keys and values ``(B, M, H D)`` or ``(B, H, M, D)``, a mask to ``(B N, H D)``."""
        attended = self.graph.node(
            "MultiHeadAttention", q, k, v, "", mask, domain=MICROSOFT, num_heads=shape.heads, scale=1.0
        )
        return self.graph.reshape(attended, -1, shape.width)
