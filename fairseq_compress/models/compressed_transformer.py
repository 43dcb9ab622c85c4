"""The model ``compressed_transformer``: fairseq's transformer in any architecture, with hookable attention."""

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from fairseq.distributed import fsdp_wrap
from fairseq.models import register_model
from fairseq.models.transformer import (
    TransformerConfig,
    TransformerDecoderBase,
    TransformerEncoderBase,
    TransformerModel,
)
from fairseq.modules import FairseqDropout
from fairseq.modules.checkpoint_activations import checkpoint_wrapper
from omegaconf import DictConfig, open_dict
from torch import Tensor, nn

from fairseq_compress.architecture.configuration import architecture_of
from fairseq_compress.architecture.flags import KEY, add_arguments
from fairseq_compress.architecture.reading import to_json
from fairseq_compress.architecture.shape import Architecture
from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.layer_map import PARTS
from fairseq_compress.models import construction, language_tokens
from fairseq_compress.modules.attention import mark_causal
from fairseq_compress.modules.convolutional_embedding import ConvolutionalEmbedding
from fairseq_compress.modules.positions import reading

MODEL_NAME = "compressed_transformer"


def register_new_model(name: str) -> Callable[[type], type]:
    """fairseq's ``register_model``, but a taken name is an error; fairseq silently returns the other class."""

    def register(cls: type) -> type:
        registered: type = register_model(name)(cls)
        if registered is not cls:
            other = f"{registered.__module__}.{registered.__qualname__}"
            raise ConfigError(f"model name {name!r}: already registered for another class, {other}")
        return cls

    return register


def _wrapped(layer: nn.Module, cfg: Any) -> nn.Module:
    """Activation checkpointing and sharding, under the conditions of fairseq's ``build_*_layer``."""
    if cfg.checkpoint_activations:
        layer = checkpoint_wrapper(layer, offload_to_cpu=cfg.offload_activations)
    return fsdp_wrap(layer, min_num_params=0 if cfg.checkpoint_activations else cfg.min_params_to_wrap)


class CompressedTransformerEncoder(TransformerEncoderBase):
    """fairseq's encoder with our layers; it puts the language tokens of the source before every sentence."""

    _built = 0
    language_tokens: tuple[int, ...] = ()

    def build_encoder_layer(self, cfg: Any) -> nn.Module:
        layer = architecture_of(cfg).encoder.layers[self._built]
        self._built += 1
        return _wrapped(construction.encoder_layer(cfg, layer, self.return_fc), cfg)

    def forward_scriptable(
        self, src_tokens: Tensor, src_lengths: Tensor | None = None, return_all_hiddens: bool = False,
        token_embeddings: Tensor | None = None,
    ) -> dict[str, list[Tensor]]:  # fmt: skip
        """As fairseq's, of the sentences behind their language tokens."""
        if not self.language_tokens:
            return super().forward_scriptable(src_tokens, src_lengths, return_all_hiddens, token_embeddings)
        tokens = language_tokens.before(src_tokens, self.language_tokens)
        with reading(tokens.eq(self.padding_idx)):
            return super().forward_scriptable(tokens, src_lengths, return_all_hiddens)

    def max_positions(self) -> int:
        """The longest source, without language tokens."""
        return int(super().max_positions()) - len(self.language_tokens)


class CompressedTransformerDecoder(TransformerDecoderBase):
    """fairseq's decoder with our layers, which returns attention maps only on request.

    They are computed if ``alignment_layer`` or ``alignment_heads`` is given, or after
    ``make_generation_fast_(need_attn=True)`` (``fairseq-generate --print-alignment``). Otherwise the ``attn`` entry of
    the output is ``[None]``.

    A model of many languages reads its language tokens of the target behind its first input, ``</s>``; its outputs are
    those for the tokens of the sentence.
    """

    need_attn = False
    _built = 0
    language_tokens: tuple[int, ...] = ()
    source_language_tokens: tuple[int, ...] = ()

    def build_decoder_layer(self, cfg: Any, no_encoder_attn: bool = False) -> nn.Module:
        layer = architecture_of(cfg).decoder.layers[self._built]
        self._built += 1
        return _wrapped(construction.decoder_layer(cfg, layer), cfg)

    def build_output_projection(self, cfg: Any, dictionary: Any, embed_tokens: Any) -> None:
        """The output layer, tied to ``embed_tokens`` or not, of the same structure."""
        self.output_projection = construction.output_layer(cfg, dictionary, embed_tokens)
        if self.output_projection is None:
            super().build_output_projection(cfg, dictionary, embed_tokens)

    def make_generation_fast_(self, need_attn: bool = False, **kwargs: Any) -> None:
        """Called for every module before generation; ``need_attn`` is the value of ``--print-alignment``."""
        self.need_attn = bool(need_attn)

    def extract_features(
        self,
        prev_output_tokens: Tensor,
        encoder_out: dict[str, list[Tensor]] | None,
        incremental_state: dict[str, dict[str, Tensor | None]] | None = None,
        full_context_alignment: bool = False,
        alignment_layer: int | None = None,
        alignment_heads: int | None = None,
    ) -> tuple[Tensor, dict[str, Any]]:
        """As fairseq's, with attention maps only on request (see the class)."""
        if alignment_layer is None and alignment_heads is None and not self.need_attn:
            alignment_layer = -1  # the number of no layer: None would mean the last one

        def features(tokens: Tensor) -> tuple[Tensor, dict[str, Any]]:
            with self._neighbours(tokens):
                return super(CompressedTransformerDecoder, self).extract_features(
                    tokens,
                    encoder_out,
                    incremental_state,
                    full_context_alignment,
                    alignment_layer,
                    alignment_heads,
                )

        if not self.language_tokens and not self.source_language_tokens:
            return features(prev_output_tokens)
        return language_tokens.decoded(self, features, prev_output_tokens, incremental_state is not None)

    def max_positions(self) -> int:
        """The longest target, without language tokens."""
        return int(super().max_positions()) - len(self.language_tokens)

    def _neighbours(self, prev_output_tokens: Tensor) -> AbstractContextManager[None]:
        """fairseq's decoding step embeds the last token only; a convolution needs those before it too."""
        embed: Any = self.embed_tokens
        return embed.within(prev_output_tokens) if isinstance(embed, ConvolutionalEmbedding) else nullcontext()

    def output_layer(self, features: Tensor) -> Tensor:
        """Logits ``(B, T, V)`` of features ``(B, T, C)``.

        fairseq's features are a transposed view, of which torch 2.13 multiplies bfloat16 matrices on a CPU 18 times as
        slowly.
        """
        return super().output_layer(features.contiguous())

    def buffered_future_mask(self, tensor: Tensor) -> Tensor:
        """The causal mask ``(T, T)``, marked so that the attention may use the causal kernel."""
        return mark_causal(super().buffered_future_mask(tensor))


@register_new_model(MODEL_NAME)
class CompressedTransformerModel(TransformerModel):
    """fairseq's ``transformer`` with projections that are called as modules everywhere.

    A checkpoint of either loads into the other. Options are those of ``transformer``, as ``--flags`` or as
    flat values of a hydra ``model`` group (``model._name: transformer_student_tiny``, ``model.dropout: 0.3``).
    """

    @classmethod
    def add_args(cls, parser: argparse.ArgumentParser) -> None:
        """Add the options of ``transformer``, and the way out of the shared embeddings of our architectures."""
        super().add_args(parser)
        parser.add_argument(
            "--no-share-all-embeddings",
            dest="share_all_embeddings",
            action="store_false",
            default=argparse.SUPPRESS,
            help="separate encoder, decoder and output embeddings, in architectures that share them",
        )
        add_arguments(parser)

    @classmethod
    def build_model(cls, args: Any, task: Any) -> "CompressedTransformerModel":
        """Build the model for the dictionaries of ``task``."""
        for group in ("encoder", "decoder"):
            if hasattr(args, group):
                raise ConfigError(f"model.{group}: give flat values, such as model.{group}_layers, got a nested group")
        source, target = task.source_dictionary, task.target_dictionary
        if getattr(args, "share_all_embeddings", False) and source != target:
            raise ConfigError(
                "--share-all-embeddings: needs a joined dictionary (fairseq-preprocess --joined-dictionary), got a"
                f" source dictionary of {len(source)} entries and a different target one of {len(target)}"
            )
        # fairseq finds options that it does not know, such as ours, in a namespace only, and hydra's are in a table.
        known = argparse.Namespace(**{str(k): v for k, v in args.items()}) if isinstance(args, DictConfig) else args
        architecture = _prepared(known)
        model = super().build_model(known, task)
        if known is not args:
            with open_dict(args):  # fairseq's defaults, so that a checkpoint records them
                args.update(vars(known))
        construction.finish(architecture, model, known)
        for module in model.modules():  # --retain-dropout-modules knows the modules by fairseq's names
            if isinstance(module, FairseqDropout):
                module.module_name = _FAIRSEQ_NAMES.get(module.module_name, module.module_name)
        return model

    @classmethod
    def build_embedding(cls, args: Any, dictionary: Any, embed_dim: int, path: str | None = None) -> nn.Module:
        """The table of a dictionary, which encoder, decoder and output layer may share."""
        cfg = TransformerConfig.from_namespace(args)
        table = construction.embedding(architecture_of(cfg).embeddings, len(dictionary), dictionary.pad(), embed_dim)
        return super().build_embedding(cfg, dictionary, embed_dim, path) if table is None else table

    @classmethod
    def build_encoder(cls, args: Any, src_dict: Any, embed_tokens: nn.Module) -> CompressedTransformerEncoder:
        cfg = TransformerConfig.from_namespace(args)
        encoder = CompressedTransformerEncoder(cfg, src_dict, _with_neighbours(cfg, embed_tokens, "encoder"))
        encoder.language_tokens = language_tokens.checked(architecture_of(cfg), "source", src_dict)
        return encoder

    @classmethod
    def build_decoder(cls, args: Any, tgt_dict: Any, embed_tokens: nn.Module) -> CompressedTransformerDecoder:
        cfg = TransformerConfig.from_namespace(args)
        table = construction.decoder_table(architecture_of(cfg), embed_tokens, tgt_dict.eos())
        decoder = CompressedTransformerDecoder(cfg, tgt_dict, _with_neighbours(cfg, table, "decoder"))
        decoder.language_tokens = language_tokens.checked(architecture_of(cfg), "target", tgt_dict)
        decoder.source_language_tokens = architecture_of(cfg).language_tokens.source
        return decoder


def _prepared(args: argparse.Namespace) -> Architecture:
    """The architecture of a new model, written to its options."""
    architecture = architecture_of(args)
    for part in PARTS:
        if kept := getattr(args, f"{part}_layers_to_keep", None):
            architecture = architecture.keep_layers(part, [int(number) for number in kept.split(",")])
    setattr(args, KEY, to_json(architecture))
    if architecture.embeddings.kind == "convolutional":  # the output is tied to the table, behind project_out_dim
        args.decoder_output_dim = architecture.embeddings.rank
    return architecture


def _with_neighbours(cfg: Any, table: Any, part: str) -> nn.Module:
    """The table behind the convolution of one side, if there is one."""
    taps = architecture_of(cfg).embeddings.taps
    width = getattr(cfg, part).embed_dim
    return ConvolutionalEmbedding(table, width, taps, causal=part == "decoder") if taps else table


_FAIRSEQ_NAMES = {
    "CompressedTransformerEncoder": "TransformerEncoder",
    "CompressedTransformerDecoder": "TransformerDecoder",
    "HookableEncoderLayer": "TransformerEncoderLayerBase",
    "HookableDecoderLayer": "TransformerDecoderLayerBase",
    "AverageAttention": "TransformerDecoderLayerBase",
    "BottleneckEncoderLayer": "TransformerEncoderLayerBase",
    "BottleneckDecoderLayer": "TransformerDecoderLayerBase",
    "HookableMultiheadAttention": "MultiheadAttention",
}
