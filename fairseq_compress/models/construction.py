"""The parts of a model as its :class:`~fairseq_compress.architecture.structure.Structure` wants them."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from fairseq.models.transformer import Embedding
from torch import nn

from fairseq_compress.architecture.structure import Structure, linear_ranks, structure_of, tensor_train_modes
from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.layers.low_rank import break_even_rank
from fairseq_compress.functional.layers.supports import layer_seed
from fairseq_compress.modules.bottleneck_layer import BottleneckDecoderLayer, BottleneckEncoderLayer
from fairseq_compress.modules.convolutional_embedding import ConvolutionalEmbedding
from fairseq_compress.modules.factorized_embedding import FactorizedEmbedding
from fairseq_compress.modules.factorized_output import FactorizedOutput
from fairseq_compress.modules.layer_sharing import share_layers, sharing_leaders
from fairseq_compress.modules.low_rank_linear import LowRankLinear
from fairseq_compress.modules.sparse_linear import SparseLinear
from fairseq_compress.modules.tensor_train_embedding import TensorTrainEmbedding
from fairseq_compress.modules.tensor_train_output import TensorTrainOutput
from fairseq_compress.modules.transformer_layer import HookableDecoderLayer, HookableEncoderLayer
from fairseq_compress.selection import select

logger = logging.getLogger(__name__)


def prepare(structure: Structure, args: Any) -> None:
    """Set the options of fairseq that follow from ours in ``args``, a flat namespace."""
    if structure.embedding_convolution:  # the output layer is tied to the table, behind fairseq's project_out_dim
        args.decoder_output_dim = structure.embedding_rank


def embedding(structure: Structure, entries: int, padding: int, width: int) -> nn.Module | None:
    """A table of ``entries`` rows; None for fairseq's own."""
    if structure.embedding_convolution:
        return Embedding(entries, structure.embedding_rank, padding)
    if structure.embedding_rank:
        try:
            return FactorizedEmbedding(entries, width, padding, structure.embedding_rank)
        except ConfigError as error:
            raise ConfigError(f"--embedding-rank: {error}") from None
    if structure.tensor_train_rank:
        modes = tensor_train_modes(structure)
        return TensorTrainEmbedding(entries, width, padding, structure.tensor_train_rank, *modes)
    return None


def with_neighbours(cfg: Any, table: Any, width: int, causal: bool) -> nn.Module:
    """The table behind the convolution of one side, if there is one."""
    taps = structure_of(cfg).embedding_convolution
    return ConvolutionalEmbedding(table, width, taps, causal=causal) if taps else table


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
    if isinstance(embed_tokens, TensorTrainEmbedding):
        if tied:
            return TensorTrainOutput.tied(embed_tokens)
        modes = embed_tokens.entry_modes, embed_tokens.width_modes
        return TensorTrainOutput.tied(
            TensorTrainEmbedding(entries, width, embed_tokens.padding_idx, embed_tokens.rank, *modes)
        )
    return None


def encoder_layer(cfg: Any, return_fc: bool) -> nn.Module:
    """One layer of the encoder."""
    structure = structure_of(cfg)
    if structure.bottleneck_width:
        return BottleneckEncoderLayer(cfg, structure)
    return HookableEncoderLayer(cfg, return_fc=return_fc)


def decoder_layer(cfg: Any, no_encoder_attn: bool) -> nn.Module:
    """One layer of the decoder."""
    structure = structure_of(cfg)
    if structure.bottleneck_width:
        return BottleneckDecoderLayer(cfg, structure, no_encoder_attn)
    return HookableDecoderLayer(cfg, no_encoder_attn)


def finish(structure: Structure, model: Any) -> None:
    """Replace linear layers of a new model by low-rank and sparse ones, then share parameters between layers.

    Raises:
        ConfigError: a pattern matches no layer, or a layer is to be both low-rank and sparse.
    """
    modules = dict(model.named_modules())
    linear = [name for name, module in modules.items() if type(module) is nn.Linear and ".layers." in name]
    ranks: dict[str, int] = {}
    for pattern, rank in linear_ranks(structure):
        ranks |= dict.fromkeys(select(linear, [pattern], "--linear-ranks"), rank)
    sparse: list[str] = []
    if structure.sparsity:
        sparse = select(linear, structure.sparse_modules.split(","), "--sparse-modules")
    both = sorted({*ranks} & {*sparse})
    if both:
        raise ConfigError(f"--sparse-modules: must pick no layer that has a rank, got {', '.join(both)}")
    for name in [*ranks, *sparse]:
        parent, _, last = name.rpartition(".")
        layer = modules[name]
        if layer._forward_pre_hooks:
            raise ConfigError(f"--quant-noise-pq: not with low-rank and sparse layers, got noise in {name}")
        try:
            replaced = _low_rank(layer, ranks[name]) if name in ranks else _sparse(layer, structure, name)
        except ConfigError as error:
            options = "--linear-ranks, --ffn-rank, --attention-rank" if name in ranks else "--sparsity"
            raise ConfigError(f"{options}: {name}: {error}") from None
        setattr(modules[parent], last, replaced)
    _warn_of_large_ranks(modules, ranks)
    for part in ("encoder", "decoder"):
        layers = getattr(model, part).layers
        groups = getattr(structure, f"{part}_layer_groups")
        if groups:
            try:
                share_layers(layers, sharing_leaders(len(layers), groups, structure.layer_sharing))
            except ConfigError as error:
                raise ConfigError(f"--{part}-layer-groups: {error}") from None


def _warn_of_large_ranks(modules: Mapping[str, Any], ranks: Mapping[str, int]) -> None:
    sizes = {name: (modules[name].out_features, modules[name].in_features) for name in ranks}
    larger = [name for name, size in sizes.items() if ranks[name] >= break_even_rank(*size)]
    if larger:
        more = f" and {len(larger) - 1} more layers" if len(larger) > 1 else ""
        logger.warning("%s%s: their factors hold no fewer numbers than a dense matrix", larger[0], more)


def _low_rank(linear: Any, rank: int) -> nn.Module:
    has_bias = linear.bias is not None
    return LowRankLinear(linear.in_features, linear.out_features, rank, has_bias, _std(linear))


def _sparse(linear: Any, structure: Structure, name: str) -> nn.Module:
    return SparseLinear(
        linear.in_features,
        linear.out_features,
        sparsity=structure.sparsity,
        layout=structure.sparse_layout,
        block=structure.sparse_block,
        seed=layer_seed(structure.sparse_seed, name),
        bias=linear.bias is not None,
        std=_std(linear),
    )


def _std(linear: Any) -> float:
    """Of the entries of a new dense layer; a guess on the meta device, which has no values."""
    if linear.weight.is_meta:
        return 1 / math.sqrt(3 * linear.in_features)
    return float(linear.weight.detach().float().std())
