"""A checkpoint as one of fairseq's plain ``transformer``, which stock fairseq and its converters read.

The output has dense weights, tied ones once, and a configuration of plain values, which torch >= 2.6 loads without
``--user-dir``. It is verified against the original on random sentences before it is written.
"""

import argparse
import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from fairseq.data import Dictionary
from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_REGISTRY, BaseFairseqModel
from fairseq.models.transformer import TransformerModel, TransformerModelBase, base_architecture
from omegaconf import DictConfig
from torch import Tensor

from fairseq_compress.architecture.configuration import architecture_of
from fairseq_compress.architecture.flags import KEY
from fairseq_compress.architecture.reading import to_json
from fairseq_compress.architecture.shape import Architecture
from fairseq_compress.architecture.stock import dense, forms, why_not_plain, why_not_stock
from fairseq_compress.checkpoint.load import (
    TABLES,
    TrainedModel,
    build_model,
    dictionaries_of,
    load_upgraded,
    table_rows,
)
from fairseq_compress.checkpoint.state import stock_configuration, with_model, write_converted
from fairseq_compress.errors import CheckpointError
from fairseq_compress.modules.activation_quantizer import remove_quantizers
from fairseq_compress.modules.structured import structured_modules
from fairseq_compress.surgery.plain_parameters import dense_state
from fairseq_compress.weights.groups import effective_state
from fairseq_compress.work.files import PathLike

# Of a log-probability. Both models run the same products in the same order in float32; where a product of factors
# becomes one matrix they do not, and are compared in float64.
TOLERANCE = 1e-5
REASONS_SHOWN = 10


class Materialized(NamedTuple):
    """A checkpoint as a plain transformer, or in its own form, with evaluated weights."""

    model: TransformerModel
    values: dict[str, Any]
    """Its options, in a flat table."""
    state: dict[str, Any]
    """The checkpoint of architecture ``transformer`` and task ``translation``, without optimizer."""
    ranges: dict[str, float]
    """The largest input of each linear layer whose input was quantized in training."""
    lost: list[str]
    """The forms of the checkpoint in whose place the model has dense matrices."""


def materialize(path: PathLike, any_shape: bool = False) -> Materialized:
    """The checkpoint as a plain transformer that gives the same scores; of quantized weights the values x̂.

    Args:
        any_shape: allow layers that differ in heads, head width and FFN units, recurrent units and the conventions of
            Marian; the model is then a ``compressed_transformer`` with dense weights.
    """
    trained = _load(path)
    architecture = architecture_of(trained.cfg.model)
    if reasons := why_not_plain(architecture, any_shape) + ([] if any_shape else why_not_stock(architecture)):
        raise _refusal(path, reasons)
    return _rebuilt(trained, model_values(trained.cfg.model), dense_state, "as a plain transformer")


def in_own_form(path: PathLike) -> Materialized:
    """The checkpoint as a model of its own architecture, without a plan and without noise; of quantized weights x̂."""
    trained = _load(path)
    return _rebuilt(trained, own_values(trained.cfg.model), effective_state, "without its plan")


def _load(path: PathLike) -> TrainedModel:
    state, cfg = load_upgraded(path)
    if reasons := _why_not_by_name(cfg, state["model"]):
        raise _refusal(path, reasons)
    source, target = dictionaries_of(state["model"])
    return TrainedModel(path, state, cfg, (source, target), build_model(path, state, cfg, source, target).eval())


def _rebuilt(
    trained: TrainedModel, values: dict[str, Any], weights_of: Callable[[Any], dict[str, Tensor]], described: str
) -> Materialized:
    """A new model of the options ``values`` with weights of the trained one, after a comparison of the two."""
    path, original, dictionaries = trained.path, trained.model, trained.dictionaries
    kind: Any = type(original) if KEY in values else TransformerModel
    plain: TransformerModel = kind.build_model(argparse.Namespace(**values), _Dictionaries(*dictionaries))
    plain.eval().requires_grad_(False)
    ranges, weights = remove_quantizers(original), weights_of(original)
    if reasons := why_not_by_shape(weights, plain.state_dict()):
        raise _refusal(path, reasons)
    plain.load_state_dict(weights, strict=True)
    precise = torch.float64 if structured_modules(original) else torch.float32
    difference = greatest_difference(original.to(precise), plain.to(precise), *map(len, dictionaries))
    plain.float()
    if not difference <= TOLERANCE:
        raise CheckpointError(
            f"checkpoint {path}: {described} its log-probabilities differ by {difference:.2g}, more than "
            f"{TOLERANCE:g}; nothing was written"
        )
    configuration = stock_configuration(trained.cfg)
    configuration["common"] |= {"user_dir": None}
    written = with_model(trained.state, configuration | {"model": values}, weights)
    kept = forms(architecture_of(argparse.Namespace(**values)))
    lost = [form for form in forms(architecture_of(trained.cfg.model)) if form not in kept]
    return Materialized(plain, values, written, ranges, lost)


def write_materialized(path: PathLike, output: PathLike) -> dict[str, Any]:
    """Write :func:`materialize` of ``path`` to ``output``, atomically, and return it."""
    return write_converted([path], output, lambda: materialize(path)).state


def model_values(model: Any) -> dict[str, Any]:
    """The options of ``transformer`` for a model, with the dense architecture if they cannot express it."""
    return _values(model, dense(architecture_of(model)))


def own_values(model: Any) -> dict[str, Any]:
    """The options of ``transformer`` for a model, with its architecture if they cannot express it."""
    return _values(model, architecture_of(model))


def _values(model: Any, architecture: Architecture) -> dict[str, Any]:
    known = argparse.Namespace()
    base_architecture(known)
    names = [*vars(known), "dropout", "max_source_positions", "max_target_positions", "no_cross_attention"]
    values = {name: getattr(model, name) for name in dict.fromkeys(names) if hasattr(model, name)}
    for name in ("decoder_input_dim", "decoder_output_dim"):
        if values.get(name) is not None:
            values[name] = int(values[name])  # fairseq's parser leaves a given --decoder-output-dim a text
    base_architecture(space := argparse.Namespace(**values))
    of_training = {"encoder_embed_path": None, "decoder_embed_path": None, "quant_noise_pq": 0, "quant_noise_scalar": 0}
    found = vars(space) | of_training | {"_name": "transformer", "arch": "transformer"}
    stock = architecture == dense(architecture) and not why_not_plain(architecture) + why_not_stock(architecture)
    return found if stock else found | {KEY: to_json(architecture)}


def why_not_by_shape(weights: Mapping[str, Tensor], plain: Mapping[str, Tensor]) -> list[str]:
    """All differences between the state dicts of a model and of the plain transformer with its options."""
    reasons = [f"{key} is no weight of a transformer" for key in weights if key not in plain]
    reasons += [f"{key} is missing" for key in plain if key not in weights]
    for key, weight in weights.items():
        if key in plain and weight.shape != plain[key].shape:
            shapes = tuple(weight.shape), tuple(plain[key].shape)
            reasons.append(f"{key} has the shape {shapes[0]}, in a transformer of these options {shapes[1]}")
    return reasons


@torch.inference_mode()
def greatest_difference(first: BaseFairseqModel, second: BaseFairseqModel, source: int, target: int) -> float:
    """The largest difference of log-probabilities on six random sentences of several lengths; NaN counts as infinite.

    Args:
        source, target: entries of the dictionaries; 0 to 3 are the special symbols.
    """
    draw = torch.Generator().manual_seed(1)
    lengths = torch.tensor([17, 11, 9, 5, 2, 1])
    tokens = []
    for entries in (source, target):
        drawn = torch.randint(4, max(entries, 5), (len(lengths), int(lengths[0])), generator=draw).clamp_max(
            entries - 1
        )
        tokens.append(drawn.masked_fill(torch.arange(int(lengths[0])) >= lengths[:, None], 1))
    tokens[1][:, 0] = 2
    with warnings.catch_warnings():  # stock attention mixes two kinds of masks, which torch would rather not see
        warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")
        outputs = [model.get_normalized_probs(model(tokens[0], lengths, tokens[1]), True) for model in (first, second)]
    difference = (outputs[0] - outputs[1])[tokens[1].ne(1)].abs().max()
    return float(difference.nan_to_num(nan=float("inf")))


@dataclasses.dataclass(frozen=True)
class _Dictionaries:
    """A task for ``build_model``."""

    source_dictionary: Dictionary
    target_dictionary: Dictionary


def _why_not_by_name(cfg: DictConfig, weights: Mapping[str, Tensor]) -> list[str]:
    name = getattr(cfg.model, "_name", None) or getattr(cfg.model, "arch", None)
    model = ARCH_MODEL_REGISTRY.get(name) or MODEL_REGISTRY.get(name)
    reasons = []
    if model is None:
        reasons.append(f"its architecture {name} is unknown here")
    elif not issubclass(model, TransformerModelBase):
        reasons.append(f"its architecture {name} is a {model.__name__}, no transformer")
    reasons += [f"{key} is missing" for key in TABLES if table_rows(weights, key) == 0]
    return reasons


def _refusal(path: PathLike, reasons: list[str]) -> CheckpointError:
    shown = "; ".join(reasons[:REASONS_SHOWN])
    more = f"; and {len(reasons) - REASONS_SHOWN} more" if len(reasons) > REASONS_SHOWN else ""
    return CheckpointError(f"checkpoint {path}: cannot be a plain transformer: {shown}{more}")
