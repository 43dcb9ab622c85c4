"""fairseq's transformer as two ONNX graphs: the encoder, and one decoding step.

The encoder computes the keys and values of the source for every decoder layer. A step takes them and the last tokens,
appends its keys and values to ``past`` (whose memory the caller binds as output ``new`` too), and returns the best next
tokens. ``path`` selects the past of each hypothesis, so that reordering the beam copies no keys and values: ONNX
Runtime's ``DecoderMaskedMultiHeadAttention``.

Shapes: B sentences, S source tokens, G hypotheses of a sentence, P steps, C the width of the stream, H heads of width D
(in each layer its own), V entries.
"""

from pathlib import Path
from typing import Any

import numpy as np

from fairseq_compress.architecture.shape import Attention
from fairseq_compress.decoding.beam_search import Floats
from fairseq_compress.export.onnx_graph import MICROSOFT, GraphBuilder, WeightFile
from fairseq_compress.export.onnx_layers import Side, Weights
from fairseq_compress.export.onnx_linear import Float32


def write_encoder(path: Path, file: WeightFile, weights: Weights, values: dict[str, Any], precision: Float32) -> None:
    """From ``tokens (B, S)``, ``positions (1, S, C)``, ``mask (B, S)`` to ``source_L (2, B, H, S, D)``."""
    graph = GraphBuilder(file)
    side = Side("encoder", graph, weights, values, precision)
    x = side.embed("tokens", "positions")

    def attention(x: str, own: str, shape: Attention) -> str:
        q, k, v = side.projections(x, own, shape, "qkv")
        return side.linear(side.attend(shape, q, k, v, "mask"), f"{own}.out_proj")

    for number, form in enumerate(side.layers):
        layer = f"encoder.layers.{number}"
        x = side.residual(x, f"{layer}.self_attn_layer_norm", attention, f"{layer}.self_attn", form.self_attention)
        x = side.residual(x, f"{layer}.final_layer_norm", side.feed_forward, layer)
    if side.before:
        x = side.norm(x, "encoder.layer_norm")
    decoder = Side("decoder", graph, weights, values, precision)
    outputs: dict[str, Any] = {}
    for number, (_, shape) in enumerate(attentions(decoder)):
        cross = f"decoder.layers.{number}.encoder_attn"
        sizes = graph.shape("tokens", 2, shape.heads, shape.head_width)
        kv = graph.node("Reshape", decoder.linear(x, f"{cross}.k_proj", f"{cross}.v_proj"), sizes)
        graph.node("Transpose", kv, outputs=[f"source_{number}"], perm=[2, 0, 3, 1, 4])
        outputs[f"source_{number}"] = (np.float32, [2, "B", shape.heads, "S", shape.head_width])
    positions = (np.float32, [1, "S", side.width])
    inputs: dict[str, Any] = {"tokens": (np.int64, ["B", "S"]), "positions": positions, "mask": (np.int32, ["B", "S"])}
    graph.save(path, inputs, outputs)


def write_step(
    path: Path, file: WeightFile, weights: Weights, values: dict[str, Any], precision: Float32, entries: int, eos: int
) -> None:
    """The graph of a step; V is the number of rows of the output, of which the first ``entries`` are tokens.

    Inputs: ``tokens (B, G)``; ``position (1, 1, C)``; ``step (1,)``, its number from 0; ``beam (1,)``, G; ``path (B, G,
    P)``, see ``runtimes/onnx/steps.py``; ``source_mask (B, S)``, 1 for tokens; ``penalty (V,)``, added to
    log-probabilities before the best are chosen; ``count (1,)``, how many; for each layer ``past_L_k`` and ``past_L_v
    (B G, H, P, D)``, ``source_L_k`` and ``source_L_v (B, H, S, D)``.
    Outputs: ``new_L_k``, ``new_L_v``, which must be the memory of ``past``; ``log_probs`` and ``best (B, G, count)``;
    ``eos (B, G)``.
    """
    graph = GraphBuilder(file)
    side = Side("decoder", graph, weights, values, precision)
    x = side.embed("tokens", "position")

    def self_attention(x: str, number: int, shape: Attention) -> str:
        own = f"decoder.layers.{number}.self_attn"
        qkv = side.projections(x, own, shape, "qkv", sizes=(-1, 1))
        past = (f"past_{number}_k", f"past_{number}_v")
        attended, *_ = graph.node(
            "DecoderMaskedMultiHeadAttention", *qkv, "", "", *past, "step", "beam", "path", domain=MICROSOFT,
            outputs=[f"attended_{number}", f"new_{number}_k", f"new_{number}_v"], num_heads=shape.heads, scale=1.0,
            past_present_share_buffer=1,
        )  # fmt: skip
        return side.linear(graph.reshape(attended, -1, shape.width), f"{own}.out_proj")

    def cross_attention(x: str, number: int, shape: Attention) -> str:
        cross = f"decoder.layers.{number}.encoder_attn"
        (q,) = side.projections(x, cross, shape, "q")
        attended = side.attend(shape, q, f"source_{number}_k", f"source_{number}_v", "source_mask")
        return side.linear(attended, f"{cross}.out_proj")

    for number, (own, cross) in enumerate(attentions(side)):
        layer = f"decoder.layers.{number}"
        x = side.residual(x, f"{layer}.self_attn_layer_norm", self_attention, number, own)
        x = side.residual(x, f"{layer}.encoder_attn_layer_norm", cross_attention, number, cross)
        x = side.residual(x, f"{layer}.final_layer_norm", side.feed_forward, layer)
    if side.before:
        x = side.norm(x, "decoder.layer_norm")
    if "decoder.project_out_dim.weight" in weights:
        x = side.linear(x, "decoder.project_out_dim")
    _choose(side, x, entries, eos)
    graph.save(path, *_step_tensors(side))


def _step_tensors(side: Side) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and outputs of a step: name -> dtype and shape."""
    inputs: dict[str, Any] = {
        "tokens": (np.int64, ["B", "G"]),
        "position": (np.float32, [1, 1, side.width]),
        "step": (np.int32, [1]),
        "beam": (np.int32, [1]),
        "path": (np.int32, ["B", "G", "P"]),
        "source_mask": (np.int32, ["B", "S"]),
        "penalty": (np.float32, ["V"]),
        "count": (np.int64, [1]),
    }
    outputs: dict[str, Any] = {
        "log_probs": (np.float32, ["B", "G", "K"]),
        "best": (np.int64, ["B", "G", "K"]),
        "eos": (np.float32, ["B", "G"]),
    }
    for number, (own, cross) in enumerate(attentions(side)):
        past = (np.float32, ["B G", own.heads, "P", own.head_width])
        source = (np.float32, ["B", cross.heads, "S", cross.head_width])
        for part in "kv":
            inputs |= {f"past_{number}_{part}": past, f"source_{number}_{part}": source}
            outputs[f"new_{number}_{part}"] = past
    return inputs, outputs


def attentions(decoder: Side) -> list[tuple[Attention, Attention]]:
    """Self-attention and attention to the encoder of each layer."""
    pairs = [(layer.self_attention, layer.cross_attention) for layer in decoder.layers]
    return [(own, cross) for own, cross in pairs if cross is not None]


def _choose(side: Side, x: str, entries: int, eos: int) -> None:
    """From features ``(B G, C)`` to the best tokens; the matrix is padded with rows of zeros."""
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
    graph.node("Reshape", ends, graph.shape("tokens"), outputs=["eos"])
    best, tokens = graph.node("TopK", graph.node("Add", log_probs, "penalty"), "count", outputs=2, axis=-1)
    sizes = graph.node("Concat", graph.shape("tokens"), "count", axis=0)
    graph.node("Reshape", best, sizes, outputs=["log_probs"])
    graph.node("Reshape", tokens, sizes, outputs=["best"])
