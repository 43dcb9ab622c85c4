"""The flat options of a model as an architecture, and an architecture as the flat options that fairseq reads.

They are values of the model's configuration. ``architecture`` among them, one line of JSON, is the whole shape: models
of this version have it in their checkpoints. Older checkpoints have the other options only, which give the same.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from fairseq_compress.architecture.reading import read_architecture, to_json
from fairseq_compress.architecture.shape import (
    NORMS,
    SELF_ATTENTIONS,
    Architecture,
    Attention,
    BottleneckShape,
    Embeddings,
    Layer,
    Matrix,
    Stack,
)
from fairseq_compress.architecture.sharing import ORDERS, sharing_leaders
from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.layer_map import PARTS
from fairseq_compress.functional.layers.supports import BLOCKS, LAYOUTS, layer_seed
from fairseq_compress.options import add_arguments as declare
from fairseq_compress.options import check, flag, option, raise_problems
from fairseq_compress.selection import select

KEY = "architecture"
"""Of the configuration of a model: its architecture, one line of JSON."""


@dataclass(frozen=True)
class ShapeFlags:
    """The options beyond fairseq's. 0 and the empty text switch one off."""

    embedding_rank: int = option(
        0, "rank R of factorized embeddings: V x R, then R x width, also for a tied output", range="[0, inf)"
    )
    tensor_train_rank: int = option(0, "rank of tensor-train embeddings, also for a tied output", range="[0, inf)")
    tensor_train_modes: str = option(
        "", "factors of dictionary and width of a tensor train, as in 20,20,20:8,8,4; default: balanced ones",
        needs="tensor_train_rank",
    )  # fmt: skip
    embedding_convolution: int = option(
        0, "tokens in the window of a convolution over embeddings of width --embedding-rank (MobileBERT: 3)",
        range="[0, inf)", needs="embedding_rank",
    )  # fmt: skip
    ffn_rank: int = option(0, "rank of the low-rank matrices of all feed-forward networks", range="[0, inf)")
    attention_rank: int = option(0, "rank of the low-rank projections of all attentions", range="[0, inf)")
    linear_ranks: str = option(
        "", "ranks by names of layers, as in 'encoder.*.fc1=64,*.out_proj=32'; the last that matches counts"
    )
    encoder_layer_groups: int = option(
        0, "encoder layers with parameters of their own, which the others share", range="[0, inf)"
    )
    decoder_layer_groups: int = option(
        0, "decoder layers with parameters of their own, which the others share", range="[0, inf)"
    )
    layer_sharing: str = option(
        "sequence", "which layers share, for G = 3 and 6 layers: AABBCC, ABCABC, ABCCBA", choices=ORDERS
    )
    decoder_self_attention: str = option(
        "attention", "what decoder layers have in place of self-attention: SSRU, average attention",
        choices=SELF_ATTENTIONS,
    )  # fmt: skip
    average_attention_ffn: int = option(
        0, "units of the network in average attention; 0: none", range="[0, inf)",
        needs="decoder_self_attention=average",
    )  # fmt: skip
    sparsity: float = option(0.0, "fraction of zeros in layers with a fixed support drawn from a seed", range="[0, 1)")
    sparse_layout: str = option("random", "how the support is drawn", choices=LAYOUTS, needs="sparsity")
    sparse_block: int = option(1, "size of the blocks of the support", choices=BLOCKS, needs="sparsity")
    sparse_seed: int = option(1, "seed of the support", range="[0, inf)", needs="sparsity")
    sparse_modules: str = option("*", "patterns of the sparse layers, separated by commas", needs="sparsity")
    bottleneck_width: int = option(
        0, "width inside of layers with bottlenecks; the model's width is between layers", range="[0, inf)"
    )
    ffn_stack: int = option(
        1, "feed-forward networks one after another in a layer with a bottleneck (MobileBERT: 4)", range="[1, inf)",
        needs="bottleneck_width",
    )  # fmt: skip
    bottleneck_norm: str = option(
        "layer", "norms of layers with bottlenecks; MobileBERT's NoNorm: elementwise", choices=NORMS,
        needs="bottleneck_width",
    )  # fmt: skip


DEFAULTS = ShapeFlags()
FLAGS = frozenset({KEY} | {each.name for each in fields(ShapeFlags)})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; one that is not given leaves no trace in the configuration."""
    parser.add_argument(
        "--architecture", metavar="FILE", default=argparse.SUPPRESS,
        help="shape of the model layer by layer: JSON, a file with it, or the name of a shipped one. It replaces all "
        "options of widths, layers, heads, tying and structure (docs/architectures.md)",
    )  # fmt: skip
    declare(parser, ShapeFlags, suppress=True)


def architecture_of(cfg: Any) -> Architecture:
    """The architecture in a model's configuration, or the one that its flat options make.

    Args:
        cfg: flat (a namespace, hydra's table), or fairseq's ``TransformerConfig``; of fairseq's models too.
    """
    if not (given := getattr(cfg, KEY, None)):
        return from_flags(cfg)
    architecture = read_architecture(given)
    recurrent = any(layer.self_attention.kind != "attention" for layer in architecture.decoder.layers)
    form = architecture.embeddings
    problems = list(_wrong_with_fairseq(form.kind, form.rank, recurrent, cfg))
    for attention in [layer.self_attention for layer in architecture.decoder.layers]:
        if getattr(cfg, "scale_heads", False) and attention.width not in (0, architecture.decoder.width):
            problems.append(
                f"--scale-heads: requires heads that make up the width, got {attention.heads} of width "
                f"{attention.head_width}"
            )
    raise_problems(problems)
    return architecture


def resolve(args: Any) -> None:
    """Replace a given ``--architecture`` by its JSON, and set the options of fairseq that follow from it.

    Args:
        args: a namespace or hydra's table, before defaults fill it.
    """
    if not getattr(args, KEY, None):
        return
    architecture = read_architecture(getattr(args, KEY))
    implied = implied_flags(architecture)
    contradictions = [
        f"{flag(name)}: must be {value} as --architecture says, got {given}"
        for name, value in implied.items()
        if (given := getattr(args, name, None)) is not None and given != value
    ]
    own = {name: value for name, value in _given(args, []).items() if value != getattr(DEFAULTS, name)}
    if own and not _made_by(implied | own, architecture):
        contradictions += [f"{flag(name)}: not allowed with --architecture, got {value}" for name, value in own.items()]
    raise_problems(contradictions)
    for name, value in (implied | {KEY: to_json(architecture)}).items():
        setattr(args, name, value)


def _made_by(values: dict[str, Any], architecture: Architecture) -> bool:
    """Whether these options make the architecture."""
    try:
        return from_flags(argparse.Namespace(**values)) == architecture
    except ConfigError:
        return False


def implied_flags(architecture: Architecture) -> dict[str, Any]:
    """fairseq's options of widths, layers, heads and tying; where layers differ, the largest number."""
    found: dict[str, Any] = {}
    for part in PARTS:
        stack = architecture.stack(part)
        heads = [a.heads for layer in stack.layers for a in (layer.self_attention, layer.cross_attention) if a]
        found |= {f"{part}_embed_dim": stack.width, f"{part}_layers": len(stack.layers)}
        if stack.layers:
            found[f"{part}_ffn_embed_dim"] = max(layer.ffn for layer in stack.layers)
        if any(heads):
            found[f"{part}_attention_heads"] = max(heads)
    if layers := architecture.decoder.layers:
        found["no_cross_attention"] = all(layer.cross_attention is None for layer in layers)
    tying = architecture.embeddings.tying
    return found | (
        {"share_all_embeddings": True}
        if tying == "all"
        else {"share_all_embeddings": False, "share_decoder_input_output_embed": tying == "decoder"}
    )


def from_flags(cfg: Any) -> Architecture:
    """The architecture that flat options make; see :func:`architecture_of`."""
    flags = flags_of(cfg)
    stacks: dict[str, Any] = {part: _stack(flags, cfg, part) for part in PARTS}
    tying = "none"
    if getattr(cfg, "share_all_embeddings", False):
        tying = "all"
    elif getattr(cfg, "share_decoder_input_output_embed", False):
        tying = "decoder"
    architecture = _with_matrices(Architecture(**stacks, embeddings=_embeddings(flags, tying)), flags)
    architecture = _shared(architecture, flags)
    raise_problems(architecture.problems())
    return architecture


def _wrong_with_fairseq(kind: str, table_width: int, recurrent: bool, cfg: Any) -> Iterator[str]:
    """Options of fairseq that embeddings of a kind, or recurrent units, do not have."""
    if kind != "plain":
        others = ("encoder_embed_path", "decoder_embed_path", "adaptive_softmax_cutoff", "adaptive_input")
        yield from _given_too(cfg, others, f"{kind.replace('_', '-')} embeddings")
    if recurrent:
        yield from _given_too(cfg, ("cross_self_attention", "scale_heads"), "a decoder without self-attention")
    output = _size(cfg, "decoder", "output_dim")
    if kind == "convolutional" and output not in (None, table_width, _size(cfg, "decoder", "embed_dim")):
        yield f"--decoder-output-dim: must be {table_width}, the width of the table, got {output}"


def _given_too(cfg: Any, names: tuple[str, ...], what: str) -> list[str]:
    nested = {name: _size(cfg, *name.split("_", 1)) for name in names if name.startswith(PARTS)}
    values = {name: nested.get(name) or getattr(cfg, name, None) for name in names}
    return [f"{flag(name)}: not with {what}, got {value}" for name, value in values.items() if value]


def flags_of(cfg: Any) -> ShapeFlags:
    """The options beyond fairseq's in a configuration, checked."""
    problems: list[str] = []
    flags = ShapeFlags(**_given(cfg, problems))
    kind = _embedding_kind(flags)
    with_fairseq = _wrong_with_fairseq(kind, flags.embedding_rank, flags.decoder_self_attention != "attention", cfg)
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
    return [pattern for pattern, _ in linear_ranks(ShapeFlags(**_given(cfg, [])))]


_KINDS: dict[type, str] = {int: "a whole number", float: "a number", str: "a text"}


def _given(cfg: Any, problems: list[str]) -> dict[str, Any]:
    """The options that have a value, in their types: hydra has texts, and numbers of any kind."""
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


def _size(cfg: Any, part: str, name: str, default: Any = None) -> Any:
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
        heads, groups = _size(cfg, part, "attention_heads") or 1, getattr(flags, f"{part}_layer_groups")
        layers, inside = _size(cfg, part, "layers"), flags.bottleneck_width or _size(cfg, part, "embed_dim") or 0
        if inside % heads:
            name = "--bottleneck-width" if flags.bottleneck_width else f"--{part}-embed-dim"
            yield f"{name}: must be a multiple of the {heads} heads of the {part}, got {inside}"
        if layers is not None and groups > layers:
            yield f"--{part}-layer-groups: must be in [0, {layers}], the layers of the {part}, got {groups}"
    try:
        linear_ranks(flags)
        _modes(flags)
    except ConfigError as error:
        yield str(error)


def _modes(flags: ShapeFlags) -> list[tuple[int, ...]]:
    """Factors of the dictionary's size and of the width; empty where they are to be balanced."""
    text = flags.tensor_train_modes
    sides = [side.split(",") for side in text.split(":")] if text else [[], []]
    if len(sides) != 2 or not all(factor.strip().isdecimal() for side in sides for factor in side):
        raise ConfigError(f"--tensor-train-modes: must be two lists of numbers, as in 20,20,20:8,8,4, got {text!r}")
    return [tuple(int(factor) for factor in side) for side in sides]


def _embedding_kind(flags: ShapeFlags) -> str:
    if flags.embedding_convolution:
        return "convolutional"
    return "tensor_train" if flags.tensor_train_rank else "factorized" if flags.embedding_rank else "plain"


def _embeddings(flags: ShapeFlags, tying: str) -> Embeddings:
    rank = flags.tensor_train_rank or flags.embedding_rank
    entries, widths = _modes(flags)
    return Embeddings(_embedding_kind(flags), rank, entries, widths, flags.embedding_convolution, tying)


def _stack(flags: ShapeFlags, cfg: Any, part: str) -> Stack:
    sizes = ("embed_dim", "attention_heads", "ffn_embed_dim")
    width, heads, ffn = (int(_size(cfg, part, name, 1)) for name in sizes)
    attention = Attention("attention", heads, (flags.bottleneck_width or width) // heads)
    own, cross = attention, None
    if part == "decoder":
        cross = None if getattr(cfg, "no_cross_attention", False) else attention
        if flags.decoder_self_attention != "attention":
            own = Attention(flags.decoder_self_attention, ffn=flags.average_attention_ffn)
    bottleneck = None
    if flags.bottleneck_width:
        bottleneck = BottleneckShape(flags.bottleneck_width, flags.ffn_stack, flags.bottleneck_norm)
    return Stack(width, (Layer(own, ffn, cross, bottleneck),) * int(_size(cfg, part, "layers")))


def _with_matrices(architecture: Architecture, flags: ShapeFlags) -> Architecture:
    """With the low-rank and sparse matrices that patterns pick, by the names of modules in the whole model."""
    names = [
        f"{part}.layers.{number}.{name}"
        for part in PARTS
        for number, layer in enumerate(architecture.stack(part).layers)
        for name in architecture.linear_shapes(part, layer)
    ]
    ranks: dict[str, int] = {}
    for pattern, rank in linear_ranks(flags):
        ranks |= dict.fromkeys(select(names, [pattern], "--linear-ranks"), rank)
    sparse = select(names, flags.sparse_modules.split(","), "--sparse-modules") if flags.sparsity else []
    if both := sorted({*ranks} & {*sparse}):
        raise ConfigError(f"--sparse-modules: must pick no layer that has a rank, got {', '.join(both)}")
    forms: Mapping[str, dict[str, Any]] = {name: {"rank": rank} for name, rank in ranks.items()} | {
        name: {
            "sparsity": flags.sparsity, "layout": flags.sparse_layout, "block": flags.sparse_block,
            "seed": layer_seed(flags.sparse_seed, name),
        }
        for name in sparse
    }  # fmt: skip

    def stored(part: str, number: int, layer: Layer) -> Layer:
        full = {name: f"{part}.layers.{number}.{name}" for name in architecture.linear_shapes(part, layer)}
        return replace(layer, matrices=tuple(Matrix(n, **forms[name]) for n, name in full.items() if name in forms))

    return architecture.map_layers(stored)


def _shared(architecture: Architecture, flags: ShapeFlags) -> Architecture:
    """With the layers that share parameters, which must be alike but for the seeds of their supports."""
    leaders = {}
    for part in PARTS:
        count, groups = len(architecture.stack(part).layers), getattr(flags, f"{part}_layer_groups")
        leaders[part] = sharing_leaders(count, groups, flags.layer_sharing) if groups else list(range(count))

    def shared(part: str, number: int, layer: Layer) -> Layer:
        leader = leaders[part][number]
        if leader == number:
            return layer
        model = architecture.stack(part).layers[leader]
        own, other = _matrix_forms(layer), _matrix_forms(model)
        for name in {**own, **other}:
            if own.get(name) != other.get(name):
                raise ConfigError(
                    f"--{part}-layer-groups: layers that share parameters must be alike, got {name}: "
                    f"{own.get(name, 'dense')} and {other.get(name, 'dense')} in layers {number} and {leader}"
                )
        return replace(model, shared_with=leader)

    return architecture.map_layers(shared)


def _matrix_forms(layer: Layer) -> dict[str, str]:
    return {m.name: f"rank {m.rank}" if m.rank else f"sparsity {m.sparsity}" for m in layer.matrices}
