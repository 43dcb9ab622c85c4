"""How a model of ours may differ from fairseq's transformer: options of the model, each off by default.

They are flat values of the model's configuration, so a checkpoint has them, and any task that loads it builds the same.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.layers.supports import LAYOUTS
from fairseq_compress.modules.bottleneck import NORMS
from fairseq_compress.modules.layer_sharing import ORDERS

SELF_ATTENTIONS = ("attention", "ssru", "average")


# Options that say how, and the option without which there is nothing to be said.
NEEDS = {
    "tensor_train_modes": "tensor_train_rank",
    "embedding_convolution": "embedding_rank",
    "average_attention_ffn": "decoder_self_attention",
    "ffn_stack": "bottleneck_width",
    "bottleneck_norm": "bottleneck_width",
    **dict.fromkeys(("sparse_layout", "sparse_block", "sparse_seed", "sparse_modules"), "sparsity"),
}


def _option(default: Any, text: str, choices: tuple[str, ...] | None = None, least: int = 0) -> Any:
    return field(default=default, metadata={"help": text, "choices": choices, "least": least})


@dataclass(frozen=True)
class Structure:
    """The options. 0 and the empty text switch one off."""

    embedding_rank: int = _option(0, "rank R of factorized embeddings: V x R, then R x width, also for a tied output")
    tensor_train_rank: int = _option(0, "rank of tensor-train embeddings, also for a tied output")
    tensor_train_modes: str = _option(
        "", "factors of dictionary and width for --tensor-train-rank, as in 20,20,20:8,8,4; balanced ones if not given"
    )
    embedding_convolution: int = _option(
        0, "tokens that a convolution over embeddings of width --embedding-rank sees at a time (MobileBERT: 3)"
    )
    ffn_rank: int = _option(0, "rank of the low-rank matrices of all feed-forward networks")
    attention_rank: int = _option(0, "rank of the low-rank projections of all attentions")
    linear_ranks: str = _option(
        "", "ranks by names of layers, as in 'encoder.*.fc1=64,*.out_proj=32'; the last that matches counts"
    )
    encoder_layer_groups: int = _option(0, "encoder layers with parameters of their own; the others share those")
    decoder_layer_groups: int = _option(0, "decoder layers with parameters of their own; the others share those")
    layer_sharing: str = _option(
        "sequence", "which layers share, for G = 3 and 6 layers: AABBCC, ABCABC, ABCCBA", ORDERS
    )
    decoder_self_attention: str = _option(
        "attention", "what decoder layers have in place of self-attention: SSRU, average attention", SELF_ATTENTIONS
    )
    average_attention_ffn: int = _option(0, "inner width of the network in average attention; 0: none")
    sparsity: float = _option(0.0, "fraction of the weights that layers lack, by a fixed support drawn from a seed")
    sparse_layout: str = _option("random", "how the support is drawn", tuple(LAYOUTS))
    sparse_block: int = _option(1, "the support keeps blocks of this size: 1, 8, 16 or 32", least=1)
    sparse_seed: int = _option(1, "of the support")
    sparse_modules: str = _option("*", "patterns of the layers that are sparse, with commas between")
    bottleneck_width: int = _option(0, "width inside of layers with bottlenecks; the model's width is between layers")
    ffn_stack: int = _option(
        1, "feed-forward networks one after another in a layer with bottlenecks (MobileBERT: 4)", least=1
    )
    bottleneck_norm: str = _option("layer", "norms in layers with bottlenecks; MobileBERT's NoNorm: elementwise", NORMS)

    @property
    def norm(self) -> str:
        """Of layers with bottlenecks."""
        return self.bottleneck_norm


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; one that is not given leaves no trace in the configuration."""
    for option in fields(Structure):
        parser.add_argument(
            f"--{option.name.replace('_', '-')}",
            type=type(option.default),
            choices=option.metadata["choices"],
            default=argparse.SUPPRESS,
            help=f"{option.metadata['help']} (default: {option.default or 'off'})",
        )


def structure_of(cfg: Any) -> Structure:
    """The options in a model's configuration.

    Raises:
        ConfigError: values out of range, or that make no sense together; all in one message.
    """
    given, problems = _given(cfg)
    structure = Structure(**given)
    problems += _wrong_values(structure) + _wrong_together(structure, given) + _wrong_with_fairseq(structure, cfg)
    if problems:
        raise ConfigError("; ".join(problems))
    return structure


def _given(cfg: Any) -> tuple[dict[str, Any], list[str]]:
    """The options that have a value, in their types: hydra knows texts, and numbers of any kind."""
    given, problems = {}, []
    for option in fields(Structure):
        value, kind = getattr(cfg, option.name, None), _KINDS[type(option.default)]
        if value is None:
            continue
        try:
            given[option.name] = kind.convert(value)
        except (TypeError, ValueError):
            problems.append(f"{_flag(option.name)}: must be {kind.name}, got {value!r}")
    return given, problems


def linear_ranks(structure: Structure) -> list[tuple[str, int]]:
    """Patterns of names and ranks; the last one that matches a layer counts.

    Raises:
        ConfigError: an item has another form.
    """
    ranks = []
    if structure.ffn_rank:
        ranks += [(f"*.{name}", structure.ffn_rank) for name in ("fc1", "fc2")]
    if structure.attention_rank:
        ranks.append(("*_attn.*_proj", structure.attention_rank))
    for item in filter(None, structure.linear_ranks.split(",")):
        pattern, _, rank = item.strip().rpartition("=")
        if not pattern or not rank.isdecimal() or int(rank) < 1:
            raise ConfigError(f"--linear-ranks: must be PATTERN=RANK with a rank of at least 1, got {item!r}")
        ranks.append((pattern, int(rank)))
    return ranks


def tensor_train_modes(structure: Structure) -> tuple[list[int], list[int]] | tuple[None, None]:
    """Factors of the dictionary's size and of the width, None where they are to be found.

    Raises:
        ConfigError: the text has another form.
    """
    text = structure.tensor_train_modes
    if not text:
        return None, None
    sides = [side.split(",") for side in text.split(":")]
    if len(sides) != 2 or not all(factor.strip().isdecimal() for side in sides for factor in side):
        raise ConfigError(f"--tensor-train-modes: must be two lists of numbers, as in 20,20,20:8,8,4, got {text!r}")
    entries, widths = ([int(factor) for factor in side] for side in sides)
    return entries, widths


def _whole(value: Any) -> int:
    if int(value) != float(value):
        raise ValueError(value)
    return int(value)


class _Kind(NamedTuple):
    name: str
    convert: Callable[[Any], Any]


_KINDS: dict[type, _Kind] = {
    int: _Kind("a whole number", _whole), float: _Kind("a number", float), str: _Kind("a text", str)
}  # fmt: skip


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _wrong_values(structure: Structure) -> list[str]:
    problems = []
    for option in fields(Structure):
        value, choices = getattr(structure, option.name), option.metadata["choices"]
        if choices and value not in choices:
            problems.append(f"{_flag(option.name)}: must be one of {', '.join(choices)}, got {value!r}")
        elif isinstance(option.default, int) and value < (least := option.metadata["least"]):
            problems.append(f"{_flag(option.name)}: must be at least {least}, got {value}")
    if not 0 <= structure.sparsity < 1:
        problems.append(f"--sparsity: must be from 0 to below 1, got {structure.sparsity}")
    return problems


def _wrong_together(structure: Structure, given: Mapping[str, Any]) -> list[str]:
    off = Structure()
    problems = [
        f"{_flag(option)}: must be given with {_flag(needed)}, got {given[option]} alone"
        for option, needed in NEEDS.items()
        if given.get(option, getattr(off, option)) != getattr(off, option)
        and getattr(structure, needed) == getattr(off, needed)
    ]
    if structure.layer_sharing != off.layer_sharing and not (
        structure.encoder_layer_groups or structure.decoder_layer_groups
    ):
        problems.append(
            f"--layer-sharing: must be given with --encoder-layer-groups or --decoder-layer-groups, got "
            f"{structure.layer_sharing} alone"
        )
    if structure.embedding_rank and structure.tensor_train_rank:
        problems.append("--embedding-rank: must not be given with --tensor-train-rank, which replaces the same table")
    if structure.average_attention_ffn and structure.decoder_self_attention == "ssru":
        problems.append("--average-attention-ffn: must be given with --decoder-self-attention average, got ssru")
    if structure.embedding_convolution and structure.embedding_convolution % 2 == 0:
        problems.append(f"--embedding-convolution: must be odd, got {structure.embedding_convolution}")
    if structure.bottleneck_width and structure.decoder_self_attention != "attention":
        problems.append(
            "--decoder-self-attention: must be attention in layers with --bottleneck-width, got "
            + structure.decoder_self_attention
        )
    return problems


def _wrong_with_fairseq(structure: Structure, cfg: Any) -> list[str]:
    """fairseq's own options that the parts which replace its parts do not know."""
    problems = []
    if structure.embedding_rank or structure.tensor_train_rank:
        others = ("encoder_embed_path", "decoder_embed_path", "adaptive_softmax_cutoff", "adaptive_input")
        problems += _given_too(cfg, others, "factorized and tensor-train embeddings")
    if structure.decoder_self_attention != "attention":
        problems += _given_too(cfg, ("cross_self_attention", "scale_heads"), "a decoder without self-attention")
    width = structure.bottleneck_width
    for part in ("encoder", "decoder") if width else ():
        heads = getattr(cfg, f"{part}_attention_heads", None) or 1
        if width % heads:
            problems.append(f"--bottleneck-width: must be a multiple of the {heads} heads of the {part}, got {width}")
    output = getattr(cfg, "decoder_output_dim", None)
    if structure.embedding_convolution and output not in (
        None, structure.embedding_rank, getattr(cfg, "decoder_embed_dim", None)
    ):  # fmt: skip
        problems.append(f"--decoder-output-dim: must be the --embedding-rank behind a convolution, got {output}")
    for part in ("encoder", "decoder"):
        groups, layers = getattr(structure, f"{part}_layer_groups"), getattr(cfg, f"{part}_layers", None)
        if layers is not None and groups > layers:
            problems.append(f"--{part}-layer-groups: must be at most the {layers} layers of the {part}, got {groups}")
    return problems


def _given_too(cfg: Any, names: tuple[str, ...], what: str) -> list[str]:
    return [f"{_flag(name)}: not with {what}, got {value}" for name in names if (value := getattr(cfg, name, None))]
