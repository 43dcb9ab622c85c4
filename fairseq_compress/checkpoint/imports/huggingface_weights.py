"""Weights of MarianMT, M2M100 and NLLB under the names of fairseq.

What differs from fairseq's transformer, and how it is kept:

- MarianMT's positions start at 0 and have other frequencies. They become learned positions with these values.
- MarianMT's decoder starts with ``<pad>``, fairseq's with ``</s>``, which is in no other place of its input. With the
  embeddings e, their factor f and the first position p of the decoder, p + f · (e(<pad>) - e(</s>)) in its place makes
  the first input the same.
- MarianMT has a bias of the output and no ``<s>``: the row of ``<s>`` is 0 and its bias :data:`NEVER`.

Shapes: V rows of a table, C the width, P positions.
"""

import re
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fairseq_compress.checkpoint.imports.huggingface_config import Config
from fairseq_compress.checkpoint.imports.huggingface_vocabulary import Vocabulary, reordered
from fairseq_compress.errors import DataError

NEVER = -1e4  # a logit whose probability is 0 in float32, and which float16 can hold
BIAS = "final_logits_bias"
TABLES = ("model.shared.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")
OUTPUT = "lm_head.weight"
POSITIONS = re.compile(r"model\.(?:encoder|decoder)\.embed_positions\.weights?")
LAYERS = re.compile(r"model\.((?:encoder|decoder)\.(?:layers\.\d+\..+|layer_norm\.(?:weight|bias)))")
FIRST = 2  # row of the first position in fairseq
VERSION = 3.0  # of fairseq's transformers; older ones have no last layer norm


class Tables(NamedTuple):
    """Of source, target and output, ``(V, C)``; one that is shared is the same tensor."""

    encoder: Tensor
    decoder: Tensor
    output: Tensor
    tying: str


def tables_of(weights: dict[str, Tensor], config: Config) -> Tables:
    """The tables, which transformers ties as the configuration says, whatever else is in the file."""
    shared, *own = (weights.get(name) for name in TABLES)
    tied, one = (config.switch(name, True) for name in ("tie_word_embeddings", "share_encoder_decoder_embeddings"))
    encoder, decoder = (shared if table is None or (one and tied and shared is not None) else table for table in own)
    if one and tied:
        encoder = decoder = next((table for table in (encoder, decoder) if table is not None), None)
    output = decoder if tied else weights.get(OUTPUT)
    for name, table in zip((*TABLES[1:], OUTPUT), (encoder, decoder, output), strict=True):
        if table is None or table.dim() != 2:
            raise DataError(f"{config.path.parent}: {name}: must be in the weights, as a matrix")
    assert encoder is not None
    assert decoder is not None
    assert output is not None
    if len(output) != len(decoder):
        raise DataError(f"{config.path.parent}: {OUTPUT}: must have {len(decoder)} rows, has {len(output)}")
    return Tables(encoder, decoder, output, "all" if one and tied else "decoder" if tied else "none")


def converted(
    weights: dict[str, Tensor], tables: Tables, vocabularies: tuple[Vocabulary, Vocabulary], marian: bool
) -> dict[str, Tensor]:
    """Layers and tables, in the order of fairseq's dictionaries."""
    found = {f"{part}.version": torch.tensor([VERSION]) for part in ("encoder", "decoder")}
    for key, tensor in weights.items():
        if match := LAYERS.fullmatch(key):
            found[match[1]] = tensor
        elif key not in (*TABLES, OUTPUT, BIAS) and not POSITIONS.fullmatch(key):
            raise DataError(f"weights: {key}: is no weight of {'MarianMT' if marian else 'M2M100'}")
    source, target = (vocabulary.order() for vocabulary in vocabularies)
    decoder = reordered(tables.decoder, target)
    encoder = decoder if tables.encoder is tables.decoder else reordered(tables.encoder, source)
    output = decoder if tables.output is tables.decoder else reordered(tables.output, target)
    found |= {"encoder.embed_tokens.weight": encoder, "decoder.embed_tokens.weight": decoder}
    return found | {"decoder.output_projection.weight": output}


def marian_inputs(weights: dict[str, Tensor], tables: Tables, target: Vocabulary, config: Config) -> dict[str, Tensor]:
    """Positions and bias of MarianMT."""
    count, width = config.number("max_position_embeddings"), tables.decoder.size(1)
    rows = {}
    for part in ("encoder", "decoder"):
        given = weights.get(f"model.{part}.embed_positions.weight")
        rows[part] = marian_positions(count, width) if given is None else given[:count].clone()
    start, end = config.values.get("decoder_start_token_id"), target.place("</s>")
    if type(start) is not int or not 0 <= start < len(tables.decoder):
        raise DataError(
            f"{config.path}: decoder_start_token_id: must be in [0, {len(tables.decoder) - 1}], got {start!r}"
        )
    factor = width**0.5 if config.switch("scale_embedding", False) else 1.0
    rows["decoder"][0] += factor * (tables.decoder[start] - tables.decoder[end or 0])
    padding = torch.zeros(FIRST, width)
    found = {f"{part}.embed_positions.weight": torch.cat([padding, values]) for part, values in rows.items()}
    bias = weights.get(BIAS, torch.zeros(1, len(tables.decoder))).flatten()
    return found | {"decoder.output_projection.bias": reordered(bias, target.order(), NEVER)}


def marian_positions(count: int, width: int) -> Tensor:
    """Sinusoids ``(P, C)`` of transformers' MarianMT: sin(p · 10000^(-2i/C)), i < C/2, and behind them the cosines."""
    angles = np.arange(count)[:, None] / np.power(10000.0, 2 * np.arange(width // 2) / width)
    return torch.from_numpy(np.concatenate([np.sin(angles), np.cos(angles)], axis=1)).float()
