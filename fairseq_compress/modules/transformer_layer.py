"""fairseq's transformer layers, with the attention of :mod:`fairseq_compress.modules.attention`, in any shape."""

import copy
from typing import Any

from fairseq.modules.transformer_layer import TransformerDecoderLayerBase, TransformerEncoderLayerBase

from fairseq_compress.architecture.shape import Attention, Layer
from fairseq_compress.modules.attention import HookableMultiheadAttention
from fairseq_compress.modules.average_attention import AverageAttention
from fairseq_compress.modules.ssru import SSRU


def with_sizes(cfg: Any, part: str, layer: Layer) -> Any:
    """fairseq's configuration with the sizes of one layer of ``encoder`` or ``decoder``."""
    view, sizes = copy.copy(cfg), copy.copy(getattr(cfg, part))
    sizes.ffn_embed_dim, view.layer = layer.ffn, layer
    setattr(view, part, sizes)
    return view


def make_attention(width: int, shape: Attention, cfg: Any, part: str, **options: Any) -> HookableMultiheadAttention:
    """Attention between streams of ``width``, with the dropout and the noise of a configuration."""
    return HookableMultiheadAttention(
        width,
        shape.heads,
        shape.head_width,
        dropout=cfg.attention_dropout,
        q_noise=cfg.quant_noise.pq,
        qn_block_size=cfg.quant_noise.pq_block_size,
        xformers_att_config=getattr(cfg, part).xformers_att_config,
        **options,
    )


def make_cross_attention(width: int, shape: Attention, cfg: Any) -> HookableMultiheadAttention:
    """Attention of a decoder layer to the encoder."""
    source = cfg.encoder.embed_dim
    return make_attention(width, shape, cfg, "encoder", kdim=source, vdim=source, encoder_decoder_attention=True)


class HookableEncoderLayer(TransformerEncoderLayerBase):
    """An encoder layer in which every projection is called as a module."""

    def __init__(self, cfg: Any, layer: Layer, return_fc: bool = False) -> None:
        super().__init__(with_sizes(cfg, "encoder", layer), return_fc)

    def build_self_attention(self, embed_dim: int, cfg: Any) -> HookableMultiheadAttention:
        return make_attention(embed_dim, cfg.layer.self_attention, cfg, "encoder", self_attention=True)


class HookableDecoderLayer(TransformerDecoderLayerBase):
    """A decoder layer in which every projection is called as a module.

    It computes attention maps only on request: fairseq's computes them in every validation too.
    """

    def __init__(self, cfg: Any, layer: Layer) -> None:
        super().__init__(with_sizes(cfg, "decoder", layer), no_encoder_attn=layer.cross_attention is None)
        self.need_attn = False

    def build_self_attention(
        self, embed_dim: int, cfg: Any, add_bias_kv: bool = False, add_zero_attn: bool = False
    ) -> HookableMultiheadAttention | SSRU | AverageAttention:
        """The attention or recurrent unit of the layer."""
        shape = cfg.layer.self_attention
        if shape.kind == "ssru":
            return SSRU(embed_dim)
        if shape.kind == "average":
            dropout = float(cfg.activation_dropout or cfg.relu_dropout or 0)
            return AverageAttention(embed_dim, shape.ffn, dropout, cfg.activation_fn)
        return make_attention(embed_dim, shape, cfg, "decoder", self_attention=not cfg.cross_self_attention)

    def build_encoder_attention(self, embed_dim: int, cfg: Any) -> HookableMultiheadAttention:
        return make_cross_attention(embed_dim, cfg.layer.cross_attention, cfg)

    def make_generation_fast_(self, need_attn: bool = False, **kwargs: Any) -> None:
        """Keep maps off: after ``need_attn`` the decoder asks the one layer whose map it returns."""
