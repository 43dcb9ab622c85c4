"""The encoder or the decoder in a graph: norms, linear layers, embeddings, one after another.

Shapes: B sentences, N tokens of each (in a decoding step hypotheses), C the width of the stream.
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

from fairseq_compress.architecture.configuration import architecture_of
from fairseq_compress.architecture.shape import Attention, Layer
from fairseq_compress.decoding.beam_search import Floats
from fairseq_compress.export.onnx.registry import EMBEDDINGS, LAYERS, LINEAR
from fairseq_compress.export.onnx.weights import Weights
from fairseq_compress.export.onnx_graph import MICROSOFT, GraphBuilder
from fairseq_compress.export.onnx_linear import Float32

ACTIVATIONS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "relu": ("Relu", "", {}),
    "gelu": ("Gelu", MICROSOFT, {}),
    "gelu_accurate": ("FastGelu", MICROSOFT, {}),
    "gelu_fast": ("FastGelu", MICROSOFT, {}),
    "swish": ("QuickGelu", MICROSOFT, {"alpha": 1.0}),
    "tanh": ("Tanh", "", {}),
}


class Part:
    """Builder of one part, ``encoder`` or ``decoder``, with the ``precision`` of its layers and that of tables."""

    def __init__(
        self, part: str, graph: GraphBuilder, weights: Weights, values: dict[str, Any], precision: Float32,
        padding: int = 1, tables: Float32 | None = None,
    ) -> None:  # fmt: skip
        self.name, self.graph, self.weights, self.values, self.precision = part, graph, weights, values, precision
        self.padding = padding  # its token
        self.tables = tables or precision
        self.before: bool = values[f"{part}_normalize_before"]
        architecture = architecture_of(argparse.Namespace(**values))
        self.architecture, self.embeddings = architecture, architecture.embeddings
        self.layers, self.width = architecture.stack(part).layers, architecture.stack(part).width
        self._matrices = {
            f"{part}.layers.{number}.{matrix.name}": "low_rank" if matrix.rank else "sparse"
            for number, layer in enumerate(self.layers)
            for matrix in layer.matrices
        }

    def prefix(self, number: int) -> str:
        """Start of the names of a layer."""
        return f"{self.name}.layers.{number}"

    def layer(self, number: int, x: str) -> str:
        """A layer, ``(B N, C)`` to the same."""
        return LAYERS["bottleneck" if self.layers[number].bottleneck else "stock"](self, number, x)

    def self_attention(self, number: int, x: str, values: str | None = None) -> str:
        """Self-attention of a layer, or what is in its place; ``values`` are the inputs of v, if not x."""
        raise NotImplementedError

    def cross_attention(self, number: int, x: str) -> str:
        """Attention of a layer to the source."""
        raise NotImplementedError

    def linear(self, x: str, name: str) -> str:
        """A linear layer of any form, ``(N, I)`` to ``(N, O)``."""
        form = LINEAR.get(self._matrices.get(name, "dense"))
        return self.joined(x, name) if form is None else form(self, x, name)

    def one_product(self, *names: str) -> bool:
        """Whether linear layers of one input can be one product."""
        return all(self._matrices.get(name, "dense") not in LINEAR for name in names)

    def joined(self, x: str, *names: str) -> str:
        """The concatenated outputs of linear layers of one input."""
        if not self.one_product(*names):
            return self.graph.node("Concat", *(self.linear(x, name) for name in names), axis=1)
        weights = [self.weights[f"{name}.weight"] for name in names]
        weight = weights[0] if len(names) == 1 else np.concatenate(weights)
        return self.precision.linear(self.graph, names[0], x, weight, self._bias(names))

    def separate(self, x: str, *names: str) -> list[str]:
        """The outputs of linear layers of one input and of one width, from one product where that is possible."""
        if len(names) == 1 or not self.one_product(*names):
            return [self.linear(x, name) for name in names]
        return self.graph.node("Split", self.joined(x, *names), outputs=len(names), axis=1, num_outputs=len(names))

    def _bias(self, names: tuple[str, ...]) -> Floats | None:
        """The concatenated biases, with zeros for a layer that has none; None if no layer has one."""
        if not any(f"{name}.bias" in self.weights for name in names):
            return None
        biases = [
            self.weights[f"{name}.bias"]
            if f"{name}.bias" in self.weights
            else np.zeros(len(self.weights[f"{name}.weight"]), np.float32)
            for name in names
        ]
        return np.concatenate(biases)

    def norm(self, x: str, name: str, kind: str = "layer") -> str:
        """A layer norm, or of the kind ``elementwise`` γ x + β."""
        affine = [self.graph.weight(key, self.weights[key]) for key in (f"{name}.weight", f"{name}.bias")]
        if kind == "elementwise":
            return self.graph.node("Add", self.graph.node("Mul", x, affine[0]), affine[1])
        return self.graph.node("LayerNormalization", x, *affine, axis=-1, epsilon=self.architecture.norm_eps)

    def residual(self, x: str, norm: str, block: Callable[[str], str]) -> str:
        """``x + block(norm(x))`` or ``norm(x + block(x))``."""
        inner = self.norm(x, norm) if self.before else x
        x = self.graph.node("Add", block(inner), x)
        return x if self.before else self.norm(x, norm)

    def activation(self, x: str) -> str:
        operator, domain, attributes = ACTIVATIONS[self.values["activation_fn"]]
        return self.graph.node(operator, x, domain=domain, **attributes)

    def feed_forward(self, x: str, prefix: str) -> str:
        return self.linear(self.activation(self.linear(x, f"{prefix}.fc1")), f"{prefix}.fc2")

    def embed(self, tokens: str, positions: str) -> str:
        """Tokens ``(B, N)`` and rows of positions to ``(B N, C)``."""
        scale = 1.0 if self.values["no_scale_embedding"] else self.width**0.5
        x = self.vectors(tokens, scale)
        project = f"{self.name}.project_in_dim"
        if f"{project}.weight" in self.weights:
            x = self.graph.reshape(x, -1, self.weights[f"{project}.weight"].shape[1])
            x = self.graph.node("Reshape", self.linear(x, project), self.graph.shape(tokens, self.width))
        x = self.graph.node("Add", x, positions)
        if self.values["layernorm_embedding"]:
            x = self.norm(x, f"{self.name}.layernorm_embedding")
        return self.graph.reshape(x, -1, self.width)

    def vectors(self, tokens: str, scale: float) -> str:
        """Embeddings ``(B, N, E)`` of tokens, times ``scale``."""
        return EMBEDDINGS[self.embeddings.kind].embed(self, tokens, scale)

    def stack(self, x: str) -> str:
        """All layers and the last norm."""
        for number in range(len(self.layers)):
            x = self.layer(number, x)
        last = f"{self.name}.layer_norm"
        return self.norm(x, last) if f"{last}.weight" in self.weights else x

    def attend(self, shape: Attention, q: str, k: str, v: str, mask: str) -> str:
        """Queries ``(B, N, H D)``, keys and values ``(B, M, H D)`` or ``(B, H, M, D)``, a mask to ``(B N, H D)``."""
        attended = self.graph.node(
            "MultiHeadAttention", q, k, v, "", mask, domain=MICROSOFT, num_heads=shape.heads,
            scale=float(shape.head_width**-0.5),
        )  # fmt: skip
        return self.graph.reshape(attended, -1, shape.width)


def cross_attentions(layers: tuple[Layer, ...]) -> dict[int, Attention]:
    """Number of a layer -> its attention to the source."""
    return {number: layer.cross_attention for number, layer in enumerate(layers) if layer.cross_attention is not None}
