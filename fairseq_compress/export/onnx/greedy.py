"""The graph of a whole search with a beam of one: a loop over decoding steps, each of which takes the best token.

Shapes: B sentences, T steps that were made, V entries; others as in :mod:`fairseq_compress.export.onnx.step`.
"""

from pathlib import Path
from typing import Any

import numpy as np

from fairseq_compress.decoding.beam_search import Symbols
from fairseq_compress.export.onnx.loop import save_loop
from fairseq_compress.export.onnx.step import STEP, TOKENS, Step
from fairseq_compress.export.onnx.weights import Weights
from fairseq_compress.export.onnx_graph import GraphBuilder, Tensors, WeightFile
from fairseq_compress.export.onnx_linear import Float32

OPEN = "open"


class _OfOne(Step):
    """The decoder with one hypothesis of each sentence."""

    def of_sentences(self, x: str, width: int) -> str:
        return self.graph.reshape(x, -1, 1, width)


def write_greedy(
    path: Path, file: WeightFile, weights: Weights, values: dict[str, Any], precision: Float32, entries: int,
    symbols: Symbols,
) -> None:  # fmt: skip
    """Write the graph of a greedy search, which ends when at most ``least`` sentences have no EOS yet.

    Inputs: ``tokens (B, 1)``, ``step``, ``past``, ``state`` of the first step, and others of a step, but no ``count``;
    ``positions (.., C)`` of all steps; ``most ()``, the greatest number of steps; ``open (B, 1)``, 1 for each sentence;
    ``least ()``. Of what a step reads, the outputs ``new_tokens``, ``new_step`` and so on are for the next step.
    Outputs of each step: ``best (T, B, 1)``, the tokens; ``log_probs (T, B, 1)``, their log-probabilities with
    penalties; ``eos (T, B, 1)``, that of EOS without them. A sentence with EOS is continued, to no purpose.
    """
    graph = GraphBuilder(file)
    step = _OfOne(graph, weights, values, precision, symbols)
    graph.node("Gather", "positions", STEP, outputs=["position"])
    graph.node("Add", STEP, graph.constant(np.ones(1, np.int32)), outputs=["new_step"])
    results = _choose(graph, step.log_probs(entries), symbols.eos)
    left = graph.node("ReduceSum", "new_open", keepdims=0)
    go_on = graph.node("Greater", left, "least")
    inputs: Tensors = step.inputs | {
        TOKENS: (np.int64, ["B", 1]),
        OPEN: (np.int64, ["B", 1]),
        "positions": (np.float32, ["N", step.width]),
        "penalty": (np.float32, ["V"]),
        "least": (np.int64, []),
    }
    del inputs["position"]
    carried = {TOKENS: "new_tokens", STEP: "new_step", OPEN: "new_open"} | step.carried
    save_loop(graph, path, inputs, carried, results, go_on)


def _choose(graph: GraphBuilder, log_probs: str, eos: int) -> Tensors:
    """From log-probabilities ``(B, V)`` to the best token and what is recorded of a step."""
    graph.node("Gather", log_probs, graph.integers(eos), axis=1, outputs=["eos"])
    allowed = graph.node("Add", log_probs, "penalty")
    graph.node("TopK", allowed, graph.integers(1), outputs=["log_probs", "best"], axis=-1)
    ended = graph.node("Equal", "best", graph.constant(np.asarray(eos, np.int64)))
    graph.node("Where", ended, graph.constant(np.asarray(0, np.int64)), OPEN, outputs=["new_open"])
    graph.node("Identity", "best", outputs=["new_tokens"])
    shape = ["B", 1]
    return {"best": (np.int64, shape), "log_probs": (np.float32, shape), "eos": (np.float32, shape)}
