"""Options of the criterion ``hidden_state_kd``, and the rules that need nothing but them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Optional

from fairseq.dataclass import ChoiceEnum

from fairseq_compress.criterions.shared import Rule
from fairseq_compress.criterions.word_level_kd_options import WordLevelKDConfig
from fairseq_compress.functional.layer_map import read_layer_map
from fairseq_compress.models.layer_recorder import KINDS

FEATURES = ("feature", "feature_mean", "feature_variance")
LAYERS = (*FEATURES, "attention")
OUTPUTS = ("gold", "kd", "cosine")
PUBLISHED_DECAY = 0.9  # of align-to-distill, for each epoch


@dataclass
class HiddenStateKDConfig(WordLevelKDConfig):
    """Options of :class:`HiddenStateKDCriterion`."""

    gold_weight: float = field(default=0.5, metadata={"help": "weight >= 0 of the references"})
    kd_weight: float = field(default=0.5, metadata={"help": "weight >= 0 of the teacher's word distributions"})
    cosine_weight: float = field(
        default=0.0, metadata={"help": "weight >= 0 of 1 - cos of the last hidden states of encoder and decoder"}
    )
    feature_weight: float = field(
        default=0.0, metadata={"help": "weight >= 0 of the squared distance of normalized outputs of layers"}
    )
    feature_mean_weight: float = field(
        default=0.0, metadata={"help": "weight >= 0 of the squared difference of the means of outputs of layers"}
    )
    feature_variance_weight: float = field(
        default=0.0, metadata={"help": "weight >= 0 of the difference of the variances of outputs of layers"}
    )
    attention_weight: float = field(default=0.0, metadata={"help": "weight >= 0 of KL(teacher's || student's maps)"})
    attention_kinds: str = field(
        default="encoder,decoder,cross",
        metadata={"help": "self-attention of the encoder, of the decoder, and from decoder to encoder"},
    )
    # Not attention_heads: in fairseq's flat namespace that is a value of the model.
    attention_head_map: ChoiceEnum(["group", "convolution"]) = field(  # type: ignore[valid-type]
        default="group",
        metadata={
            "help": "group: one side has a multiple of the other's heads, maps of neighbouring heads are averaged; "
            "convolution: align-to-distill, a learned pointwise convolution of the student's maps, from all heads of "
            "all its layers to all of the teacher's; a sum over sentences and heads, so its weight is larger"
        },
    )
    attention_decay: Optional[float] = field(  # noqa: UP045 - fairseq's parser knows Optional only
        default=None,
        metadata={"help": "factor in (0, 1] of --attention-weight for each epoch (default: 1, with convolution 0.9)"},
    )
    layer_map: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "the teacher's layer, from 0, for each layer of the student in order, - for none: "
            "'encoder:1,3,5 decoder:2,-' (default: spread evenly, the last learns from the last)"
        },
    )
    transfer: ChoiceEnum(["auxiliary", "joint", "progressive"]) = field(  # type: ignore[valid-type]
        default="auxiliary",
        metadata={
            "help": "auxiliary: all losses at once; joint: first a layer phase, with the losses of layers and without "
            "dropout, from the teacher's embeddings (--init-from-teacher), then the losses of the output with a fresh "
            "optimizer and schedule; progressive: the same, one layer after the other from the bottom up"
        },
    )
    transfer_updates: int = field(
        default=0,
        metadata={"help": "updates of the layer phase of --transfer joint and progressive, part of --max-update"},
    )
    transfer_lower_lr: float = field(
        default=0.1,
        metadata={
            "help": "factor in [0, 1] of the learning rate of what earlier stages of --transfer progressive have "
            "trained; 0 freezes it"
        },
    )


def weight(cfg: Any, term: str) -> float:
    """The weight of one of the terms."""
    return float(getattr(cfg, f"{term}_weight"))


def learns_layers(cfg: Any) -> bool:
    """Whether outputs or attention maps of layers are compared."""
    return any(weight(cfg, term) > 0 for term in LAYERS)


def learns_inside(cfg: Any) -> bool:
    """Whether anything is compared beside the words."""
    return cfg.cosine_weight > 0 or learns_layers(cfg)


def attention_decay(cfg: Any) -> float:
    """The factor of the attention's weight for each epoch."""
    if cfg.attention_decay is not None:
        return float(cfg.attention_decay)
    return PUBLISHED_DECAY if str(cfg.attention_head_map) == "convolution" else 1.0


def attention_kinds(cfg: Any) -> tuple[str, ...]:
    """The kinds of attention whose maps are compared."""
    return tuple(cfg.attention_kinds.split(",")) if cfg.attention_weight > 0 else ()


def hidden_state_rules(cfg: Any) -> Iterator[Rule]:
    """What every option must be, and what does not go together."""
    weights = {term: weight(cfg, term) for term in (*OUTPUTS, *LAYERS)}
    for term, value in weights.items():
        option = f"--{term.replace('_', '-')}-weight"
        yield not 0 <= value < math.inf, f"{option}: must be a number of at least 0, got {value}"
    names = ", ".join(f"--{term.replace('_', '-')}-weight" for term in weights)
    yield not any(weights.values()), f"{names}: must not all be 0, got 0.0"
    yield cfg.kd_alpha != 0.5, f"--kd-alpha: use --gold-weight and --kd-weight here, got {cfg.kd_alpha}"
    by_pairs = any(weights[term] > 0 for term in FEATURES)
    by_pairs |= cfg.attention_weight > 0 and str(cfg.attention_head_map) == "group"
    yield (
        cfg.layer_map is not None and not by_pairs,
        f"--layer-map: requires weights above 0 of features, or of attention by group, got {cfg.layer_map!r}",
    )
    yield (
        not _is_layer_map(cfg.layer_map),
        f"--layer-map: must be as in 'encoder:1,3,5 decoder:2,-', with both parts, got {cfg.layer_map!r}",
    )
    yield from _attention_rules(cfg)
    yield from _transfer_rules(cfg)
    if learns_inside(cfg):
        yield from _inside_rules(cfg)


def _is_layer_map(text: str | None) -> bool:
    try:
        return text is None or bool(read_layer_map(text))
    except ValueError:
        return False


def _attention_rules(cfg: Any) -> Iterator[Rule]:
    kinds, heads, decay = cfg.attention_kinds, str(cfg.attention_head_map), cfg.attention_decay
    yield (
        not set(kinds.split(",")) <= set(KINDS) or len(set(kinds.split(","))) < len(kinds.split(",")),
        f"--attention-kinds: must be some of {','.join(KINDS)}, each once, got {kinds!r}",
    )
    yield decay is not None and not 0 < decay <= 1, f"--attention-decay: must be in (0, 1], got {decay}"
    for option, value, default in (
        ("kinds", kinds, ",".join(KINDS)),
        ("head-map", heads, "group"),
        ("decay", decay, None),
    ):
        unused = cfg.attention_weight == 0 and value != default
        yield unused, f"--attention-{option}: requires an --attention-weight above 0, got {value}"


def _transfer_rules(cfg: Any) -> Iterator[Rule]:
    kind, updates, lower = str(cfg.transfer), cfg.transfer_updates, cfg.transfer_lower_lr
    if kind == "auxiliary":
        yield updates != 0, f"--transfer-updates: requires --transfer joint or progressive, got {updates}"
    else:
        yield updates < 1, f"--transfer-updates: must be at least 1 with --transfer {kind}, got {updates}"
        yield not learns_layers(cfg), f"--transfer {kind}: needs the weight of a loss of layers above 0, got 0.0"
        yield (
            not any(weight(cfg, term) > 0 for term in OUTPUTS),
            f"--transfer {kind}: needs --gold-weight, --kd-weight or --cosine-weight above 0, got 0.0",
        )
    yield not 0 <= lower <= 1, f"--transfer-lower-lr: must be in [0, 1], got {lower}"
    yield (
        kind != "progressive" and lower != 0.1,
        f"--transfer-lower-lr: requires --transfer progressive, got {lower}",
    )
    yield (
        kind == "progressive" and learns_layers(cfg) and not any(weight(cfg, term) > 0 for term in FEATURES),
        "--transfer progressive: needs a weight of features above 0, as attention maps leave a part of each layer "
        "untrained that later stages would build on, got --attention-weight alone",
    )
    yield (
        kind == "progressive" and cfg.attention_weight > 0 and str(cfg.attention_head_map) == "convolution",
        "--attention-head-map: must be group with --transfer progressive, one layer at a time, got convolution",
    )


def _inside_rules(cfg: Any) -> Iterator[Rule]:
    """What hidden states do not go with: batches or teachers of another kind than the words are learned from."""
    teachers = [path for path in (cfg.teacher_path or "").split(":") if path]
    yield (
        bool(cfg.teacher_cache) and not teachers,
        "--teacher-path: must name the teacher beside --teacher-cache, which holds no hidden states, got nothing",
    )
    yield len(teachers) > 1, f"--teacher-path: must name one teacher to learn hidden states from, got {len(teachers)}"
    for option, plain in (("on_policy_fraction", 0), ("kd_iterations", 1), ("teacher_dropout_passes", 0)):
        value = getattr(cfg, option)
        yield (
            value != plain,
            f"--{option.replace('_', '-')}: must be {plain} where hidden states are learned, got {value}",
        )
