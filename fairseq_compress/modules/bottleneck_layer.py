r"""MobileBERT's layers: attention and FFNs inside a narrower bottleneck (Sun et al., arXiv:2004.02984).

It is narrow in MobileBERT and wide in its teacher IB-BERT; the streams between layers have one width in both, so that
feature maps are compared without projections.

.. math::
    b &= norm(W_b x + \beta_b), \quad s = norm(W_s x + \beta_s) \\
    h_0 &= norm(b + attention(q = s, k = s, v = x)) \\
    h_i &= norm(h_{i-1} + FFN_i(h_{i-1})), \quad i = 1 \dots F \\
    y &= norm(x + dropout(W_o h_F + \beta_o))

In a decoder there is :math:`norm(h_0 + attention(q = h_0, k = v = encoded))` in place of :math:`h_0` before the FFNs.
As in MobileBERT the only dropouts inside a layer are those of attention maps and activations.
"""

from collections.abc import Sequence
from typing import Any

from fairseq.modules import FairseqDropout
from torch import Tensor, nn

from fairseq_compress.architecture.shape import Layer
from fairseq_compress.errors import ConfigError
from fairseq_compress.modules.attention import IncrementalState
from fairseq_compress.modules.axes import INNER, WIDTH, Declaration, attention_axes
from fairseq_compress.modules.bottleneck import Bottleneck, ResidualFeedForward, make_norm
from fairseq_compress.modules.transformer_layer import make_attention, make_cross_attention
from fairseq_compress.options import flag

UNSUPPORTED = ("cross_self_attention", "scale_attn", "scale_heads", "scale_fc", "scale_resids")
_CACHED = ("prev_key", "prev_value", "prev_key_padding_mask")


class _BottleneckLayer(nn.Module):
    """A layer without the attention to the encoder."""

    def __init__(self, cfg: Any, part: str, layer: Layer) -> None:
        super().__init__()
        assert layer.bottleneck is not None
        _refuse_unsupported(cfg, part)
        self.embed_dim: int = getattr(cfg, part).embed_dim
        self.shape, name = layer.bottleneck, type(self).__name__
        norm, width = self.shape.norm, self.shape.width
        self.bottleneck_in = Bottleneck(self.embed_dim, width, make_norm(norm, width, cfg.export))
        self.bottleneck_shared = Bottleneck(self.embed_dim, width, make_norm(norm, width, cfg.export))
        # Neither self- nor encoder-decoder attention for fairseq's class: keys and values have separate inputs.
        self.self_attn = make_attention(width, layer.self_attention, cfg, part, vdim=self.embed_dim)
        self.self_attn_norm = make_norm(norm, width, cfg.export)
        self.ffns = nn.ModuleList(
            ResidualFeedForward(width, layer.ffn, cfg, make_norm(norm, width, cfg.export), name)
            for _ in range(self.shape.ffn_stack)
        )
        self.bottleneck_out = Bottleneck(
            width,
            self.embed_dim,
            make_norm(norm, self.embed_dim, cfg.export),
            FairseqDropout(cfg.dropout, module_name=name),
        )

    def axes(self) -> Declaration:
        found: Declaration = {"self_attn_norm": (INNER,), "encoder_attn_norm": (INNER,)}
        for name, read, written in (("in", WIDTH, INNER), ("shared", WIDTH, INNER), ("out", INNER, WIDTH)):
            found |= {f"bottleneck_{name}.linear": (written, read), f"bottleneck_{name}.norm": (written,)}
        found |= attention_axes(self.self_attn, "self_attn", INNER, keys=INNER, values=WIDTH)
        other = getattr(self, "encoder_attn", None)
        return found if other is None else {**found, **attention_axes(other, "encoder_attn", INNER)}

    def _attend_to_itself(self, x: Tensor, **options: Any) -> Tensor:
        """h₀ (T, B, bottleneck width) from ``x`` (T, B, C)."""
        shared = self.bottleneck_shared(x)
        attended, _ = self.self_attn(query=shared, key=shared, value=x, need_weights=False, **options)
        return self.self_attn_norm(self.bottleneck_in(x) + attended)

    def _leave(self, hidden: Tensor, x: Tensor) -> Tensor:
        """y (T, B, C) from the output of attention and the input of the layer."""
        for ffn in self.ffns:
            hidden = ffn(hidden)
        return self.bottleneck_out(hidden, x)

    def extra_repr(self) -> str:
        widths = f"{self.embed_dim} -> {self.shape.width} -> {self.embed_dim}"
        return f"{widths}, heads={self.self_attn.num_heads}, ffn_stack={self.shape.ffn_stack}, norm={self.shape.norm}"


class BottleneckEncoderLayer(_BottleneckLayer):
    """An encoder layer of MobileBERT, or of its teacher; see the module for equations."""

    def __init__(self, cfg: Any, layer: Layer) -> None:
        super().__init__(cfg, "encoder", layer)

    def forward(self, x: Tensor, encoder_padding_mask: Tensor | None, attn_mask: Tensor | None = None) -> Tensor:
        """(S, B, C) -> (S, B, C).

        ``encoder_padding_mask`` (B, S) is true at padding, ``attn_mask`` (S, S) not zero where attention is forbidden.
        """
        forbidden = None if attn_mask is None else attn_mask.bool()
        hidden = self._attend_to_itself(x, key_padding_mask=encoder_padding_mask, attn_mask=forbidden)
        return self._leave(hidden, x)

    def upgrade_state_dict_named(self, state_dict: dict[str, Any], name: str) -> None:
        """Nothing to do: no older checkpoint has these layers."""


class BottleneckDecoderLayer(_BottleneckLayer):
    """A decoder layer like :class:`BottleneckEncoderLayer`; its incremental state is that of its attentions."""

    def __init__(self, cfg: Any, layer: Layer) -> None:
        super().__init__(cfg, "decoder", layer)
        self.encoder_attn: nn.Module | None = None
        self.encoder_attn_norm: nn.Module | None = None
        if layer.cross_attention is not None:
            self.encoder_attn = make_cross_attention(self.shape.width, layer.cross_attention, cfg)
            self.encoder_attn_norm = make_norm(self.shape.norm, self.shape.width, cfg.export)

    def forward(
        self,
        x: Tensor,
        encoder_out: Tensor | None = None,
        encoder_padding_mask: Tensor | None = None,
        incremental_state: IncrementalState | None = None,
        prev_self_attn_state: Sequence[Tensor] | None = None,
        prev_attn_state: Sequence[Tensor] | None = None,
        self_attn_mask: Tensor | None = None,
        self_attn_padding_mask: Tensor | None = None,
        need_attn: bool = False,
        need_head_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None, None]:
        """(T, B, C) -> (T, B, C), and the maps of attention to the encoder.

        Args:
            x: (T, B, C); in incremental decoding the last step only, T = 1.
            encoder_out: (S, B, width of the encoder).
            encoder_padding_mask: (B, S), true at padding.
            incremental_state: caches of both attentions, updated here.
            prev_self_attn_state: keys and values (B, H, T, D), and maybe padding, of former steps.
            prev_attn_state: the same of attention to the encoder.
            self_attn_mask: (T, T), the causal mask of teacher forcing.
            self_attn_padding_mask: (B, T), true at padding.
            need_attn: return maps averaged over heads, (B, T, S).
            need_head_weights: return the map of every head, (H, B, T, S).

        Returns:
            the output, the maps or None, and None, as fairseq's layer does.
        """
        _restore(self.self_attn, incremental_state, prev_self_attn_state)
        hidden = self._attend_to_itself(
            x, key_padding_mask=self_attn_padding_mask, incremental_state=incremental_state, attn_mask=self_attn_mask
        )
        maps = None
        if self.encoder_attn is not None and self.encoder_attn_norm is not None and encoder_out is not None:
            _restore(self.encoder_attn, incremental_state, prev_attn_state)
            attended, maps = self.encoder_attn(
                query=hidden,
                key=encoder_out,
                value=encoder_out,
                key_padding_mask=encoder_padding_mask,
                incremental_state=incremental_state,
                static_kv=True,
                need_weights=need_attn or need_head_weights,
                need_head_weights=need_head_weights,
            )
            hidden = self.encoder_attn_norm(hidden + attended)
        return self._leave(hidden, x), maps, None


def _refuse_unsupported(cfg: Any, part: str) -> None:
    if getattr(cfg, part).normalize_before:
        raise ConfigError(f"--{part}-normalize-before: bottleneck layers have their norms after residuals, got True")
    for name in UNSUPPORTED:
        if getattr(cfg, name, False):
            raise ConfigError(f"{flag(name)}: not supported by bottleneck layers, got True")
    if cfg.quant_noise.pq:
        raise ConfigError(f"--quant-noise-pq: not supported by bottleneck layers, got {cfg.quant_noise.pq}")


def _restore(attention: Any, state: IncrementalState | None, former: Sequence[Tensor] | None) -> None:
    """Put keys, values and maybe padding of former steps into the cache of an attention."""
    if former is None:
        return
    if state is None:
        raise ConfigError("incremental_state: must be there to put former keys and values into, got None")
    attention._set_input_buffer(state, dict(zip(_CACHED, former, strict=False)))
