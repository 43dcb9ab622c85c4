"""Multi-head attention whose projections are called as modules, once in every forward that needs them.

fairseq's attention hands raw weights to ``F.multi_head_attention_forward`` in teacher-forced forwards and calls the
projections in incremental decoding only, so that hooks and quantized activations would mean two things.
"""

from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from fairseq.modules import MultiheadAttention
from fairseq.modules.quant_noise import quant_noise
from torch import Tensor, nn

from fairseq_compress.errors import ConfigError
from fairseq_compress.modules.positions import reading

IncrementalState = dict[str, dict[str, Tensor | None]]

_CAUSAL_MARK = "_is_plain_causal_mask"


def mark_causal(mask: Tensor) -> Tensor:
    """Mark ``mask`` ``(T, T)`` as the plain causal mask: comparing its values would synchronize with the device.

    A copy or a slice of the tensor is not marked, which is slower, never wrong.
    """
    setattr(mask, _CAUSAL_MARK, True)
    return mask


class HookableMultiheadAttention(MultiheadAttention):
    """fairseq's multi-head attention, ``softmax(q kᵀ / √D + mask) v`` for each head (arXiv:1706.03762).

    Computed with ``F.scaled_dot_product_attention``, or explicitly when attention maps are requested and where that is
    much faster (see :func:`_explicit_is_faster`). Parameters, names, initialization and incremental state are as in
    fairseq. Unlike there, a query all of whose keys are masked gets ``out_proj(0)`` instead of NaN, and a boolean or
    byte ``attn_mask`` always means "True is masked".

    Args:
        embed_dim: C, width of queries and outputs.
        num_heads: H.
        head_width: D; by default C / H. Queries, keys and values are H · D wide.
        options: the other arguments of fairseq's class.
    """

    def __init__(self, embed_dim: int, num_heads: int, head_width: int | None = None, **options: Any) -> None:
        for name in ("add_bias_kv", "add_zero_attn", "xformers_att_config"):
            if options.get(name):
                raise ConfigError(f"{name}: not supported by {type(self).__name__}, got {options[name]!r}")
        if num_heads < 1 or (head_width is None and embed_dim % num_heads):
            raise ConfigError(f"num_heads: must divide embed_dim = {embed_dim}, got {num_heads}")
        inner = embed_dim if head_width is None else num_heads * head_width
        if inner == embed_dim:
            super().__init__(embed_dim, num_heads, **options)
            return
        self_attention = options.pop("self_attention", False)
        widths = {name: options.pop(name, None) or embed_dim for name in ("kdim", "vdim")}
        super().__init__(inner, num_heads, **widths, **options)
        self.embed_dim, self.self_attention = embed_dim, self_attention
        self.qkv_same_dim = self.kdim == self.vdim == embed_dim
        bias, noise = options.get("bias", True), (options.get("q_noise", 0.0), options.get("qn_block_size", 8))
        self.q_proj = quant_noise(nn.Linear(embed_dim, inner, bias=bias), *noise)
        self.out_proj = quant_noise(nn.Linear(inner, embed_dim, bias=bias), *noise)
        self.reset_parameters()

    def forward(
        self,
        query: Tensor,
        key: Tensor | None,
        value: Tensor | None,
        key_padding_mask: Tensor | None = None,
        incremental_state: IncrementalState | None = None,
        need_weights: bool = True,
        static_kv: bool = False,
        attn_mask: Tensor | None = None,
        before_softmax: bool = False,
        need_head_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from ``query`` to ``key``. T target length, S source length, B batch, C width, H heads.

        Args:
            query: ``(T, B, C)``.
            key: ``(S, B, kdim)``; unused in self-attention, and where static keys are cached already.
            value: ``(S, B, vdim)``; used only where attention is neither self- nor encoder-decoder attention.
            key_padding_mask: ``(B, S)``, true at padding.
            incremental_state: cache of keys and values, updated here.
            need_weights: also return the attention maps, averaged over heads, in float32.
            static_kv: keys and values are those of the first step (encoder-decoder attention).
            attn_mask: ``(T, S)``, added to the scores (float) or true where attention is forbidden.
            need_head_weights: return the map of every head.

        Returns:
            the output ``(T, B, C)``, and the maps: ``None``, ``(B, T, S)``, or ``(H, B, T, S)`` for every head.
        """
        if before_softmax:
            raise ConfigError("before_softmax: not supported, the fused kernel never forms scores; got True")
        tgt_len, bsz, _ = query.size()
        q = self._split_heads(self.q_proj(query))
        k, v, padding = self._keys_and_values(query, key, value, key_padding_mask, incremental_state, static_kv)
        attended, weights = self._attend(q, k, v, padding, attn_mask, need_weights or need_head_weights)
        output = self.out_proj(attended.permute(2, 0, 1, 3).reshape(tgt_len, bsz, -1))
        if weights is None:
            return output, None
        weights = weights.transpose(0, 1)
        return output, weights if need_head_weights else weights.mean(dim=0)

    def _split_heads(self, x: Tensor) -> Tensor:
        """``(T, B, H·D)`` -> ``(B, H, T, D)``, a view."""
        return x.view(*x.shape[:2], self.num_heads, self.head_dim).permute(1, 2, 0, 3)

    def _keys_and_values(
        self,
        query: Tensor,
        key: Tensor | None,
        value: Tensor | None,
        padding: Tensor | None,
        state: IncrementalState | None,
        static_kv: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys and values ``(B, H, S, D)`` of all steps so far and their padding mask ``(B, S)``."""
        saved = self._get_input_buffer(state) if state is not None else {}
        cached = "prev_key" in saved
        if cached and static_kv:
            return saved["prev_key"], saved["prev_value"], saved.get("prev_key_padding_mask", padding)

        if self.self_attention:
            key = value = query
        elif self.encoder_decoder_attention:
            key, padding = self._one_row_a_sentence(key, padding, query.size(1))
            value = key
        with nullcontext() if self.self_attention else reading(padding):
            k, v = self._split_heads(self.k_proj(key)), self._split_heads(self.v_proj(value))
        if state is None:
            return k, v, padding

        if cached:
            k = torch.cat([saved["prev_key"], k], dim=2)
            v = torch.cat([saved["prev_value"], v], dim=2)
        padding = self._append_prev_key_padding_mask(
            padding, saved.get("prev_key_padding_mask"), k.size(0), k.size(2), static_kv
        )
        if padding is not None:
            padding = padding.bool()
            if static_kv and not padding.any():  # worth one look: every later step is then without a mask
                padding = None
        saved.update(prev_key=k, prev_value=v, prev_key_padding_mask=padding)
        self._set_input_buffer(state, saved)
        return k, v, padding

    def _one_row_a_sentence(self, key: Any, padding: Tensor | None, bsz: int) -> tuple[Tensor, Tensor | None]:
        """Undo the repetition of the encoder output for every hypothesis of a beam (see ``set_beam_size``)."""
        if self.beam_size > 1 and bsz == key.size(1):
            key = key[:, :: self.beam_size]
            padding = None if padding is None else padding[:: self.beam_size]
        return key, padding

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, padding: Tensor | None, attn_mask: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Output ``(B·G, H, T, D)`` and, if needed, maps ``(B·G, H, T, S)`` for q ``(B·G, H, T, D)``.

        G is the number of hypotheses of one sentence that share its keys and values ``(B, H, S, D)``.
        """
        dropout = self.dropout_module
        p = dropout.p if dropout.training or dropout.apply_during_inference else 0.0
        groups = q.size(0) // k.size(0)
        if groups > 1:
            q = q.unflatten(0, (-1, groups)).transpose(1, 2).flatten(2, 3)  # (B, H, G·T, D)
        if need_weights or _explicit_is_faster(q, k, p):
            mask = _additive_mask(attn_mask, padding, groups, q.dtype)
            output, weights = self._attend_explicitly(q, k, v, mask)
            return _ungroup(output, groups), _ungroup(weights, groups) if need_weights else None

        is_causal = padding is None and getattr(attn_mask, _CAUSAL_MARK, False) and q.size(2) == k.size(2)
        mask = None if is_causal else _additive_mask(attn_mask, padding, groups, q.dtype)
        output = F.scaled_dot_product_attention(q, k, v, mask, p, is_causal, scale=self.scaling)
        return _ungroup(output, groups), None

    def _attend_explicitly(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Output ``(B, H, T, D)``, and the maps ``(B, H, T, S)`` before dropout, in float32 at least."""
        scores = torch.matmul(q * self.scaling, k.transpose(-2, -1))
        blocked = None  # queries that may attend to nothing, (B, 1, T, 1)
        if mask is not None:
            scores = scores + mask
            blocked = (mask == float("-inf")).all(dim=-1, keepdim=True)
            blocked = blocked if blocked.any() else None
        if blocked is not None:
            # Filled before the softmax as well as after it: NaN must arise neither here nor in the backward pass.
            scores = scores.masked_fill(blocked, 0.0)
        weights = torch.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
        if blocked is not None:
            weights = weights.masked_fill(blocked, 0.0)
        return torch.matmul(self.dropout_module(weights.to(v.dtype)), v), weights


def _explicit_is_faster(q: Tensor, k: Tensor, dropout: float) -> bool:
    """Whether matmul, softmax, matmul beats the fused kernel for ``(B, H, T, D)`` and ``(B, H, S, D)``.

    torch 2.13 on a CPU: in bfloat16 the fused kernel takes 1.3 to 7 times as long up to S = 250. In float32 it is as
    fast or faster, but for single steps of many sentences and with dropout (``benchmarks/attention.py``).
    """
    if q.device.type != "cpu" or k.size(2) > 256:
        return False
    many_single_steps = q.size(2) == 1 and q.size(0) > 16
    return dropout > 0 or many_single_steps or q.dtype in (torch.bfloat16, torch.float16)


def _additive_mask(attn_mask: Tensor | None, padding: Tensor | None, groups: int, dtype: torch.dtype) -> Tensor | None:
    """One mask to be added to the scores, ``(B or 1, 1, T or 1, S)`` of type ``dtype``, or None."""
    mask = None
    if attn_mask is not None:
        if not attn_mask.is_floating_point():
            attn_mask = torch.zeros_like(attn_mask, dtype=dtype).masked_fill(attn_mask.bool(), float("-inf"))
        mask = attn_mask.to(dtype)[None, None].repeat(1, 1, groups, 1)
    if padding is not None:
        padding = padding.bool()[:, None, None, :]
        if mask is None:
            mask = torch.zeros_like(padding, dtype=dtype)
        mask = mask.masked_fill(padding, float("-inf"))
    return mask


def _ungroup(x: Tensor, groups: int) -> Tensor:
    """``(B, H, G·T, N)`` -> ``(B·G, H, T, N)``."""
    return x if groups == 1 else x.unflatten(2, (groups, -1)).transpose(1, 2).flatten(0, 1)
