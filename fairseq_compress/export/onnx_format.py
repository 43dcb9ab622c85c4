"""A model to the files of ONNX Runtime: graphs, their weights, the vocabularies."""

import argparse
import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from fairseq.data import Dictionary

import fairseq_compress.export.onnx.forms  # noqa: F401 - registers them
from fairseq_compress.architecture.configuration import architecture_of
from fairseq_compress.architecture.flags import KEY
from fairseq_compress.architecture.shape import Architecture
from fairseq_compress.checkpoint.materialize import in_own_form
from fairseq_compress.decoding.beam_search import Symbols
from fairseq_compress.decoding.vocabulary import write_symbols
from fairseq_compress.errors import ConfigError
from fairseq_compress.export.model_writer import TextSide, refuse, unsupported_options
from fairseq_compress.export.onnx.beam import write_beam
from fairseq_compress.export.onnx.encoder import write_encoder
from fairseq_compress.export.onnx.greedy import write_greedy
from fairseq_compress.export.onnx.part import ACTIVATIONS, cross_attentions
from fairseq_compress.export.onnx.precisions import PRECISIONS, Storage
from fairseq_compress.export.onnx.registry import EMBEDDINGS, UNITS
from fairseq_compress.export.onnx.shortlist import select_rows
from fairseq_compress.export.onnx.step import write_step
from fairseq_compress.export.onnx.weights import ROWS, Weights
from fairseq_compress.export.onnx_graph import WeightFile
from fairseq_compress.export.onnx_linear import Float32
from fairseq_compress.export.stored_weights import StoredWeights
from fairseq_compress.functional.layer_map import PARTS
from fairseq_compress.runtimes.onnx.model import SHORTLIST, SINUSOIDAL
from fairseq_compress.runtimes.onnx.sessions import BEAM, ENCODER, GREEDY, STEP, WEIGHTS

load = in_own_form  # the checkpoint as this runtime takes it
VERSION: str = onnxruntime.__version__
UNREAD_SHOWN = 5


def why_not(values: dict[str, Any]) -> list[str]:
    """What our graphs do not support of a model."""
    switches = ("no_cross_attention", "cross_self_attention", "adaptive_input", "tie_adaptive_weights")
    reasons = unsupported_options(values, ACTIVATIONS, switches)
    if KEY not in values:
        return reasons
    architecture = architecture_of(argparse.Namespace(**values))
    kinds = {layer.self_attention.kind for layer in architecture.decoder.layers} - {"attention", *UNITS}
    reasons += [f"the decoder has {kind} in the place of self-attention" for kind in sorted(kinds)]
    if (kind := architecture.embeddings.kind) not in EMBEDDINGS:
        reasons.append(f"its embeddings are {kind}")
    return reasons


def write_model(
    folder: Path, model: Any, values: dict[str, Any], source: Dictionary, target: Dictionary, quantization: str,
    storage: Storage | None = None, text: TextSide | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write a model into an existing folder and return the metadata of its runtime.

    Args:
        model: fairseq's ``TransformerModel``, or ours of any architecture.
        values: its options, of :func:`fairseq_compress.checkpoint.materialize.own_values`.
        quantization: one of the runtime's.
        storage: the compressed weights of the checkpoint, in which it records what became of them, and options.
        text: languages, segmentation and shortlist.
    """
    storage = storage or Storage(StoredWeights())
    precision = PRECISIONS[quantization](storage)
    encoder = None if storage.encoder is None else PRECISIONS[storage.encoder](storage)
    shortlist = None if text is None else text.shortlist
    if shortlist is not None:
        shutil.copyfile(shortlist.path, folder / SHORTLIST)
    return write_graphs(folder, model, values, source, target, precision, shortlist is not None, encoder)


def write_graphs(
    folder: Path, model: Any, values: dict[str, Any], source: Dictionary, target: Dictionary, precision: Float32,
    shortlist: bool = False, encoder: Float32 | None = None, searches: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """:func:`write_model` with any precision.

    Args:
        shortlist: the output is computed for the entries of one.
        encoder: the precision of the encoder's layers, if another.
        searches: write the graphs of whole searches too.
    """
    refuse("onnx", why_not(values))
    weights, symbols = Weights(model), Symbols(target.pad(), target.eos(), target.unk())
    file = WeightFile(folder / WEIGHTS)
    select = partial(select_rows, entries=len(target), padding=symbols.pad) if shortlist else None
    chosen = write_encoder(folder / ENCODER, file, weights, values, encoder or precision, precision, select)
    of_decoder = file, weights, values, precision, len(target), symbols
    states = write_step(folder / STEP, *of_decoder, chosen)
    if searches and not shortlist:
        write_greedy(folder / GREEDY, *of_decoder)
        write_beam(folder / BEAM, *of_decoder)
    file.close()
    if unread := weights.unread():
        more = f" and {len(unread) - UNREAD_SHOWN} more" if len(unread) > UNREAD_SHOWN else ""
        raise ConfigError(f"--runtime onnx: cannot hold these weights: {', '.join(unread[:UNREAD_SHOWN])}{more}")
    write_symbols(folder, source.symbols, target.symbols)
    architecture = architecture_of(argparse.Namespace(**values))
    metadata = {
        "symbols": asdict(symbols),
        "decoder": _decoder(architecture, len(target), states),
        "positions": _write_positions(folder, weights, values),
        "widths": {part: architecture.stack(part).width for part in PARTS},
    }
    return metadata | _language_tokens(architecture) | _sparse(file) | ({"chosen": chosen} if chosen else {})


def _decoder(architecture: Architecture, entries: int, states: dict[str, int]) -> dict[str, Any]:
    """What a step reads and writes; see :class:`fairseq_compress.runtimes.onnx.steps.Shape`."""
    layers = architecture.decoder.layers
    attentions = [layer.self_attention for layer in layers]
    found: dict[str, Any] = {
        "layers": len(attentions),
        "heads": _one_or_all([attention.heads for attention in attentions]),
        "head_width": _one_or_all([attention.head_width for attention in attentions]),
        "entries": entries + -entries % ROWS,
    }
    if states:
        found["states"] = [{"name": name, "width": width} for name, width in states.items()]
    attending = list(cross_attentions(layers))
    return found if len(attending) == len(layers) else found | {"attending": attending}


def _write_positions(folder: Path, weights: Weights, values: dict[str, Any]) -> dict[str, str]:
    """The kind of positions of each side; learned ones are written."""
    first = architecture_of(argparse.Namespace(**values)).first_position
    kind = next(name for name, number in SINUSOIDAL.items() if number == first)
    positions = {}
    for side in PARTS:
        positions[side] = "none" if values["no_token_positional_embeddings"] else kind
        if (table := weights.get(f"{side}.embed_positions.weight")) is not None:
            positions[side] = "learned"
            np.save(folder / f"{side}_positions.npy", table[2:])  # the first token is at 2, behind padding's 1
    return positions


def _language_tokens(architecture: Architecture) -> dict[str, Any]:
    """The tokens that the runtime adds to every sentence."""
    tokens = {side: list(tokens) for side, tokens in vars(architecture.language_tokens).items() if tokens}
    return {"language_tokens": tokens} if tokens else {}


def _sparse(file: WeightFile) -> dict[str, Any]:
    """The matrices that are sparse in the file and dense in memory."""
    matrices = [form for form in file.sparse.values() if len(form.shape) == 2]
    if not matrices:
        return {}
    sizes = {"bytes": sum(form.nbytes for form in matrices), "dense_bytes": sum(form.dense_bytes for form in matrices)}
    return {"sparse_in_file": {"matrices": len(matrices), **sizes}}


def _one_or_all(numbers: list[int]) -> int | list[int]:
    """A number for every layer, or one where all are equal."""
    return numbers[0] if len(set(numbers)) == 1 else numbers
