"""Decoding steps of one model: :class:`TreeDecoder` where its decoder is fairseq's or ours as it is, else its own
incremental decoding, as in fairseq-generate (a subclass, hooks, replaced layers)."""

import logging
from typing import Any, Protocol

import torch
from fairseq.models import BaseFairseqModel
from fairseq.models.transformer import TransformerDecoder, TransformerDecoderBase
from fairseq.modules import MultiheadAttention
from fairseq.modules.transformer_layer import TransformerDecoderLayer, TransformerDecoderLayerBase
from torch import Tensor, nn

from fairseq_compress.errors import ConfigError
from fairseq_compress.models.compressed_transformer import CompressedTransformerDecoder
from fairseq_compress.modules.attention import HookableMultiheadAttention
from fairseq_compress.modules.convolutional_embedding import ConvolutionalEmbedding
from fairseq_compress.modules.transformer_layer import HookableDecoderLayer
from fairseq_compress.runtimes.torch.projections import Affine, Int8Affine
from fairseq_compress.runtimes.torch.tree_decoder import TreeDecoder
from fairseq_compress.teachers.loading import contiguous_inputs

logger = logging.getLogger(__name__)

DECODERS = (TransformerDecoderBase, TransformerDecoder, CompressedTransformerDecoder)
LAYERS = (TransformerDecoderLayerBase, TransformerDecoderLayer, HookableDecoderLayer)
ATTENTIONS = (MultiheadAttention, HookableMultiheadAttention)
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2", "output_projection")


class State(Protocol):
    """A batch of B sentences in the middle of decoding, each with G hypotheses (1 in the first step)."""

    def log_probs(self, tokens: Tensor) -> Tensor:
        """Append the last tokens ``(B, G)``: log-probabilities of the next ones ``(B G, V)``, float32."""

    def reorder(self, parents: Tensor) -> None:
        """Let the new hypotheses continue the hypotheses ``parents`` ``(B, beam)`` of their sentence."""

    def keep(self, rows: Tensor) -> None:
        """Continue with the sentences ``rows`` only."""


def step_decoder(model: BaseFairseqModel, precision: str = "float32") -> "TreeDecoder | GeneralDecoder":
    """The fast decoder if the model allows it, else the general one, with a warning that gives the reason."""
    reason = why_not_fast(model)
    if reason is None:
        return TreeDecoder(model, Int8Affine if precision == "int8" else Affine)
    if precision == "int8":
        raise ConfigError(f"--precision: must be float32 or bfloat16 for this model, got int8; {reason}")
    logger.warning("decoding as fairseq-generate does, which is slower: %s", reason)
    return GeneralDecoder(model)


def why_not_fast(model: Any) -> str | None:
    """The first reason why :class:`TreeDecoder` does not support a model, or None."""
    decoder: Any = getattr(model, "decoder", None)
    if type(decoder) not in DECODERS:
        return f"its decoder is a {type(decoder).__name__}"
    if isinstance(decoder.embed_tokens, ConvolutionalEmbedding):
        return "its decoder embeds a token with those before it"
    for attribute in ("quant_noise", "adaptive_softmax", "cross_self_attention"):
        if getattr(decoder, attribute, None):
            return f"its decoder has {attribute}"
    for layer in decoder.layers:
        if type(layer) not in LAYERS:
            return f"a decoder layer is a {type(layer).__name__}"
        if type(layer.self_attn) not in ATTENTIONS:
            return f"a decoder layer has a {type(layer.self_attn).__name__} for self-attention"
        if layer.encoder_attn is None:
            return "a decoder layer has no encoder_attn"
        for attribute in ("c_attn", "attn_ln", "ffn_layernorm", "w_resid"):
            if getattr(layer, attribute, None) is not None:
                return f"a decoder layer has {attribute}"
    return _odd_module(decoder)


def _odd_module(decoder: nn.Module) -> str | None:
    for name, module in decoder.named_modules():
        hooks = [hook for hook in module._forward_pre_hooks.values() if hook is not contiguous_inputs]
        if hooks or module._forward_hooks:
            return f"decoder.{name} has hooks"
        if isinstance(module, MultiheadAttention) and (
            type(module) not in ATTENTIONS
            or module.add_zero_attn
            or module.bias_k is not None
            or module.use_xformers
            or module.head_dim * module.num_heads != module.q_proj.out_features  # pruned by fairseq
        ):
            return f"decoder.{name} is not a plain attention"
        if name.rpartition(".")[2] in PROJECTIONS and type(module) is not nn.Linear:
            return f"decoder.{name} is a {type(module).__name__}"
    return None


class GeneralDecoder:
    """Any encoder-decoder model of fairseq, through its own incremental decoding."""

    def __init__(self, model: BaseFairseqModel) -> None:
        self.model = model

    def start(self, source: Tensor, lengths: Tensor) -> "GeneralState":
        """Encode a batch ``(B, S)``."""
        return GeneralState(self.model, self.model.encoder(source, src_lengths=lengths))


class GeneralState:
    """See :class:`State`; every hypothesis is a row with its own keys, values and encoder output."""

    def __init__(self, model: Any, encoded: dict[str, list[Tensor]]) -> None:
        self._model = model
        self._encoded = encoded
        self._incremental: dict[str, dict[str, Tensor | None]] = {}
        self._tokens: Tensor | None = None  # (B G, steps)
        self._group = 1

    def log_probs(self, tokens: Tensor) -> Tensor:
        new = tokens.reshape(-1, 1)
        self._tokens = new if self._tokens is None else torch.cat([self._tokens, new], dim=1)
        self._group = tokens.size(1)
        logits, extra = self._model.decoder(
            self._tokens, encoder_out=self._encoded, incremental_state=self._incremental
        )[:2]
        output: Tensor = self._model.get_normalized_probs((logits[:, -1:], extra), log_probs=True, sample=None)
        return output[:, -1].float()

    def reorder(self, parents: Tensor) -> None:
        first = torch.arange(parents.size(0), device=parents.device)[:, None] * self._group
        self._select((first + parents).flatten())
        self._group = parents.size(1)

    def keep(self, rows: Tensor) -> None:
        self._select((rows[:, None] * self._group + torch.arange(self._group, device=rows.device)).flatten())

    def _select(self, order: Tensor) -> None:
        assert self._tokens is not None
        self._tokens = self._tokens.index_select(0, order)
        self._model.decoder.reorder_incremental_state_scripting(self._incremental, order)
        self._encoded = self._model.encoder.reorder_encoder_out(self._encoded, order)
