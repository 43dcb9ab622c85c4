"""A plain transformer to the files of ONNX Runtime: two graphs, their weights, the vocabularies."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from fairseq.data import Dictionary
from torch import Tensor

from fairseq_compress.architecture.configuration import architecture_of
from fairseq_compress.decoding.beam_search import Floats
from fairseq_compress.decoding.vocabulary import write_symbols
from fairseq_compress.errors import ConfigError
from fairseq_compress.export.model_writer import unsupported_options
from fairseq_compress.export.onnx_graph import WeightFile
from fairseq_compress.export.onnx_layers import ACTIVATIONS, Weights
from fairseq_compress.export.onnx_linear import Float32, Int8, Range
from fairseq_compress.export.onnx_transformer import write_encoder, write_step
from fairseq_compress.functional.layer_map import PARTS
from fairseq_compress.runtimes.onnx.model import ENCODER, STEP, WEIGHTS

ROWS = 32  # tables have a multiple of it: kernels are up to a fifth slower with an odd number
VERSION: str = onnxruntime.__version__


def why_not(values: dict[str, Any]) -> list[str]:
    """The options of a transformer that our graphs do not support."""
    switches = ("no_cross_attention", "cross_self_attention", "adaptive_input", "tie_adaptive_weights")
    return unsupported_options(values, ACTIVATIONS, switches)


def write_model(
    folder: Path, model: Any, values: dict[str, Any], source: Dictionary, target: Dictionary, quantization: str,
    ranges: dict[str, Range] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write a model into an existing folder and return the metadata of its runtime.

    Args:
        model: fairseq's ``TransformerModel``.
        values: its options, of :func:`fairseq_compress.checkpoint.materialize.model_values`.
        quantization: one of the runtime's.
        ranges: of the inputs of the linear layers, for ``int8_calibrated``.
    """
    precision = Float32() if quantization == "float32" else Int8(ranges)
    return write_graphs(folder, model, values, source, target, precision)


def write_graphs(
    folder: Path, model: Any, values: dict[str, Any], source: Dictionary, target: Dictionary, precision: Float32
) -> dict[str, Any]:
    """:func:`write_model` with any precision."""
    if reasons := why_not(values):
        raise ConfigError(f"--runtime onnx: cannot hold this model: {'; '.join(reasons)}")
    state: dict[str, Tensor] = model.state_dict()
    weights: Weights = {key: _padded(key, value.float().numpy()) for key, value in state.items()}
    file = WeightFile(folder / WEIGHTS)
    write_encoder(folder / ENCODER, file, weights, values, precision)
    write_step(folder / STEP, file, weights, values, precision, len(target), target.eos())
    file.close()
    positions = {}
    for side in ("encoder", "decoder"):
        positions[side] = "none" if values["no_token_positional_embeddings"] else "sinusoidal"
        if (table := weights.get(f"{side}.embed_positions.weight")) is not None:
            positions[side] = "learned"
            np.save(folder / f"{side}_positions.npy", table[2:])  # the first token is at 2, behind padding's 1
    write_symbols(folder, source.symbols, target.symbols)
    architecture = architecture_of(argparse.Namespace(**values))
    attentions = [layer.self_attention for layer in architecture.decoder.layers]
    return {
        "symbols": {"pad": target.pad(), "eos": target.eos(), "unk": target.unk()},
        "decoder": {
            "layers": len(attentions),
            "heads": _one_or_all([attention.heads for attention in attentions]),
            "head_width": _one_or_all([attention.head_width for attention in attentions]),
            "entries": len(weights["decoder.output_projection.weight"]),
        },
        "positions": positions,
        "widths": {part: architecture.stack(part).width for part in PARTS},
    }


def _one_or_all(numbers: list[int]) -> int | list[int]:
    """A number for every layer, or one where all are equal."""
    return numbers[0] if len(set(numbers)) == 1 else numbers


def _padded(key: str, weight: Floats) -> Floats:
    """The weight; tables of tokens with rows of zeros at their end."""
    if key.split(".")[1] not in ("embed_tokens", "output_projection"):
        return weight
    return np.pad(weight, [(0, -len(weight) % ROWS)] + [(0, 0)] * (weight.ndim - 1))
