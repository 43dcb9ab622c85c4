"""The flat options of a model beyond those of fairseq, which make its architecture."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from fairseq_compress.architecture.shape import FIRST_POSITIONS, NORM_EPS, NORMS, SELF_ATTENTIONS, STARTS
from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.layer_map import PARTS
from fairseq_compress.functional.layers.supports import BLOCKS, LAYOUTS
from fairseq_compress.options import add_arguments as declare
from fairseq_compress.options import check, flag, option

KEY = "architecture"
"""The option with the whole architecture, one line of JSON."""
ORDERS = ("sequence", "cycle", "cycle_rev")
"""Orders of layer sharing (arXiv:2104.06022)."""


@dataclass(frozen=True)
class ShapeFlags:
    """The options beyond fairseq's. 0 and the empty text switch one off."""

    embedding_rank: int = option(
        0, "rank R of factorized embeddings: V x R, then R x width, also for a tied output", range="[0, inf)"
    )
    tensor_train_rank: int = option(0, "rank of tensor-train embeddings, also for a tied output", range="[0, inf)")
    tensor_train_modes: str = option(
        "", "factors of dictionary size and width of a tensor train, as in 20,20,20:8,8,4; default: balanced",
        needs="tensor_train_rank",
    )  # fmt: skip
    embedding_convolution: int = option(
        0, "window in tokens of a convolution over embeddings of width --embedding-rank; odd (MobileBERT: 3)",
        range="[0, inf)", needs="embedding_rank",
    )  # fmt: skip
    ffn_rank: int = option(0, "rank of low-rank fc1 and fc2 in all feed-forward networks; 0: dense", range="[0, inf)")
    attention_rank: int = option(
        0, "rank of low-rank query, key, value and output projections in all attentions; 0: dense", range="[0, inf)"
    )
    linear_ranks: str = option("", "ranks by layer name, as in 'encoder.*.fc1=64,*.out_proj=32'; the last match wins")
    encoder_layer_groups: int = option(
        0, "number of encoder layers with own parameters, which the other layers share; 0: no sharing", range="[0, inf)"
    )
    decoder_layer_groups: int = option(
        0, "number of decoder layers with own parameters, which the other layers share; 0: no sharing", range="[0, inf)"
    )
    layer_sharing: str = option(
        "sequence", "pattern of shared layers, for 3 groups and 6 layers: AABBCC, ABCABC, ABCCBA", choices=ORDERS
    )
    decoder_self_attention: str = option(
        "attention", "self-attention of the decoder, or its replacement: SSRU or average attention",
        choices=SELF_ATTENTIONS,
    )  # fmt: skip
    average_attention_ffn: int = option(
        0, "units of the feed-forward network in average attention; 0: none", range="[0, inf)",
        needs="decoder_self_attention=average",
    )  # fmt: skip
    sparsity: float = option(
        0.0, "fraction of zeros in sparse layers; their fixed support is drawn from a seed", range="[0, 1)"
    )
    sparse_layout: str = option(
        "random", "distribution of the support of sparse layers", choices=LAYOUTS, needs="sparsity"
    )
    sparse_block: int = option(1, "block size of the support of sparse layers", choices=BLOCKS, needs="sparsity")
    sparse_seed: int = option(1, "seed of the support of sparse layers", range="[0, inf)", needs="sparsity")
    sparse_modules: str = option(
        "*", "patterns of the names of sparse layers, separated by commas; !PATTERN excludes", needs="sparsity"
    )
    bottleneck_width: int = option(
        0,
        "width inside the layers of MobileBERT blocks; --encoder-embed-dim is the width between them; 0: none",
        range="[0, inf)",
    )
    ffn_stack: int = option(
        1, "feed-forward networks in each bottleneck layer, one after another (MobileBERT: 4)", range="[1, inf)",
        needs="bottleneck_width",
    )  # fmt: skip
    bottleneck_norm: str = option(
        "layer", "normalization in bottleneck layers; elementwise: MobileBERT's NoNorm", choices=NORMS,
        needs="bottleneck_width",
    )  # fmt: skip
    decoder_start: str = option(
        "eos", "first input of the decoder: the embedding of EOS, or a zero vector as in Marian", choices=STARTS
    )
    first_position: int = option(
        2, "number of the first position in sinusoidal embeddings: 2 as in fairseq, 0 as in Marian",
        choices=FIRST_POSITIONS,
    )  # fmt: skip
    norm_eps: float = option(NORM_EPS, "epsilon of all layer norms (Marian: 1e-6)", range="(0, 1)")
    output_bias: bool = option(False, "bias of the output layer, as in Marian")


DEFAULTS = ShapeFlags()
FLAGS = frozenset({KEY} | {each.name for each in fields(ShapeFlags)})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; one that is not given leaves no trace in the configuration."""
    parser.add_argument(
        "--architecture", metavar="FILE", default=argparse.SUPPRESS,
        help="shape of the model layer by layer: JSON text, a JSON file, or the name of a built-in one. It replaces "
        "all options of widths, layers, heads, tying and structure (docs/architecture-files.md)",
    )  # fmt: skip
    declare(parser, ShapeFlags, suppress=True)


def fairseq_problems(kind: str, table_width: int, recurrent: bool, cfg: Any) -> Iterator[str]:
    """Options of fairseq that embeddings of a kind, or recurrent units, do not have."""
    if kind != "plain":
        others = ("encoder_embed_path", "decoder_embed_path", "adaptive_softmax_cutoff", "adaptive_input")
        yield from _given_too(cfg, others, f"{kind.replace('_', '-')} embeddings")
    if getattr(cfg, "first_position", 2) != 2 and (learned := _learned(cfg)):
        yield f"--first-position: must be 2 with learned positions, got {cfg.first_position} with {', '.join(learned)}"
    if recurrent:
        yield from _given_too(cfg, ("cross_self_attention", "scale_heads"), "a decoder without self-attention")
    output = part_option(cfg, "decoder", "output_dim")
    if kind == "convolutional" and output not in (None, table_width, part_option(cfg, "decoder", "embed_dim")):
        yield f"--decoder-output-dim: must be {table_width}, the width of the table, got {output}"


def _learned(cfg: Any) -> list[str]:
    """The parts whose positions are learned."""
    return [flag(f"{part}_learned_pos") for part in PARTS if part_option(cfg, part, "learned_pos")]


def _given_too(cfg: Any, names: tuple[str, ...], what: str) -> list[str]:
    nested = {name: part_option(cfg, *name.split("_", 1)) for name in names if name.startswith(PARTS)}
    values = {name: nested.get(name) or getattr(cfg, name, None) for name in names}
    return [f"{flag(name)}: not with {what}, got {value}" for name, value in values.items() if value]


def flags_of(cfg: Any) -> ShapeFlags:
    """The options beyond fairseq's in a configuration, checked."""
    problems: list[str] = []
    flags = ShapeFlags(**given_options(cfg, problems))
    kind = embedding_kind(flags)
    with_fairseq = fairseq_problems(kind, flags.embedding_rank, flags.decoder_self_attention != "attention", cfg)
    check(flags, problems, _wrong_together(flags, cfg), with_fairseq)
    return flags


def linear_ranks(flags: ShapeFlags) -> list[tuple[str, int]]:
    """Patterns of names and ranks; the last that matches a layer counts."""
    ranks = [(f"*.{name}", flags.ffn_rank) for name in ("fc1", "fc2") if flags.ffn_rank]
    if flags.attention_rank:
        ranks.append(("*_attn.*_proj", flags.attention_rank))
    for item in filter(None, flags.linear_ranks.split(",")):
        pattern, _, rank = item.strip().rpartition("=")
        if not pattern or not rank.isdecimal() or int(rank) < 1:
            raise ConfigError(f"--linear-ranks: must be PATTERN=RANK with a rank in [1, inf), got {item!r}")
        ranks.append((pattern, int(rank)))
    return ranks


def rank_patterns(cfg: Any) -> list[str]:
    """The patterns of the options for ranks, in their order."""
    return [pattern for pattern, _ in linear_ranks(ShapeFlags(**given_options(cfg, [])))]


_KINDS: dict[type, str] = {int: "a whole number", float: "a number", str: "a text"}


def given_options(cfg: Any, problems: list[str]) -> dict[str, Any]:
    """The options that have a value, converted to their types."""
    given = {}
    for each in fields(ShapeFlags):
        value, kind = getattr(cfg, each.name, None), type(getattr(DEFAULTS, each.name))
        if value is None:
            continue
        try:
            given[each.name] = kind(value)
            if kind is int and given[each.name] != float(value):
                raise ValueError
        except (TypeError, ValueError):
            problems.append(f"{flag(each.name)}: must be {_KINDS[kind]}, got {value!r}")
    return given


def part_option(cfg: Any, part: str, name: str, default: Any = None) -> Any:
    """A value of ``encoder`` or ``decoder``, in a flat configuration or in fairseq's."""
    side = getattr(cfg, part, None)
    return getattr(cfg, f"{part}_{name}", default) if side is None else getattr(side, name, default)


def _wrong_together(flags: ShapeFlags, cfg: Any) -> Iterator[str]:
    if flags.layer_sharing != DEFAULTS.layer_sharing and not (flags.encoder_layer_groups or flags.decoder_layer_groups):
        yield (
            "--layer-sharing: requires --encoder-layer-groups or --decoder-layer-groups, got "
            f"{flags.layer_sharing} alone"
        )
    if flags.embedding_rank and flags.tensor_train_rank:
        yield "--embedding-rank: must not be given with --tensor-train-rank, which replaces the same table"
    if flags.embedding_convolution and flags.embedding_convolution % 2 == 0:
        yield f"--embedding-convolution: must be odd, got {flags.embedding_convolution}"
    if flags.bottleneck_width and flags.decoder_self_attention != "attention":
        yield (
            "--decoder-self-attention: must be attention in layers with --bottleneck-width, got "
            + flags.decoder_self_attention
        )
    for part in PARTS:
        heads, groups = part_option(cfg, part, "attention_heads") or 1, getattr(flags, f"{part}_layer_groups")
        layers = part_option(cfg, part, "layers")
        inside = flags.bottleneck_width or part_option(cfg, part, "embed_dim") or 0
        if inside % heads:
            name = "--bottleneck-width" if flags.bottleneck_width else f"--{part}-embed-dim"
            yield f"{name}: must be a multiple of the {heads} heads of the {part}, got {inside}"
        if layers is not None and groups > layers:
            yield f"--{part}-layer-groups: must be in [0, {layers}], the layers of the {part}, got {groups}"
    try:
        linear_ranks(flags)
        tensor_train_modes(flags)
    except ConfigError as error:
        yield str(error)


def tensor_train_modes(flags: ShapeFlags) -> list[tuple[int, ...]]:
    """Factors of the dictionary's size and of the width; empty where they are to be balanced."""
    text = flags.tensor_train_modes
    sides = [side.split(",") for side in text.split(":")] if text else [[], []]
    if len(sides) != 2 or not all(factor.strip().isdecimal() for side in sides for factor in side):
        raise ConfigError(f"--tensor-train-modes: must be two lists of numbers, as in 20,20,20:8,8,4, got {text!r}")
    return [tuple(int(factor) for factor in side) for side in sides]


def embedding_kind(flags: ShapeFlags) -> str:
    if flags.embedding_convolution:
        return "convolutional"
    return "tensor_train" if flags.tensor_train_rank else "factorized" if flags.embedding_rank else "plain"
