"""The graph of a whole beam search: a loop over decoding steps that continues the best candidates of each.

What is chosen is defined in :mod:`fairseq_compress.decoding.beam_search`. The graph counts finished hypotheses only to
know when to end; which they are, and what is forced at the greatest length, its caller finds in the candidates.

Shapes: K tokens after each hypothesis, W candidates of a sentence, of which N continue; others as in
:mod:`fairseq_compress.export.onnx.step`.
"""

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto

from fairseq_compress.decoding.beam_search import Symbols
from fairseq_compress.export.onnx.loop import save_loop
from fairseq_compress.export.onnx.step import STEP, TOKENS, Step
from fairseq_compress.export.onnx.weights import Weights
from fairseq_compress.export.onnx_graph import GraphBuilder, Tensors, WeightFile
from fairseq_compress.export.onnx_linear import Float32

PATH = "path"


class _Reordered(Step):
    """The decoder whose states are those of the hypotheses that continue."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.renewed: dict[str, str] = {}

    def renew(self, name: str, value: str) -> None:
        self.renewed[name] = value

    def reorder(self, rows: str) -> None:
        """Let hypotheses continue ``rows (B G,)``."""
        for name, value in self.renewed.items():
            self.graph.node("Gather", value, rows, outputs=[f"new_state_{name}"])
        if self.attends_to_itself:
            self.carried[f"past_{PATH}"] = f"new_{PATH}"
            self.graph.node("Gather", "path_by_row", rows, outputs=[f"new_{PATH}"])


def write_beam(
    path: Path, file: WeightFile, weights: Weights, values: dict[str, Any], precision: Float32, entries: int,
    symbols: Symbols,
) -> None:  # fmt: skip
    """Write the graph of a beam search, which ends when at most ``least`` sentences have fewer than N hypotheses.

    Inputs: as those of a greedy search, and of the first step ``scores (B G, 1)``, ``finished (B, 1)``, the hypotheses
    so far, and ``past_path (B G, P)``; ``count``, ``width``, ``hypotheses (1,)``: K, W, N; ``by_sentence (2,)``: -1 and
    G K; ``first (B, 1)``: the number of a sentence's first hypothesis among all; ``own (B G, 1)``: that of each in its
    sentence; ``columns (P,)``: 0 to P - 1. If G is not N, only one step can be made: the next one has G = N.
    Outputs of each step: ``all_scores``, ``candidates``, ``parents (T, B, W)``; ``eos (T, B, G)``.
    """
    graph = GraphBuilder(file)
    step = _Reordered(graph, weights, values, precision, symbols)
    graph.node("Gather", "positions", STEP, outputs=["position"])
    graph.node("Add", STEP, graph.constant(np.ones(1, np.int32)), outputs=["new_step"])
    if step.attends_to_itself:
        present = graph.node("Equal", "columns", STEP)
        graph.node("Where", present, "own", f"past_{PATH}", outputs=["path_by_row"])
        graph.node("Reshape", "path_by_row", graph.shape(TOKENS, -1), outputs=[PATH])
    results, rows = _choose(graph, step.log_probs(entries), symbols.eos)
    step.reorder(rows)
    inputs: Tensors = step.inputs | {
        "scores": (np.float32, ["B G", 1]),
        "finished": (np.int64, ["B", 1]),
        f"past_{PATH}": (np.int32, ["B G", "P"]),
        "positions": (np.float32, ["N", step.width]),
        "penalty": (np.float32, ["V"]),
        "least": (np.int64, []),
        **{name: (np.int64, [1]) for name in ("count", "width", "hypotheses")},
        "by_sentence": (np.int64, [2]),
        "first": (np.int64, ["B", 1]),
        "own": (np.int32, ["B G", 1]),
        "columns": (np.int32, ["P"]),
    }
    for name in ("position", PATH):
        del inputs[name]
    carried = {name: f"new_{name}" for name in (TOKENS, STEP, "scores", "finished")}
    save_loop(graph, path, inputs, carried | step.carried, results, _finish(graph))


def _choose(graph: GraphBuilder, log_probs: str, eos: int) -> tuple[Tensors, str]:
    """From log-probabilities ``(B G, V)`` to the candidates and what continues; the rows that it continues."""
    ends = graph.node("Gather", log_probs, graph.integers(eos), axis=1)
    graph.node("Reshape", ends, graph.shape(TOKENS), outputs=["eos"])
    best, tokens = graph.node("TopK", graph.node("Add", log_probs, "penalty"), "count", outputs=2, axis=-1)
    sums = graph.node("Reshape", graph.node("Add", best, "scores"), "by_sentence")
    tokens = graph.node("Reshape", tokens, "by_sentence")
    graph.node("TopK", sums, "width", outputs=["all_scores", "place"], axis=-1)
    graph.node("GatherElements", tokens, "place", outputs=["candidates"], axis=1)
    graph.node("Div", "place", "count", outputs=["parents"])
    ended = graph.node("Equal", "candidates", graph.constant(np.asarray(eos, np.int64)))
    possible = graph.node("Greater", "all_scores", graph.constant(np.asarray(-np.inf, np.float32)))
    graph.node("Cast", graph.node("And", ended, possible), outputs=["ends"], to=TensorProto.INT64)
    _, active = graph.node("TopK", "ends", "hypotheses", outputs=2, axis=-1, largest=0)
    graph.node("GatherElements", "candidates", active, outputs=["new_tokens"], axis=1)
    scores = graph.node("GatherElements", "all_scores", active, axis=1)
    graph.node("Reshape", scores, graph.integers(-1, 1), outputs=["new_scores"])
    rows = graph.node("Add", graph.node("GatherElements", "parents", active, axis=1), "first")
    shape = ["B", "W"]
    results: Tensors = {
        "all_scores": (np.float32, shape), "candidates": (np.int64, shape), "parents": (np.int64, shape),
        "eos": (np.float32, ["B", "G"]),
    }  # fmt: skip
    return results, graph.reshape(rows, -1)


def _finish(graph: GraphBuilder) -> str:
    """Count finished hypotheses; whether another step follows."""
    ended = graph.node("Slice", "ends", graph.integers(0), "hypotheses", graph.integers(1))
    ended = graph.node("ReduceSum", ended, graph.integers(1))
    graph.node("Add", "finished", ended, outputs=["new_finished"])
    going_on = graph.node("Cast", graph.node("Less", "new_finished", "hypotheses"), to=TensorProto.INT64)
    return graph.node("Greater", graph.node("ReduceSum", going_on, keepdims=0), "least")
