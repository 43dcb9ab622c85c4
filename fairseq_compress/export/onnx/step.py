"""The graph of a decoding step.

It takes the last tokens and what the layers keep of the former steps: keys and values of attention, or the states of
recurrent units. Its own keys and values are appended to ``past``, whose memory the caller binds as the output ``new``
too. ``path`` selects the past of each hypothesis, so that reordering the beam copies no keys and values: ONNX Runtime's
``DecoderMaskedMultiHeadAttention``. States are small, and the caller reorders them.

Shapes: B sentences, S source tokens, G hypotheses of a sentence, P steps, C the width of the stream, H heads of width D
(in each layer its own), V entries.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_compress.architecture.shape import Attention
from fairseq_compress.decoding.beam_search import Symbols
from fairseq_compress.export.onnx import shortlist
from fairseq_compress.export.onnx.part import Part
from fairseq_compress.export.onnx.registry import EMBEDDINGS, UNITS
from fairseq_compress.export.onnx.weights import Weights
from fairseq_compress.export.onnx_graph import MICROSOFT, GraphBuilder, Tensors, WeightFile
from fairseq_compress.export.onnx_linear import Float32

TOKENS, STEP = "tokens", "step"


class Step(Part):
    """The decoder in the graph of a step, with its inputs and outputs."""

    def __init__(
        self, graph: GraphBuilder, weights: Weights, values: dict[str, Any], precision: Float32, symbols: Symbols
    ) -> None:
        super().__init__("decoder", graph, weights, values, precision, symbols.pad)
        self.symbols = symbols
        self.inputs: Tensors = {
            TOKENS: (np.int64, ["B", "G"]),
            "position": (np.float32, [1, 1, self.width]),
            STEP: (np.int32, [1]),
            "beam": (np.int32, [1]),
            "path": (np.int32, ["B", "G", "P"]),
            "source_mask": (np.int32, ["B", "S"]),
        }
        self.outputs: Tensors = {}
        self.carried: dict[str, str] = {}
        """Input -> the output whose values it has in the next step, of the same shape."""
        self.attends_to_itself = any(layer.self_attention.kind == "attention" for layer in self.layers)
        self.states: dict[str, int] = {}
        """Name -> width of what is kept of each hypothesis besides keys and values, ``(B G, width)``, zeros first."""

    def state(self, name: str, width: int) -> str:
        """A state after the step before; :meth:`renew` must give that after this step."""
        self.states[name] = width
        return self._carry(f"state_{name}", f"new_state_{name}", width)

    def renew(self, name: str, value: str) -> None:
        self.graph.node("Identity", value, outputs=[f"new_state_{name}"])

    def vectors(self, tokens: str, scale: float) -> str:
        """As in the encoder, but EOS, with which the decoder starts, may be a zero vector."""
        x, graph = super().vectors(tokens, scale), self.graph
        if self.architecture.decoder_start == "eos":
            return x
        columns = graph.node("Unsqueeze", tokens, graph.integers(-1))
        is_start = graph.node("Equal", columns, graph.constant(np.asarray(self.symbols.eos, np.int64)))
        return graph.node("Where", is_start, graph.constant(np.asarray(0, np.float32)), x)

    def _carry(self, name: str, new: str, *sizes: int | str) -> str:
        """An input ``(B G, sizes)`` that has the values of the output ``new`` of the step before."""
        self.carried[name] = new
        self.inputs[name] = self.outputs[new] = (np.float32, ["B G", *sizes])
        return name

    def self_attention(self, number: int, x: str, values: str | None = None) -> str:
        kind = self.layers[number].self_attention.kind
        return self._attention(number, x, values or x) if kind == "attention" else UNITS[kind](self, number, x)

    def _attention(self, number: int, x: str, values: str) -> str:
        """Attention to the tokens so far."""
        own, shape = f"{self.prefix(number)}.self_attn", self.layers[number].self_attention
        names = [f"{own}.{part}_proj" for part in "qkv"]
        if x == values and self.one_product(*names):
            whole = self.graph.reshape(self.joined(x, *names), -1, 1, 3 * shape.width)
            qkv = self.graph.node("Split", whole, outputs=3, axis=2, num_outputs=3)
        else:
            flat = [*self.separate(x, *names[:2]), self.linear(values, names[2])]
            qkv = [self.graph.reshape(each, -1, 1, shape.width) for each in flat]
        past, new = ([f"{kind}_{number}_{part}" for part in "kv"] for kind in ("past", "new"))
        for pair in zip(past, new, strict=True):
            self._carry(*pair, shape.heads, "P", shape.head_width)
        attended, *_ = self.graph.node(
            "DecoderMaskedMultiHeadAttention", *qkv, "", "", *past, STEP, "beam", "path", domain=MICROSOFT,
            outputs=[f"attended_{number}", *new], num_heads=shape.heads, scale=float(shape.head_width**-0.5),
            past_present_share_buffer=1,
        )  # fmt: skip
        return self.linear(self.graph.reshape(attended, -1, shape.width), f"{own}.out_proj")

    def cross_attention(self, number: int, x: str) -> str:
        cross, shape = f"{self.prefix(number)}.encoder_attn", self.layers[number].cross_attention
        assert isinstance(shape, Attention)
        k, v = (f"source_{number}_{part}" for part in "kv")
        self.inputs |= dict.fromkeys((k, v), (np.float32, ["B", shape.heads, "S", shape.head_width]))
        q = self.of_sentences(self.linear(x, f"{cross}.q_proj"), shape.width)
        return self.linear(self.attend(shape, q, k, v, "source_mask"), f"{cross}.out_proj")

    def of_sentences(self, x: str, width: int) -> str:
        """From ``(B G, width)`` to ``(B, G, width)``."""
        return self.graph.node("Reshape", x, self.graph.shape(TOKENS, width))

    def features(self) -> str:
        """What the output layer reads, ``(B G, C)``."""
        x = self.stack(self.embed(TOKENS, "position"))
        return self.linear(x, "decoder.project_out_dim") if "decoder.project_out_dim.weight" in self.weights else x

    def log_probs(self, entries: int, chosen: Sequence[str] = ()) -> str:
        """Log-probabilities ``(B G, V)`` of the next tokens; the arguments are those of :func:`write_step`."""
        x = self.features()
        if chosen:
            logits = shortlist.logits(self, x, chosen)
        else:
            logits = EMBEDDINGS[self.embeddings.kind].logits(self, x, entries)
        return self.graph.node("LogSoftmax", logits, axis=-1)


def write_step(
    path: Path, file: WeightFile, weights: Weights, values: dict[str, Any], precision: Float32, entries: int,
    symbols: Symbols, chosen: list[str],
) -> dict[str, int]:  # fmt: skip
    """Write the graph of a step and return its states; see :attr:`Step.states`.

    Inputs: ``tokens (B, G)``; ``position (1, 1, C)``; ``step (1,)``, its number from 0; ``beam (1,)``, G; ``path (B, G,
    P)``, see ``runtimes/onnx/steps.py``; ``source_mask (B, S)``, 1 for tokens; ``penalty (V,)``, added to
    log-probabilities before the best are chosen; ``count (1,)``, how many; for each layer with attention ``past_L_k``
    and ``past_L_v (B G, H, P, D)``, and ``source_L_k`` and ``source_L_v (B, H, S, D)``; ``state_NAME (B G, width)``.
    Outputs: ``new_L_k``, ``new_L_v``, which must be the memory of ``past``; ``new_state_NAME``, which must not be that
    of ``state_NAME``; ``log_probs`` and ``best (B, G, count)``; ``eos (B, G)``.

    V is the number of rows of the output, of which the first ``entries`` are tokens. With the names ``chosen`` of rows
    that the graph of the encoder selects, it is that of a shortlist, of which there are more inputs
    (:mod:`fairseq_compress.export.onnx.shortlist`).
    """
    graph = GraphBuilder(file)
    step = Step(graph, weights, values, precision, symbols)
    _choose(graph, step.log_probs(entries, chosen), symbols.eos, bool(chosen))
    inputs: Tensors = {"penalty": (np.float32, ["V"]), "count": (np.int64, [1])}
    outputs: Tensors = {
        "log_probs": (np.float32, ["B", "G", "K"]),
        "best": (np.int64, ["B", "G", "K"]),
        "eos": (np.float32, ["B", "G"]),
    }
    graph.save(path, inputs | step.inputs, outputs | step.outputs)
    return step.states


def _choose(graph: GraphBuilder, log_probs: str, eos: int, of_shortlist: bool) -> None:
    """From log-probabilities ``(B G, V)`` to the best tokens."""
    ends = graph.node("Gather", log_probs, graph.integers(eos), axis=1)
    graph.node("Reshape", ends, graph.shape(TOKENS), outputs=["eos"])
    best, tokens = graph.node("TopK", graph.node("Add", log_probs, "penalty"), "count", outputs=2, axis=-1)
    sizes = graph.node("Concat", graph.shape(TOKENS), "count", axis=0)
    graph.node("Reshape", best, sizes, outputs=["log_probs"])
    if of_shortlist:
        tokens = shortlist.entries_of(graph, tokens)
    graph.node("Reshape", tokens, sizes, outputs=["best"])
