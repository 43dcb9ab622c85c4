"""A plain transformer to the files of CTranslate2, whose int8 weights have one scale a row: max|w| / 127."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import ctranslate2
from ctranslate2.converters import fairseq as reference
from ctranslate2.converters.converter import Converter
from ctranslate2.specs import common_spec, transformer_spec
from fairseq.data import Dictionary

from fairseq_compress.architecture.configuration import architecture_of
from fairseq_compress.architecture.stock import why_not_alike, why_not_conventions, why_not_plain
from fairseq_compress.checkpoint.materialize import Materialized, materialize
from fairseq_compress.export.model_writer import TextSide, refuse, unsupported_options
from fairseq_compress.export.onnx.precisions import Storage
from fairseq_compress.weights.packed import Packed
from fairseq_compress.work.files import PathLike

ACTIVATIONS = {
    "gelu": common_spec.Activation.GELU,
    "gelu_accurate": common_spec.Activation.GELUTanh,
    "gelu_fast": common_spec.Activation.GELUTanh,
    "relu": common_spec.Activation.RELU,
    "swish": common_spec.Activation.SWISH,
}
VERSION = ctranslate2.__version__


def load(path: PathLike) -> Materialized:
    """The checkpoint as this runtime takes it: a plain transformer of dense matrices."""
    return materialize(path, any_shape=True)


def why_not(values: dict[str, Any]) -> list[str]:
    """The options of a transformer that CTranslate2 does not support."""
    switches = ("no_token_positional_embeddings", "no_cross_attention", "cross_self_attention", "adaptive_input")
    reasons = unsupported_options(values, ACTIVATIONS, switches)
    if values["encoder_normalize_before"] != values["decoder_normalize_before"]:
        reasons.append("--encoder-normalize-before without --decoder-normalize-before, or the reverse")
    architecture = architecture_of(argparse.Namespace(**values))
    reasons += why_not_plain(architecture) + why_not_conventions(architecture) + why_not_alike(architecture)
    if values["encoder_attention_heads"] != values["decoder_attention_heads"]:
        reasons.append("another number of --encoder-attention-heads than of --decoder-attention-heads")
    for side in ("input", "output"):
        if values[f"decoder_{side}_dim"] != values["decoder_embed_dim"]:
            reasons.append(f"--decoder-{side}-dim unlike --decoder-embed-dim")
    return reasons


def write_model(
    folder: Path, model: Any, values: dict[str, Any], source: Dictionary, target: Dictionary, quantization: str,
    storage: Storage | None = None, text: TextSide | None = None,
) -> dict[str, Any]:  # fmt: skip
    """As :func:`fairseq_compress.export.onnx_format.write_model`; int8 keeps 8 bits a row of ``storage``."""
    refuse("ctranslate2", why_not(values))
    kind = None if quantization == "float32" else quantization
    if storage is not None and quantization.startswith("int8"):
        storage.stored.record_kept(is_int8_rows)
    with tempfile.TemporaryDirectory(dir=folder) as name:  # the converter wants a folder of its own
        converted = Path(name) / "converted"
        _InMemory(model, values, source, target).convert(str(converted), quantization=kind)
        for file in converted.iterdir():
            file.rename(folder / file.name)
    return {}


def is_int8_rows(packed: Packed) -> bool:
    """Whether CTranslate2's int8 makes the same integers of the values of a packed weight."""
    return packed.kind == "linear" and (packed.spec["bits"], packed.spec["granularity"]) == (8, "row")


class _InMemory(Converter):
    """CTranslate2's converter of fairseq models, for a model in memory."""

    def __init__(self, model: Any, values: dict[str, Any], source: Dictionary, target: Dictionary) -> None:
        self._model, self._values, self._source, self._target = model, values, source, target

    def _load(self) -> Any:
        values = self._values
        spec = transformer_spec.TransformerSpec.from_config(
            (values["encoder_layers"], values["decoder_layers"]), values["encoder_attention_heads"],
            pre_norm=values["encoder_normalize_before"], activation=ACTIVATIONS[values["activation_fn"]],
            layernorm_embedding=values["layernorm_embedding"],
        )  # fmt: skip
        reference.set_transformer_encoder(spec.encoder, self._model.encoder)
        reference.set_transformer_decoder(spec.decoder, self._model.decoder)
        spec.register_source_vocabulary(_vocabulary(self._source))
        spec.register_target_vocabulary(_vocabulary(self._target))
        spec.config.decoder_start_token = spec.config.eos_token
        spec.config.add_source_eos = True
        return spec


def _vocabulary(entries: Dictionary) -> list[str]:
    return ["<blank>" if symbol == "<pad>" else symbol for symbol in entries.symbols]
