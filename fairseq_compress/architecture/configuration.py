"""The architecture in the configuration of a model: read from it, made of its flat options, or turned into them.

The option ``architecture``, one line of JSON, is the whole shape; checkpoints of this version have it. Older ones have
the flat options only, which give the same architecture.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fairseq_compress.architecture.flags import (
    DEFAULTS,
    KEY,
    ORDERS,
    ShapeFlags,
    embedding_kind,
    fairseq_problems,
    flags_of,
    given_options,
    linear_ranks,
    part_option,
    tensor_train_modes,
)
from fairseq_compress.architecture.reading import read_architecture, to_json
from fairseq_compress.architecture.shape import (
    Architecture,
    Attention,
    BottleneckShape,
    Embeddings,
    Layer,
    Matrix,
    Stack,
)
from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.layer_map import PARTS
from fairseq_compress.functional.layers.supports import layer_seed
from fairseq_compress.options import flag, raise_problems
from fairseq_compress.selection import select

WHOLE_MODEL = ("decoder_start", "first_position", "norm_eps", "output_bias")
"""Options that are fields of the architecture under the same name."""


def architecture_of(cfg: Any) -> Architecture:
    """The architecture in the configuration of any transformer: flat, or fairseq's ``TransformerConfig``."""
    if not (given := getattr(cfg, KEY, None)):
        return from_flags(cfg)
    architecture = read_architecture(given)
    recurrent = any(layer.self_attention.kind != "attention" for layer in architecture.decoder.layers)
    form = architecture.embeddings
    problems = list(fairseq_problems(form.kind, form.rank, recurrent, cfg))
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

    ``args`` is a namespace or hydra's table, without defaults.
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
    own = {name: value for name, value in given_options(args, []).items() if value != getattr(DEFAULTS, name)}
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
    whole = {name: getattr(flags, name) for name in WHOLE_MODEL}
    architecture = _with_matrices(Architecture(**stacks, embeddings=_embeddings(flags, tying), **whole), flags)
    architecture = _shared(architecture, flags)
    raise_problems(architecture.problems())
    return architecture


def _embeddings(flags: ShapeFlags, tying: str) -> Embeddings:
    rank = flags.tensor_train_rank or flags.embedding_rank
    entries, widths = tensor_train_modes(flags)
    return Embeddings(embedding_kind(flags), rank, entries, widths, flags.embedding_convolution, tying)


def _stack(flags: ShapeFlags, cfg: Any, part: str) -> Stack:
    sizes = ("embed_dim", "attention_heads", "ffn_embed_dim")
    width, heads, ffn = (int(part_option(cfg, part, name, 1)) for name in sizes)
    attention = Attention("attention", heads, (flags.bottleneck_width or width) // heads)
    own, cross = attention, None
    if part == "decoder":
        cross = None if getattr(cfg, "no_cross_attention", False) else attention
        if flags.decoder_self_attention != "attention":
            own = Attention(flags.decoder_self_attention, ffn=flags.average_attention_ffn)
    bottleneck = None
    if flags.bottleneck_width:
        bottleneck = BottleneckShape(flags.bottleneck_width, flags.ffn_stack, flags.bottleneck_norm)
    return Stack(width, (Layer(own, ffn, cross, bottleneck),) * int(part_option(cfg, part, "layers")))


def _with_matrices(architecture: Architecture, flags: ShapeFlags) -> Architecture:
    """With low-rank and sparse matrices, selected by patterns of module names."""
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


def sharing_leaders(count: int, groups: int, order: str = "sequence") -> list[int]:
    """For each of ``count`` layers the first layer with the same parameters, in ``groups`` groups.

    ``sequence`` AABBCC: layer i has the parameters number i · G // N. ``cycle`` ABCABC: i mod G. ``cycle_rev`` ABCCBA:
    as cycle, but in the last min(G, N - G) layers backwards from G - 1; ABCDDC for N = 6, G = 4.
    """
    if order not in ORDERS:
        raise ConfigError(f"--layer-sharing: must be one of {', '.join(ORDERS)}, got {order!r}")
    if not 1 <= groups <= count:
        raise ConfigError(f"layer groups: must be in [1, {count}], the number of layers, got {groups}")
    numbers = [i * groups // count if order == "sequence" else i % groups for i in range(count)]
    if order == "cycle_rev":
        start = count - min(groups, count - groups)
        numbers[start:] = [groups - 1 - i for i in range(count - start)]
    return [numbers.index(number) for number in numbers]


def _shared(architecture: Architecture, flags: ShapeFlags) -> Architecture:
    """With shared layers, which must be alike except for the seeds of their supports."""
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
