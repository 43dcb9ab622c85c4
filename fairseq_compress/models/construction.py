"""The modules of a model from its :class:`~fairseq_compress.architecture.shape.Architecture`."""

import logging
import math
from fnmatch import fnmatchcase
from typing import Any

import torch
from fairseq.models.transformer import Embedding
from torch import nn

from fairseq_compress.architecture.configuration import architecture_of
from fairseq_compress.architecture.flags import rank_patterns
from fairseq_compress.architecture.shape import NORM_EPS, Architecture, Embeddings, Layer, Matrix
from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.layer_map import PARTS
from fairseq_compress.functional.layers.low_rank import break_even_rank
from fairseq_compress.modules.bottleneck_layer import BottleneckDecoderLayer, BottleneckEncoderLayer
from fairseq_compress.modules.convolutional_embedding import ConvolutionalEmbedding
from fairseq_compress.modules.factorized_embedding import FactorizedEmbedding
from fairseq_compress.modules.factorized_output import FactorizedOutput
from fairseq_compress.modules.layer_sharing import share_layers
from fairseq_compress.modules.low_rank_linear import LowRankLinear
from fairseq_compress.modules.marian_conventions import PositionsFromZero, ZeroStartEmbedding, set_epsilon
from fairseq_compress.modules.sparse_linear import SparseLinear
from fairseq_compress.modules.tensor_train_embedding import TensorTrainEmbedding
from fairseq_compress.modules.tensor_train_output import TensorTrainOutput
from fairseq_compress.modules.transformer_layer import HookableDecoderLayer, HookableEncoderLayer

logger = logging.getLogger(__name__)


def embedding(form: Embeddings, entries: int, padding: int, width: int) -> nn.Module | None:
    """A table of ``entries`` rows; None for fairseq's own."""
    if form.kind == "convolutional":
        return Embedding(entries, form.rank, padding)
    if form.kind == "factorized":
        try:
            return FactorizedEmbedding(entries, width, padding, form.rank)
        except ConfigError as error:
            raise ConfigError(f"--embedding-rank: {error}") from None
    if form.kind == "tensor_train":
        modes = form.entry_modes or None, form.width_modes or None
        return TensorTrainEmbedding(entries, width, padding, form.rank, *modes)
    return None


def output_layer(cfg: Any, dictionary: Any, embed_tokens: Any) -> nn.Module | None:
    """From the decoder's features to logits; None for fairseq's own."""
    tied, entries, width = cfg.share_decoder_input_output_embed, len(dictionary), cfg.decoder.output_dim
    if isinstance(embed_tokens, ConvolutionalEmbedding):
        layer = embed_tokens.tied_output()
        if not tied:
            layer.weight = nn.Parameter(torch.randn_like(layer.weight) * layer.in_features**-0.5)
        return layer
    if isinstance(embed_tokens, FactorizedEmbedding):
        return FactorizedOutput.tied(embed_tokens) if tied else FactorizedOutput(width, entries, embed_tokens.rank)
    if architecture_of(cfg).output_bias:
        layer = torch.nn.Linear(width, entries)
        nn.init.zeros_(layer.bias)
        if tied:
            layer.weight = embed_tokens.weight
        else:
            nn.init.normal_(layer.weight, std=width**-0.5)
        return layer
    if isinstance(embed_tokens, TensorTrainEmbedding):
        if tied:
            return TensorTrainOutput(embed_tokens)
        modes = embed_tokens.entry_modes, embed_tokens.width_modes
        return TensorTrainOutput(
            TensorTrainEmbedding(entries, width, embed_tokens.padding_idx, embed_tokens.rank, *modes)
        )
    return None


def encoder_layer(cfg: Any, layer: Layer, return_fc: bool) -> nn.Module:
    return BottleneckEncoderLayer(cfg, layer) if layer.bottleneck else HookableEncoderLayer(cfg, layer, return_fc)


def decoder_layer(cfg: Any, layer: Layer) -> nn.Module:
    return BottleneckDecoderLayer(cfg, layer) if layer.bottleneck else HookableDecoderLayer(cfg, layer)


def decoder_table(architecture: Architecture, table: Any, start: int) -> Any:
    """The decoder's table of embeddings, whose token ``start`` is its first input."""
    return ZeroStartEmbedding(table, start) if architecture.decoder_start == "zero" else table


def finish(architecture: Architecture, model: Any, args: Any) -> None:
    """Replace linear layers of a new model by low-rank and sparse ones, then share parameters between layers.

    Args:
        args: the model's flat options, whose patterns of ranks give the order of initialization.
    """
    if architecture.norm_eps != NORM_EPS:
        set_epsilon(model, architecture.norm_eps)
    for part in PARTS if architecture.first_position == 0 else ():
        side = getattr(model, part)
        if side.embed_positions is not None:
            side.embed_positions = PositionsFromZero(side.embed_positions)
    forms = {
        f"{part}.layers.{number}.{matrix.name}": matrix
        for part in PARTS
        for number, layer in enumerate(architecture.stack(part).layers)
        for matrix in layer.matrices
    }
    large = []
    for name in sorted(forms, key=_drawn_at(rank_patterns(args), forms)):
        parent, _, last = name.rpartition(".")
        linear: Any = model.get_submodule(name)
        if linear._forward_pre_hooks:
            raise ConfigError(f"--quant-noise-pq: not with low-rank and sparse layers, got noise in {name}")
        setattr(model.get_submodule(parent), last, _stored(linear, forms[name]))
        if forms[name].rank >= break_even_rank(linear.out_features, linear.in_features):
            large.append(name)
    if large:
        more = f" and {len(large) - 1} more layers" if len(large) > 1 else ""
        logger.warning("%s%s: their factors hold no fewer numbers than a dense matrix", large[0], more)
    for part in PARTS:
        leaders = architecture.stack(part).leaders()
        if leaders != list(range(len(leaders))):
            share_layers(getattr(model, part).layers, leaders)


def _drawn_at(patterns: list[str], forms: dict[str, Matrix]) -> Any:
    """The sort key of a matrix: low-rank ones first, by the first pattern that matches."""
    matching = {
        name: next((place for place, pattern in enumerate(patterns) if fnmatchcase(name, pattern)), len(patterns))
        for name in forms
    }
    return lambda name: (forms[name].sparsity > 0, matching[name])


def _stored(linear: Any, form: Matrix) -> nn.Module:
    """A new layer of the shape of a dense one."""
    sizes, has_bias, std = (linear.in_features, linear.out_features), linear.bias is not None, _std(linear)
    if form.rank:
        return LowRankLinear(*sizes, form.rank, has_bias, std)
    return SparseLinear(
        *sizes, sparsity=form.sparsity, layout=form.layout, block=form.block, seed=form.seed, bias=has_bias, std=std
    )


def _std(linear: Any) -> float:
    """Standard deviation of a new dense layer; on the meta device the expected one."""
    if linear.weight.is_meta:
        return 1 / math.sqrt(3 * linear.in_features)
    return float(linear.weight.detach().float().std())
