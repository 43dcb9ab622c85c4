"""Models of Marian: ``.npz`` and ``.bin`` files, and the 8-bit ones of Firefox Translations and translateLocally.

Post-norm transformers with self-attention or SSRU in the decoder. The rows of ``<s>`` and ``<pad>``, which Marian does
not have, are zero and never chosen. 8-bit weights become the numbers that they stand for.
"""

import re
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from fairseq_compress.architecture.configuration import from_flags
from fairseq_compress.architecture.marian_names import ALPHA, OUTPUT, OUTPUT_BIAS, TABLE, linear_layers, norms
from fairseq_compress.architecture.shape import Architecture
from fairseq_compress.checkpoint.imports import ImportRequest
from fairseq_compress.checkpoint.imports.imported import ImportedModel
from fairseq_compress.corpus.segmentation.sentencepiece_model import open_model
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.functional.layer_map import PARTS
from fairseq_compress.work.files import PathLike
from fairseq_compress.work.marian_file import MarianFile, Quantized, read_marian

TITLE = "Marian: .npz or .bin, or a folder with one"
SUFFIXES = (".npz", ".bin")
PAIR = re.compile(r"model\.([a-z]{2})([a-z]{2})\.")
NEVER = -100.0  # logit of entries that Marian does not have; its probability is 0 in float32
ACTIVATIONS = {"relu": "relu", "swish": "swish"}
Array = NDArray[np.float32]
REQUIRED: dict[str, tuple[Any, ...]] = {  # options of Marian and the values that our layers compute
    "type": ("transformer",),
    "transformer-preprocess": ("",),
    "transformer-postprocess": ("dan",),
    "transformer-postprocess-emb": ("d", ""),
    "transformer-postprocess-top": ("",),
    "transformer-ffn-depth": (2,),
    "transformer-decoder-ffn-depth": (0, 2),
    "transformer-decoder-dim-ffn": (0,),
    "transformer-tied-layers": ([],),
    "transformer-train-position-embeddings": (False,),
    "transformer-no-projection": (False,),
    "transformer-rnn-projection": (False,),
    "transformer-no-affine": (False,),
    "transformer-decoder-autoreg": ("self-attention", "rnn"),
    "layer-normalization": (False,),
    "lemma-dim-emb": (0,),
}


def recognizes(path: Path) -> bool:
    return any(file.is_file() and file.suffix in SUFFIXES for file in _candidates(path))


def read(path: Path, request: ImportRequest) -> ImportedModel:
    found = [file for file in _candidates(path) if file.suffix in SUFFIXES]
    if len(found) != 1:
        raise DataError(f"{path}: must have one model of Marian (.npz or .bin), has {len(found)}")
    file = read_marian(found[0])
    try:
        options = _options(file)
    except ConfigError as error:
        raise ConfigError(f"{found[0]}: {error}") from None
    architecture = from_flags(Namespace(**options))
    models = request.sentencepiece or _vocabularies(found[0])
    rows = [_Rows(models[0]), _Rows(models[1] or models[0])]
    weights = _weights(found[0], file, architecture, rows)
    options["share_all_embeddings"] &= rows[0].symbols == rows[1].symbols
    title = f"Marian {'SSRU' if architecture.decoder.layers[0].self_attention.kind == 'ssru' else 'transformer'}"
    symbols = (rows[0].symbols, rows[1].symbols)
    return ImportedModel(options, weights, symbols, _languages(found[0], request), models, title)


def _candidates(path: Path) -> list[Path]:
    return sorted(path.glob("*.npz")) + sorted(path.glob("*.bin")) if path.is_dir() else [path]


def _options(file: MarianFile) -> dict[str, Any]:
    """Options of our model from the configuration in the file."""
    if not file.configuration:
        raise ConfigError("has no configuration (special:model.yml)")
    try:
        values = yaml.safe_load(file.configuration)
    except yaml.YAMLError:
        values = None
    if not isinstance(values, dict):
        raise ConfigError("its configuration (special:model.yml) must be a table in YAML")
    if problems := [*_unlike(values)]:
        raise ConfigError(f"cannot be imported: {'; '.join(problems)}")
    whole = {name: int(values[name]) for name in ("dim-emb", "enc-depth", "dec-depth")}
    heads = int(values.get("transformer-heads", 8))
    ffn = [file.items[f"{part}_l1_ffn_W1"] for part in PARTS if f"{part}_l1_ffn_W1" in file.items]
    units = [(each.integers if isinstance(each, Quantized) else each).shape[1] for each in ffn]
    if len(units) != len(PARTS):
        raise ConfigError("must have a feed-forward network in encoder and decoder")
    activation = ACTIVATIONS[values.get("transformer-ffn-activation", "relu")]
    options = {
        "encoder_layers": whole["enc-depth"], "decoder_layers": whole["dec-depth"],
        "decoder_embed_dim": whole["dim-emb"], "encoder_embed_dim": whole["dim-emb"],
        "encoder_attention_heads": heads, "decoder_attention_heads": heads, "encoder_ffn_embed_dim": units[0],
        "decoder_ffn_embed_dim": units[1], "activation_fn": activation,
        "share_all_embeddings": TABLE in file.items,
        "share_decoder_input_output_embed": "decoder_ff_logit_out_W" not in file.items,
        "decoder_start": "zero", "first_position": 0, "norm_eps": 1e-6, "output_bias": True,
    }  # fmt: skip
    if values.get("transformer-decoder-autoreg") == "rnn":
        options["decoder_self_attention"] = "ssru"
    return options


def _unlike(values: Mapping[str, Any]) -> Iterator[str]:
    """Options of Marian that give a model which ours are not."""
    for name in ("dim-emb", "enc-depth", "dec-depth"):
        if type(values.get(name)) is not int or values[name] < 1:
            yield f"{name}: must be in [1, inf), got {values.get(name)}"
    for name, allowed in REQUIRED.items():
        value = values.get(name, allowed[0])
        if value not in allowed:
            yield f"{name}: must be {' or '.join(map(repr, allowed))}, got {value!r}"
    activation = values.get("transformer-ffn-activation", "relu")
    if activation not in ACTIVATIONS:
        yield f"transformer-ffn-activation: must be one of {', '.join(ACTIVATIONS)}, got {activation!r}"
    if values.get("transformer-decoder-autoreg") == "rnn" and values.get("dec-cell") != "ssru":
        yield f"dec-cell: must be 'ssru', got {values.get('dec-cell')!r}"


class _Rows:
    """The pieces of a SentencePiece model in Marian's order, and the row of each entry of our dictionary."""

    def __init__(self, path: PathLike) -> None:
        model = open_model(path)
        text = [
            index for index in range(len(model))
            if not (model.is_control(index) or model.is_unknown(index) or model.is_unused(index))
        ]  # fmt: skip
        self.symbols = [model.id_to_piece(index) for index in text]
        self.rows = [-1, -1, model.eos_id(), model.unk_id(), *text]
        self.count, self.path = len(model), path
        if model.eos_id() < 0:
            raise DataError(f"{path}: must have a piece for the end of a sentence, has none")

    def pick(self, name: str, table: Array, missing: float) -> Tensor:
        """Rows of a table, or numbers of a bias, in the order of our dictionary."""
        if len(table) != self.count:
            raise DataError(
                f"{name}: must have a row for each of the {self.count} pieces of {self.path}, has {len(table)}"
            )
        own = table[self.rows].copy()
        own[:2] = missing
        return torch.from_numpy(own)


def _weights(path: Path, file: MarianFile, architecture: Architecture, rows: list[_Rows]) -> dict[str, Tensor]:
    left = {name: value for name, value in file.items.items() if not name.endswith(ALPHA)}

    def take(name: str) -> Array:
        if name not in left:
            raise DataError(f"{path}: has no parameter {name}")
        value = left.pop(name)
        return value.values() if isinstance(value, Quantized) else value

    weights: dict[str, Tensor] = {}
    for linear in linear_layers(architecture):
        weights[f"{linear.ours}.weight"] = torch.from_numpy(take(linear.weight).T.copy())
        if linear.bias is not None:
            weights[f"{linear.ours}.bias"] = torch.from_numpy(take(linear.bias).reshape(-1).copy())
    for norm in norms(architecture):
        for ours, theirs in (("weight", "scale"), ("bias", "bias")):
            weights[f"{norm.ours}.{ours}"] = torch.from_numpy(take(f"{norm.name}_ln_{theirs}").reshape(-1).copy())
    names = [TABLE] * 2 if TABLE in left else [f"{part}_{TABLE}" for part in PARTS]
    tables = {name: take(name) for name in dict.fromkeys(names)}
    for part, name, each in zip(PARTS, names, rows, strict=True):
        weights[f"{part}.embed_tokens.weight"] = each.pick(f"{path}: {name}", tables[name], 0.0)
    weights[f"{OUTPUT}.weight"] = weights["decoder.embed_tokens.weight"]
    if "decoder_ff_logit_out_W" in left:
        weights[f"{OUTPUT}.weight"] = rows[1].pick(f"{path}: output", take("decoder_ff_logit_out_W").T, 0.0)
    bias = take(OUTPUT_BIAS).reshape(-1) if OUTPUT_BIAS in left else np.zeros(rows[1].count, np.float32)
    weights[f"{OUTPUT}.bias"] = rows[1].pick(f"{path}: {OUTPUT_BIAS}", bias, NEVER)
    if left:
        raise DataError(f"{path}: has parameters that are imported nowhere: {', '.join(sorted(left)[:5])}")
    for part in PARTS:  # fairseq's own buffers
        weights[f"{part}.version"] = torch.tensor([3.0])
    return weights


def _vocabularies(path: Path) -> tuple[PathLike, PathLike | None]:
    """The SentencePiece models next to a model."""
    found = sorted(path.parent.glob("vocab*.spm"))
    own = [sorted(path.parent.glob(f"{side}vocab*.spm")) for side in ("src", "trg")]
    if len(found) == 1 and not any(own):
        return found[0], None
    if not found and all(len(each) == 1 for each in own):
        return own[0][0], own[1][0]
    raise ConfigError(f"--sentencepiece-model: must be given, there is not one vocab*.spm next to {path}")


def _languages(path: Path, request: ImportRequest) -> tuple[str, str]:
    pair = PAIR.match(path.name)
    named = pair.groups() if pair else (None, None)
    source, target = (given or own for given, own in zip(request.languages, named, strict=True))
    if source is None or target is None:
        raise ConfigError("--source-lang, --target-lang: must be given, the name of the model does not tell them")
    return source, target
