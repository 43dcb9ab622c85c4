"""fairseq's transformer as two ONNX graphs: the encoder, and one decoding step.

The encoder gives for every decoder layer the keys and values of the source, once a sentence. A step takes them, the
keys and values of the steps before (``past``) and the last tokens, and gives its own keys and values, which the caller
puts into ``past``, and the best next tokens. The hypotheses of a sentence share one ``past``: each attends to the slots
on its own path, which a mask tells, so nothing is copied when the beam is reordered. A hypothesis attends to its own
last token apart from ``past``, so that no key or value is copied within a step either.

Shapes: B sentences, S source tokens, G hypotheses of a sentence, P slots, H heads of width D, C = H D, V entries.
"""

from pathlib import Path
from typing import Any

import numpy as np

from fairseq_compress.export.onnx_graph import MICROSOFT, GraphBuilder, WeightFile
from fairseq_compress.export.onnx_linear import Floats, Precision

ACTIVATIONS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "relu": ("Relu", "", {}),
    "gelu": ("Gelu", MICROSOFT, {}),
    "gelu_accurate": ("FastGelu", MICROSOFT, {}),
    "gelu_fast": ("FastGelu", MICROSOFT, {}),
    "tanh": ("Tanh", "", {}),
}
EPSILON = 1e-5  # of fairseq's layer norms
Weights = dict[str, Floats]


class _Side:
    """What encoder and decoder have in common.

    Args:
        side: ``encoder`` or ``decoder``.
    """

    def __init__(
        self, side: str, file: WeightFile, weights: Weights, values: dict[str, Any], precision: Precision
    ) -> None:
        self.graph = GraphBuilder(file)
        self.side, self.weights, self.values, self.precision = side, weights, values, precision
        self.before: bool = values[f"{side}_normalize_before"]
        self.heads: int = values[f"{side}_attention_heads"]
        self.layers: int = values[f"{side}_layers"]
        self.width: int = values[f"{side}_embed_dim"]
        self.head_width = self.width // self.heads

    def linear(self, x: str, *names: str, scales: tuple[float, ...] = ()) -> str:
        """Projections of one input side by side, each times its scale."""
        factors = scales or (1.0,) * len(names)
        weight = np.concatenate(
            [self.weights[f"{name}.weight"] * np.float32(factor) for name, factor in zip(names, factors, strict=True)]
        )
        bias = None
        if f"{names[0]}.bias" in self.weights:
            bias = np.concatenate(
                [self.weights[f"{name}.bias"] * np.float32(factor) for name, factor in zip(names, factors, strict=True)]
            )
        return self.precision.linear(self.graph, names[0], x, weight, bias)

    def norm(self, x: str, name: str) -> str:
        """A layer norm."""
        scale, bias = (
            self.graph.weight(f"{name}.{part}", self.weights[f"{name}.{part}"]) for part in ("weight", "bias")
        )
        found: str = self.graph.node("LayerNormalization", x, scale, bias, axis=-1, epsilon=EPSILON)
        return found

    def embed(self, tokens: str, positions: str) -> str:
        """Tokens ``(B, N)`` and rows of positions to ``(B N, C)``."""
        scale = 1.0 if self.values["no_scale_embedding"] else self.width**0.5
        key = f"{self.side}.embed_tokens"
        name = "encoder.embed_tokens" if self.shares_tables() else key
        x = self.precision.rows(self.graph, name, tokens, self.weights[f"{key}.weight"], scale)
        if f"{self.side}.project_in_dim.weight" in self.weights:
            x = self.linear(
                self.graph.reshape(x, -1, self.weights[f"{key}.weight"].shape[1]), f"{self.side}.project_in_dim"
            )
            sizes = self.graph.node("Concat", self.graph.node("Shape", tokens), self.graph.integers(self.width), axis=0)
            x = self.graph.node("Reshape", x, sizes)
        x = self.graph.node("Add", x, positions)
        if self.values["layernorm_embedding"]:
            x = self.norm(x, f"{self.side}.layernorm_embedding")
        return self.graph.reshape(x, -1, self.width)

    def shares_tables(self) -> bool:
        """The decoder reads the table of the encoder."""
        tables = [self.weights[f"{side}.embed_tokens.weight"] for side in ("encoder", "decoder")]
        return np.array_equal(tables[0], tables[1])

    def residual(self, x: str, norm: str, block: Any) -> str:
        """``x + block(norm(x))`` or ``norm(x + block(x))``."""
        inner = self.norm(x, norm) if self.before else x
        x = self.graph.node("Add", block(inner), x)
        return x if self.before else self.norm(x, norm)

    def feed_forward(self, x: str, layer: str) -> str:
        """The two linear layers and the activation between them."""
        x = self.linear(x, f"{layer}.fc1")
        operator, domain, attributes = ACTIVATIONS[self.values["activation_fn"]]
        return self.linear(self.graph.node(operator, x, domain=domain, **attributes), f"{layer}.fc2")

    def heads_first(self, x: str, shape: str, parts: int) -> str:
        """``(B N, parts C)`` to ``(parts, B, H, N, D)``; ``shape`` names the sizes B and N."""
        sizes = self.graph.node("Concat", shape, self.graph.integers(parts, self.heads, self.head_width), axis=0)
        found: str = self.graph.node("Transpose", self.graph.node("Reshape", x, sizes), perm=[2, 0, 3, 1, 4])
        return found

    def attend(self, weights: str, v: str) -> str:
        """Weights ``(.., H, N, M)`` times values ``(.., H, M, D)``."""
        found: str = self.graph.node("MatMul", weights, v)
        return found

    def heads_last(self, x: str) -> str:
        """``(1, B, H, N, D)`` to ``(B N, C)``."""
        return self.graph.reshape(self.graph.node("Transpose", x, perm=[0, 1, 3, 2, 4]), -1, self.width)


def write_encoder(path: Path, file: WeightFile, weights: Weights, values: dict[str, Any], precision: Precision) -> None:
    """From ``tokens (B, S)``, ``positions (1, S, C)``, ``mask (B, 1, 1, S)`` to ``source_L (2, B, H, S, D)``."""
    side = _Side("encoder", file, weights, values, precision)
    graph = side.graph
    shape = graph.node("Shape", "tokens")
    x = side.embed("tokens", "positions")

    def attention(layer: str) -> Any:
        own = f"{layer}.self_attn"

        def block(x: str) -> str:
            names = (f"{own}.q_proj", f"{own}.k_proj", f"{own}.v_proj")
            qkv = side.heads_first(side.linear(x, *names, scales=(side.head_width**-0.5, 1, 1)), shape, 3)
            q, k, v = graph.node("Split", qkv, outputs=3, axis=0, num_outputs=3)
            scores = graph.node("FusedMatMul", q, k, transB=1, domain=MICROSOFT)
            chosen = graph.node("Softmax", graph.node("Add", scores, "mask"), axis=-1)
            return side.linear(side.heads_last(side.attend(chosen, v)), f"{own}.out_proj")

        return block

    for number in range(side.layers):
        layer = f"encoder.layers.{number}"
        x = side.residual(x, f"{layer}.self_attn_layer_norm", attention(layer))
        x = side.residual(x, f"{layer}.final_layer_norm", lambda inner, layer=layer: side.feed_forward(inner, layer))
    if side.before:
        x = side.norm(x, "encoder.layer_norm")
    decoder = _Side("decoder", file, weights, values, precision)
    decoder.graph = graph
    outputs: dict[str, Any] = {}
    for number in range(decoder.layers):
        cross = f"decoder.layers.{number}.encoder_attn"
        kv = decoder.heads_first(decoder.linear(x, f"{cross}.k_proj", f"{cross}.v_proj"), shape, 2)
        graph.node("Identity", kv, outputs=[f"source_{number}"])
        outputs[f"source_{number}"] = (np.float32, [2, "B", decoder.heads, "S", decoder.head_width])
    inputs: dict[str, Any] = {
        "tokens": (np.int64, ["B", "S"]),
        "positions": (np.float32, [1, "S", side.width]),
        "mask": (np.float32, ["B", 1, 1, "S"]),
    }
    graph.save(path, inputs, outputs)


def write_step(
    path: Path, file: WeightFile, weights: Weights, values: dict[str, Any], precision: Precision, entries: int, eos: int
) -> None:
    """The graph of a step; V is the number of rows of the output, of which the first ``entries`` stand for tokens.

    Inputs: ``tokens (B, G)``; ``position (1, 1, C)``; ``mask (B or 1, 1, G, P)``, 0 for slots on a hypothesis' path,
    else -inf; ``source_mask (B, 1, 1, S)``; ``penalty (V,)``, added to log-probabilities before the best are chosen;
    ``count (1,)``, how many; for each layer ``past_L_k``, ``past_L_v (B, H, P, D)``, ``source_L_k``, ``source_L_v``.
    Outputs: ``new (2 layers, B, H, G, D)``, keys and values in turn; ``log_probs`` and ``best (B, G, count)``;
    ``eos (B, G)``.
    """
    side = _Side("decoder", file, weights, values, precision)
    graph = side.graph
    shape = graph.node("Shape", "tokens")
    x = side.embed("tokens", "position")
    new: list[str] = []
    scale = side.head_width**-0.5

    def self_attention(number: int) -> Any:
        own = f"decoder.layers.{number}.self_attn"

        def block(x: str) -> str:
            names = (f"{own}.q_proj", f"{own}.k_proj", f"{own}.v_proj")
            qkv = side.heads_first(side.linear(x, *names, scales=(scale, 1, 1)), shape, 3)
            q, k, v = graph.node("Split", qkv, outputs=3, axis=0, num_outputs=3)
            new.extend((k, v))
            scores = graph.node("FusedMatMul", q, f"past_{number}_k", transB=1, domain=MICROSOFT)
            scores = graph.node("Add", scores, "mask")
            last = graph.node("ReduceSum", graph.node("Mul", q, k), graph.integers(-1), keepdims=1)
            chosen = graph.node("Softmax", graph.node("Concat", scores, last, axis=-1), axis=-1)
            sizes = graph.node("Concat", slots, graph.integers(1), axis=0)
            before, now = graph.node("Split", chosen, sizes, outputs=2, axis=-1)
            attended = graph.node("Add", side.attend(before, f"past_{number}_v"), graph.node("Mul", now, v))
            return side.linear(side.heads_last(attended), f"{own}.out_proj")

        return block

    def cross_attention(number: int) -> Any:
        cross = f"decoder.layers.{number}.encoder_attn"

        def block(x: str) -> str:
            q = graph.node("Reshape", side.linear(x, f"{cross}.q_proj", scales=(scale,)), features)
            kv = (f"source_{number}_k", f"source_{number}_v")
            attended = graph.node(
                "MultiHeadAttention", q, *kv, "", "source_mask", domain=MICROSOFT, num_heads=side.heads, scale=1.0
            )
            return side.linear(graph.reshape(attended, -1, side.width), f"{cross}.out_proj")

        return block

    slots = graph.node("Shape", "mask", start=3, end=4)
    features = graph.node("Concat", shape, graph.integers(side.width), axis=0)
    for number in range(side.layers):
        layer = f"decoder.layers.{number}"
        x = side.residual(x, f"{layer}.self_attn_layer_norm", self_attention(number))
        x = side.residual(x, f"{layer}.encoder_attn_layer_norm", cross_attention(number))
        x = side.residual(x, f"{layer}.final_layer_norm", lambda inner, layer=layer: side.feed_forward(inner, layer))
    if side.before:
        x = side.norm(x, "decoder.layer_norm")
    if "decoder.project_out_dim.weight" in weights:
        x = side.linear(x, "decoder.project_out_dim")
    graph.node("Concat", *new, outputs=["new"], axis=0)
    _choose(side, x, shape, entries, eos)
    cache = ["B", side.heads, "P", side.head_width]
    source = ["B", side.heads, "S", side.head_width]
    inputs: dict[str, Any] = {
        "tokens": (np.int64, ["B", "G"]),
        "position": (np.float32, [1, 1, side.width]),
        "mask": (np.float32, ["B or 1", 1, "G", "P"]),
        "source_mask": (np.int32, ["B", "S"]),
        "penalty": (np.float32, ["V"]),
        "count": (np.int64, [1]),
    }
    for kind, sizes in (("past", cache), ("source", source)):
        for number in range(side.layers):
            inputs |= {f"{kind}_{number}_{part}": (np.float32, sizes) for part in ("k", "v")}
    outputs = {
        "new": (np.float32, [2 * side.layers, "B", side.heads, "G", side.head_width]),
        "log_probs": (np.float32, ["B", "G", "K"]),
        "best": (np.int64, ["B", "G", "K"]),
        "eos": (np.float32, ["B", "G"]),
    }
    graph.save(path, inputs, outputs)


def _choose(side: _Side, x: str, shape: str, entries: int, eos: int) -> None:
    """From features ``(B G, C)`` to the best tokens; the matrix has rows of zeros behind the V entries."""
    graph = side.graph
    output = side.weights["decoder.output_projection.weight"]
    padding: Floats = np.where(np.arange(len(output)) < entries, 0, -np.inf).astype(np.float32)
    for name in ("encoder", "decoder") if side.shares_tables() else ("decoder",):
        table = side.weights[f"{name}.embed_tokens.weight"]
        if np.array_equal(output, table):
            logits = side.precision.tied_linear(graph, f"{name}.embed_tokens", x, output, padding)
            break
    else:
        name = "decoder.output_projection"
        bias = side.weights.get(f"{name}.bias", np.zeros(entries, np.float32))
        padding[:entries] = bias[:entries]
        logits = side.precision.linear(graph, name, x, output, padding)
    log_probs = graph.node("LogSoftmax", logits, axis=-1)
    ends = graph.node("Gather", log_probs, graph.integers(eos), axis=1)
    graph.node("Reshape", ends, shape, outputs=["eos"])
    best, tokens = graph.node("TopK", graph.node("Add", log_probs, "penalty"), "count", outputs=2, axis=-1)
    sizes = graph.node("Concat", shape, "count", axis=0)
    graph.node("Reshape", best, sizes, outputs=["log_probs"])
    graph.node("Reshape", tokens, sizes, outputs=["best"])
