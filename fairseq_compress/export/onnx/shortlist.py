"""The output of a model for the entries of a lexical shortlist (:mod:`fairseq_compress.decoding.shortlist`).

The rows of the output that a batch needs are selected once: the graph of the encoder takes ``chosen (U,)``, the ids of
all its sentences together, and returns ``rows`` (and what a precision has besides) and ``chosen_bias (U,)``. A step
multiplies with these rows and takes from the products, ``(B G, U)``, those of the entries of each sentence:

    ``places (B G, K)``     places in ``chosen`` of the entries of a hypothesis
    ``entries (B G, K)``    their ids, in ascending order
    ``offsets (B G, K)``    what is added to their logits: the bias of the output, -inf for padding behind them

The special entries are the first of every shortlist, so their ids are their places.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fairseq_compress.export.onnx.part import Part
from fairseq_compress.export.onnx.registry import CHOSEN_BIAS, EMBEDDINGS, Inputs
from fairseq_compress.export.onnx_graph import GraphBuilder

if TYPE_CHECKING:
    from fairseq_compress.export.onnx.step import Step

CHOSEN = "chosen"


def select_rows(decoder: Part, outputs: Inputs, entries: int, padding: int) -> list[str]:
    """Add the selected rows to the graph of the encoder and its ``outputs``; return their names."""
    decoder.padding = padding
    found = EMBEDDINGS[decoder.embeddings.kind].chosen(decoder, CHOSEN, entries)
    for name, (value, kind, shape) in found.items():
        decoder.graph.node("Identity", value, outputs=[name])
        outputs[name] = kind, shape
    return list(found)


def logits(step: "Step", x: str, names: Sequence[str]) -> str:
    """Logits ``(B G, K)`` of features ``(B G, C)``; adds the inputs of a shortlist to the graph of a step.

    Args:
        names: those of the rows (:func:`select_rows`).
    """
    graph = step.graph
    step.inputs |= {
        "places": (np.int64, ["B G", "K"]),
        "entries": (np.int64, ["B G", "K"]),
        "offsets": (np.float32, ["B G", "K"]),
        "penalty": (np.float32, ["K"]),
    }
    products, inputs = EMBEDDINGS[step.embeddings.kind].chosen_logits(step, x)
    assert inputs.keys() == set(names) - {CHOSEN_BIAS}
    step.inputs |= inputs
    return graph.node("Add", graph.node("GatherElements", products, "places", axis=1), "offsets")


def entries_of(graph: GraphBuilder, places: str) -> str:
    """The ids of entries ``(B G, k)`` of which the places in the shortlists are known."""
    return graph.node("GatherElements", "entries", places, axis=1)
