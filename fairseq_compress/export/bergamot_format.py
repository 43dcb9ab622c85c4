"""A transformer with Marian's conventions to the files of Firefox Translations and translateLocally.

``model.PAIR.intgemm.alphas.bin``, ``vocab.PAIR.spm`` (or one of each side), the configuration of Marian under the two
names that programs look for, and translateLocally's ``model_info.json``.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from fairseq.data import Dictionary

from fairseq_compress.architecture.configuration import architecture_of
from fairseq_compress.architecture.marian_names import (
    ALPHA,
    OUTPUT,
    OUTPUT_ALPHA,
    OUTPUT_BIAS,
    TABLE,
    linear_layers,
    norms,
)
from fairseq_compress.architecture.shape import Architecture, LanguageTokens
from fairseq_compress.checkpoint.materialize import Materialized, materialize
from fairseq_compress.decoding.vocabulary import write_symbols
from fairseq_compress.export.bergamot_shortlist import Order, write_shortlist
from fairseq_compress.export.bergamot_vocabulary import EOS, UNKNOWN, Vocabulary, marian_vocabulary
from fairseq_compress.export.model_writer import TextSide, refuse, unsupported_options
from fairseq_compress.export.onnx.int8 import EIGHT_BITS, integers_of_rows
from fairseq_compress.export.onnx.precisions import Storage
from fairseq_compress.export.onnx_linear import Range
from fairseq_compress.export.stored_weights import KEPT, LOST, StoredWeights
from fairseq_compress.functional.layer_map import PARTS
from fairseq_compress.work.files import PathLike
from fairseq_compress.work.marian_file import Quantized, Value, quantize, serialize

VERSION = "intgemm.alphas 1"
MULTIPLE = 64  # of widths: the 8-bit products of Marian have no others
NEVER = np.float32(-1e9)  # output bias of pieces that the model does not know
CONFIGURATIONS = ("config.yml", "config.intgemm8bitalpha.yml")


def load(path: PathLike) -> Materialized:
    """The checkpoint as this runtime takes it: dense matrices, self-attention or an SSRU in the decoder."""
    return materialize(path, any_shape=True)


def why_not(values: dict[str, Any]) -> list[str]:
    """What the model has that Marian's 8-bit models cannot hold."""
    switches = (
        "no_cross_attention", "cross_self_attention", "adaptive_input", "tie_adaptive_weights", "layernorm_embedding",
        "no_scale_embedding", "no_token_positional_embeddings", "encoder_normalize_before", "decoder_normalize_before",
        "encoder_learned_pos", "decoder_learned_pos",
    )  # fmt: skip
    reasons = unsupported_options(values, ("relu",), switches)
    return reasons + _why_not_shape(architecture_of(argparse.Namespace(**values)))


def _why_not_shape(architecture: Architecture) -> list[str]:
    encoder, decoder = (architecture.stack(part) for part in PARTS)
    layers = [*encoder.layers, *decoder.layers]
    attentions = [a for layer in layers for a in (layer.self_attention, layer.cross_attention) if a and a.heads]
    kinds = {layer.self_attention.kind for layer in decoder.layers}
    wanted = {
        "--decoder-start must be zero": architecture.decoder_start == "zero",
        "--first-position must be 0": architecture.first_position == 0,
        "--norm-eps must be 1e-06": architecture.norm_eps == 1e-6,
        "encoder and decoder must have the same width": encoder.width == decoder.width,
        f"its width must be a multiple of {MULTIPLE}": encoder.width % MULTIPLE == 0,
        f"its FFN units must be a multiple of {MULTIPLE}": not any(layer.ffn % MULTIPLE for layer in layers),
        "all layers must have as many FFN units": len({layer.ffn for layer in layers}) == 1,
        "all attentions must have as many heads": len({each.heads for each in attentions}) == 1,
        "heads must make up the width": all(each.width == encoder.width for each in attentions),
        "all decoder layers must have either an SSRU or self-attention": kinds in ({"ssru"}, {"attention"}),
        "layers must have no bottleneck": not any(layer.bottleneck for layer in layers),
        "embeddings must be plain": architecture.embeddings.kind == "plain",
        "the output must be tied to the embeddings": architecture.embeddings.tying != "none",
        "it must add no language tokens to sentences": architecture.language_tokens == LanguageTokens(),
    }
    return [rule for rule, holds in wanted.items() if not holds]


def write_model(
    folder: Path, model: Any, values: dict[str, Any], source: Dictionary, target: Dictionary, quantization: str,
    storage: Storage | None = None, text: TextSide | None = None,
) -> dict[str, Any]:  # fmt: skip
    """As :func:`fairseq_compress.export.onnx_format.write_model`; ``storage`` and ``text`` are required."""
    assert storage is not None
    assert text is not None
    segmented = [] if text.segmentation.is_plain else ["--segmentation must be sentencepiece, without --tokenizer"]
    refuse("bergamot", [*why_not(values), *segmented])
    architecture = architecture_of(argparse.Namespace(**values))
    own = text.segmentation.target is not None
    vocabularies = [marian_vocabulary(path) for path in text.segmentation.paths()]
    joined = not own and architecture.embeddings.tying == "all"
    both = (vocabularies[0], vocabularies[-1])
    weights = {key: value.float().numpy() for key, value in model.state_dict().items()}
    items = _parameters(architecture, weights, storage)
    orders = _order(source, both[0]), _order(target, both[1])
    items |= _tables(weights, orders, joined, storage.stored)
    items |= _output_alphas(storage.ranges[OUTPUT], joined)
    pair = "".join(text.languages)
    names = _write_vocabularies(folder, pair, both, own)
    shape = _shape(architecture, [len(vocabulary.pieces) for vocabulary in both])
    file = f"model.{pair}.intgemm.alphas.bin"
    (folder / file).write_bytes(serialize(items, _yaml(_marian_options(architecture, shape, joined))))
    shortlist = None if text.shortlist is None else write_shortlist(folder, pair, text.shortlist, *orders)
    _write_configuration(folder, file, names, text.languages, shape, shortlist)
    write_symbols(folder, source.symbols, target.symbols)
    return {
        "model": file,
        "vocabularies": names,
        "shortlist": shortlist,
        **shape,
        "simulated": _why_simulated(shape, both),
    }


def _shape(architecture: Architecture, entries: list[int]) -> dict[str, Any]:
    encoder, decoder = (architecture.stack(part) for part in PARTS)
    return {
        "entries": entries,
        "width": encoder.width,
        "ffn": encoder.layers[0].ffn,
        "heads": encoder.layers[0].self_attention.heads,
        "layers": [len(encoder.layers), len(decoder.layers)],
        "decoder": decoder.layers[0].self_attention.kind,
    }


def _why_simulated(shape: dict[str, Any], vocabularies: tuple[Vocabulary, Vocabulary]) -> list[str]:
    """Why Firefox's engine cannot run the model, which Marian and translateLocally can."""
    reasons = [] if shape["decoder"] == "ssru" else ["its decoder has self-attention, not SSRU"]
    if not all(vocabulary.unigram for vocabulary in vocabularies):
        reasons.append("its SentencePiece model is no unigram model (train-vocabulary --model-type unigram)")
    return reasons


def _parameters(architecture: Architecture, weights: dict[str, Any], storage: Storage) -> dict[str, Value]:
    items: dict[str, Value] = {}
    for linear in linear_layers(architecture):
        integers, multiplier = _eight_bits(weights[f"{linear.ours}.weight"], storage.stored)
        items[linear.weight] = Quantized(integers.T, multiplier)
        items[f"{linear.weight}{ALPHA}"] = _alpha(storage.ranges[linear.ours])
        if linear.bias is not None:
            bias = weights.get(f"{linear.ours}.bias")
            items[linear.bias] = np.zeros(len(weights[f"{linear.ours}.weight"]), np.float32) if bias is None else bias
    for norm in norms(architecture):
        items[f"{norm.name}_ln_scale"] = weights[f"{norm.ours}.weight"]
        items[f"{norm.name}_ln_bias"] = weights[f"{norm.ours}.bias"]
    return items


def _eight_bits(weight: Any, stored: StoredWeights, rows: Any = slice(None)) -> Quantized:
    """The chosen rows of a matrix; records whether their integers are those of the compression plan."""
    made = quantize(weight[rows])
    for part in stored.parts(weight):
        if part.stored is not None:
            own = integers_of_rows(part.stored.packed, EIGHT_BITS)
            kept = own is not None and len(part.values) == len(weight) and np.array_equal(own[0][rows], made.integers)
            stored.record(part.stored, KEPT if kept else LOST)
    return made


def _alpha(limits: Range) -> Any:
    largest = max(map(abs, limits))
    return np.array([127 / largest if largest > 0 else 1], np.float32)


def _tables(
    weights: dict[str, Any], orders: tuple[Order, Order], joined: bool, stored: StoredWeights
) -> dict[str, Value]:
    """Tables and output bias with a row for each piece, in the order of the SentencePiece models."""
    tables = [
        _eight_bits(weights[f"{part}.embed_tokens.weight"], stored, index)
        for part, (index, _) in zip(PARTS, orders, strict=True)
    ]
    index, known = orders[1]
    bias = weights[f"{OUTPUT}.bias"][index] if f"{OUTPUT}.bias" in weights else np.zeros(len(index), np.float32)
    items: dict[str, Value] = {OUTPUT_BIAS: np.where(known, bias, NEVER).astype(np.float32)}
    if joined:
        return items | {TABLE: tables[0]}
    return items | {f"{part}_{TABLE}": table for part, table in zip(PARTS, tables, strict=True)}


def _output_alphas(limits: Range, joined: bool) -> dict[str, Value]:
    """The multiplier of the output layer's input under the names that ``fxtranslate`` and Marian look for."""
    table = TABLE if joined else f"decoder_{TABLE}"
    return dict.fromkeys((OUTPUT_ALPHA, f"{table}{ALPHA}"), _alpha(limits))


def _order(dictionary: Dictionary, vocabulary: Vocabulary) -> Order:
    special = {EOS: dictionary.eos(), UNKNOWN: dictionary.unk()}
    found = [special.get(piece, dictionary.indices.get(piece)) for piece in vocabulary.pieces]
    known = np.array([index is not None for index in found])
    return Order(np.array([dictionary.unk() if index is None else index for index in found]), known)


def _write_vocabularies(
    folder: Path, pair: str, vocabularies: tuple[Vocabulary, Vocabulary], own: bool
) -> tuple[str, str]:
    names = (f"srcvocab.{pair}.spm", f"trgvocab.{pair}.spm") if own else (f"vocab.{pair}.spm",) * 2
    for name, vocabulary in zip(names, vocabularies, strict=True):
        (folder / name).write_bytes(vocabulary.model)
    return names[0], names[1]


def _marian_options(architecture: Architecture, shape: dict[str, Any], joined: bool) -> dict[str, Any]:
    """The options of Marian's training that give the model."""
    recurrent = shape["decoder"] == "ssru"
    return {
        "type": "transformer", "version": "v1.9.0", "dim-emb": shape["width"], "dim-vocabs": shape["entries"],
        "enc-depth": shape["layers"][0], "dec-depth": shape["layers"][1], "transformer-heads": shape["heads"],
        "transformer-dim-ffn": shape["ffn"], "transformer-ffn-depth": 2, "transformer-ffn-activation": "relu",
        "transformer-decoder-autoreg": "rnn" if recurrent else "self-attention",
        "dec-cell": "ssru" if recurrent else "gru", "dec-cell-base-depth": 2, "dec-cell-high-depth": 1,
        "transformer-preprocess": "", "transformer-postprocess": "dan", "transformer-postprocess-emb": "d",
        "tied-embeddings-all": joined, "tied-embeddings": not joined, "tied-embeddings-src": False, "skip": False,
        "layer-normalization": False, "output-omit-bias": False, "input-types": [], "factors-combine": "sum",
        "transformer-train-position-embeddings": False, "transformer-no-projection": False,
        "transformer-rnn-projection": False, "transformer-tied-layers": [], "lemma-dim-emb": 0, "ulr": False,
        "transformer-aan-depth": 2, "transformer-aan-nogate": False, "transformer-guided-alignment-layer": "last",
    }  # fmt: skip


def _write_configuration(
    folder: Path, model: str, names: tuple[str, str], languages: tuple[str, str], shape: dict[str, Any],
    shortlist: str | None,
) -> None:  # fmt: skip
    options = {
        "relative-paths": True, "models": [model], "vocabs": list(names), "beam-size": 1, "normalize": 1.0,
        "word-penalty": 0, "max-length-break": 128, "mini-batch-words": 1024, "workspace": 128,
        "max-length-factor": 2.0, "skip-cost": True, "cpu-threads": 1, "quiet": True, "quiet-translation": True,
        "gemm-precision": "int8shiftAlphaAll",
    }  # fmt: skip
    if shortlist is not None:
        options["shortlist"] = [shortlist, False]  # its checksum is not compared
    for name in CONFIGURATIONS:
        (folder / name).write_text(_yaml(options), encoding="utf-8")
    source, target = languages
    size = f"{shape['layers'][0]}+{shape['layers'][1]}, {shape['width']}"
    info = {
        "modelName": f"{source}-{target} ({size})", "shortName": f"{source}-{target}-student", "type": "student",
        "src": source, "trg": target, "srcTags": {source: source}, "trgTag": target, "version": 1, "API": 1,
        "repository": "fairseq-compress",
    }  # fmt: skip
    (folder / "model_info.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")


def _yaml(options: dict[str, Any]) -> str:
    """Scalars and lists of scalars, as JSON writes them, which is YAML too."""
    return "".join(
        f"{key}:\n" + "".join(f"  - {json.dumps(each)}\n" for each in value)
        if isinstance(value, list) and value
        else f"{key}: {json.dumps(value)}\n"
        for key, value in sorted(options.items())
    )
