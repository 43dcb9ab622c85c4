"""fairseq's transformer layers, with the attention of :mod:`fairseq_compress.modules.attention`."""

from typing import Any

from fairseq.modules.transformer_layer import TransformerDecoderLayerBase, TransformerEncoderLayerBase

from fairseq_compress.modules.attention import HookableMultiheadAttention
from fairseq_compress.modules.average_attention import AverageAttention
from fairseq_compress.modules.ssru import SSRU


class HookableEncoderLayer(TransformerEncoderLayerBase):
    """An encoder layer in which every projection is called as a module. Arguments and shapes are fairseq's."""

    def build_self_attention(self, embed_dim: int, cfg: Any) -> HookableMultiheadAttention:
        return HookableMultiheadAttention(
            embed_dim,
            cfg.encoder.attention_heads,
            dropout=cfg.attention_dropout,
            self_attention=True,
            q_noise=self.quant_noise,
            qn_block_size=self.quant_noise_block_size,
            xformers_att_config=cfg.encoder.xformers_att_config,
        )


class HookableDecoderLayer(TransformerDecoderLayerBase):
    """A decoder layer in which every projection is called as a module. Arguments and shapes are fairseq's.

    It computes attention maps only when its caller asks: fairseq's computes them in every validation too.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.need_attn = False

    def build_self_attention(
        self, embed_dim: int, cfg: Any, add_bias_kv: bool = False, add_zero_attn: bool = False
    ) -> HookableMultiheadAttention | SSRU | AverageAttention:
        """The attention, or the recurrent unit of ``--decoder-self-attention``."""
        kind = getattr(cfg, "decoder_self_attention", None)
        if kind == "ssru":
            return SSRU(embed_dim)
        if kind == "average":
            inner = getattr(cfg, "average_attention_ffn", 0)
            dropout = float(cfg.activation_dropout or cfg.relu_dropout or 0)
            return AverageAttention(embed_dim, inner, dropout, cfg.activation_fn)
        return HookableMultiheadAttention(
            embed_dim,
            cfg.decoder.attention_heads,
            dropout=cfg.attention_dropout,
            add_bias_kv=add_bias_kv,
            add_zero_attn=add_zero_attn,
            self_attention=not cfg.cross_self_attention,
            q_noise=self.quant_noise,
            qn_block_size=self.quant_noise_block_size,
            xformers_att_config=cfg.decoder.xformers_att_config,
        )

    def build_encoder_attention(self, embed_dim: int, cfg: Any) -> HookableMultiheadAttention:
        return HookableMultiheadAttention(
            embed_dim,
            cfg.decoder.attention_heads,
            kdim=cfg.encoder.embed_dim,
            vdim=cfg.encoder.embed_dim,
            dropout=cfg.attention_dropout,
            encoder_decoder_attention=True,
            q_noise=self.quant_noise,
            qn_block_size=self.quant_noise_block_size,
            xformers_att_config=cfg.encoder.xformers_att_config,
        )

    def make_generation_fast_(self, need_attn: bool = False, **kwargs: Any) -> None:
        """Keep maps off: after ``need_attn`` the decoder asks the one layer whose map it returns."""
