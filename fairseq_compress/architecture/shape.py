"""The architecture of a model as data.

C is the width of the stream between layers, H the number of heads of an attention and D the width of a head.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from fairseq_compress.functional.layer_map import PARTS
from fairseq_compress.functional.layers.supports import BLOCKS, LAYOUTS
from fairseq_compress.options import interval, option

SELF_ATTENTIONS = ("attention", "ssru", "average")
EMBEDDINGS = ("plain", "factorized", "tensor_train", "convolutional")
NORMS = ("layer", "elementwise")
TYINGS = ("all", "decoder", "none")
STARTS = ("eos", "zero")
FIRST_POSITIONS = (2, 0)
NORM_EPS = 1e-5
VERSION = 1

Shape = tuple[int, int]
"""(O, I) of the weight of a linear layer."""


@dataclass(frozen=True)
class Matrix:
    """The structure of the weight of a linear layer: low-rank, or sparse with a fixed support."""

    name: str = option(help="name of the module in its layer, as in self_attn.q_proj")
    rank: int = option(0, "rank of the factors; 0: not factorized", range="[0, inf)")
    sparsity: float = option(0.0, "fraction of the weights that the support lacks", range="[0, 1)")
    layout: str = option("random", "how the support is drawn", choices=LAYOUTS)
    block: int = option(1, "size of the blocks of the support", choices=BLOCKS)
    seed: int = option(0, "seed of the support", range="[0, inf)")


@dataclass(frozen=True)
class Attention:
    """Multi-head attention, or a recurrent unit in the place of self-attention."""

    kind: str = option("attention", "self-attention, SSRU or average attention", choices=SELF_ATTENTIONS)
    heads: int = option(0, "H", range="[0, inf)")
    head_width: int = option(0, "D", range="[0, inf)")
    ffn: int = option(0, "units of the network in average attention; 0: none", range="[0, inf)", needs="kind=average")

    @property
    def width(self) -> int:
        """H · D, width of queries, keys and values."""
        return self.heads * self.head_width

    def problems(self) -> Iterator[str]:
        for name in ("heads", "head_width"):
            value = getattr(self, name)
            if (value > 0) != (self.kind == "attention"):
                within = "[1, inf)" if self.kind == "attention" else "[0, 0]"
                yield f"{name}: must be in {within} for {self.kind}, got {value}"


@dataclass(frozen=True)
class BottleneckShape:
    """The inside of a MobileBERT block (arXiv:2004.02984)."""

    width: int = option(help="width inside of the layer", range="[1, inf)")
    ffn_stack: int = option(1, "feed-forward networks one after another", range="[1, inf)")
    norm: str = option("layer", "norms of the layer", choices=NORMS)


@dataclass(frozen=True)
class Layer:
    """A layer of encoder or decoder."""

    self_attention: Attention
    ffn: int = option(help="units of the feed-forward network", range="[1, inf)")
    cross_attention: Attention | None = None
    bottleneck: BottleneckShape | None = None
    matrices: tuple[Matrix, ...] = ()
    """Linear layers whose weight is not dense."""
    shared_with: int | None = None
    """An earlier layer with the same parameters."""

    def problems(self) -> Iterator[str]:
        if self.cross_attention is not None and self.cross_attention.kind != "attention":
            yield f"cross_attention.kind: must be attention, got {self.cross_attention.kind}"
        if self.bottleneck is not None and self.self_attention.kind != "attention":
            yield f"self_attention.kind: must be attention in a layer with a bottleneck, got {self.self_attention.kind}"


@dataclass(frozen=True)
class Stack:
    """Encoder or decoder."""

    width: int = option(help="C", range="[1, inf)")
    layers: tuple[Layer, ...] = ()

    def leaders(self) -> list[int]:
        """For each layer the first layer with the same parameters, which may be itself."""
        return [i if layer.shared_with is None else layer.shared_with for i, layer in enumerate(self.layers)]


@dataclass(frozen=True)
class Embeddings:
    """The tables of source, target and output."""

    kind: str = option("plain", "form of the tables", choices=EMBEDDINGS)
    rank: int = option(0, "rank of factorized and tensor-train tables, width of convolutional ones", range="[0, inf)")
    entry_modes: tuple[int, ...] = option((), "factors of the dictionary's size in a tensor train", range="[1, inf)")
    width_modes: tuple[int, ...] = option((), "factors of the width in a tensor train", range="[1, inf)")
    taps: int = option(0, "tokens in a window of the convolution", range="[0, inf)")
    tying: str = option("all", "which tables are one: all, those of the decoder, none", choices=TYINGS)

    def problems(self) -> Iterator[str]:
        if (self.rank > 0) != (self.kind != "plain"):
            within = "[0, 0]" if self.kind == "plain" else "[1, inf)"
            yield f"rank: must be in {within} for {self.kind}, got {self.rank}"
        if (self.entry_modes or self.width_modes) and self.kind != "tensor_train":
            yield f"entry_modes, width_modes: require kind tensor_train, got {self.kind}"
        if (self.taps % 2 == 0) if self.kind == "convolutional" else self.taps:
            rule = "odd" if self.kind == "convolutional" else "0"
            yield f"taps: must be {rule} for {self.kind}, got {self.taps}"


@dataclass(frozen=True)
class LanguageTokens:
    """Tokens by which a model of many languages is told its languages, which it adds to every sentence itself."""

    source: tuple[int, ...] = option((), "entries of the source dictionary before every source", range="[1, inf)")
    target: tuple[int, ...] = option(
        (), "entries of the target dictionary between the decoder's first input, </s>, and the translation",
        range="[1, inf)",
    )  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """The shape of an encoder-decoder model. Everything that builds, decodes, exports or counts a model reads it."""

    encoder: Stack
    decoder: Stack
    embeddings: Embeddings = Embeddings()
    language_tokens: LanguageTokens = LanguageTokens()
    exits: tuple[int, ...] = ()
    """Decoder layers after which decoding may stop. Reserved: must be empty."""
    decoder_start: str = option("eos", "first input of the decoder: embedding of EOS, or zero", choices=STARTS)
    first_position: int = option(2, "number of the first position in sinusoidal embeddings", choices=FIRST_POSITIONS)
    norm_eps: float = option(NORM_EPS, "epsilon of all layer norms", range="(0, 1)")
    output_bias: bool = option(False, "whether the output layer has a bias")
    version: int = option(VERSION, choices=(VERSION,))

    def stack(self, part: str) -> Stack:
        return getattr(self, part)

    def map_layers(self, change: Callable[[str, int, Layer], Layer]) -> "Architecture":
        """The architecture with ``change(part, number, layer)`` for each layer."""
        stacks: dict[str, Any] = {}
        for part in PARTS:
            stack = self.stack(part)
            layers = tuple(change(part, number, layer) for number, layer in enumerate(stack.layers))
            stacks[part] = replace(stack, layers=layers)
        return replace(self, **stacks)

    def keep_layers(self, part: str, numbers: list[int]) -> "Architecture":
        """The architecture with these layers of a part, in this order."""
        stack = self.stack(part)
        layers: list[Layer] = []
        for number in numbers:
            leader = stack.leaders()[number]
            shared = numbers.index(leader) if leader != number and leader in numbers[: len(layers)] else None
            layers.append(replace(stack.layers[number], shared_with=shared))
        changed: dict[str, Any] = {part: replace(stack, layers=tuple(layers))}
        return replace(self, **changed)

    def linear_shapes(self, part: str, layer: Layer) -> dict[str, Shape]:
        """The shape of each linear layer in a layer of a part, by its name there, in the order of the modules."""
        return dict(_linear_shapes(layer, self.stack(part).width, self.encoder.width))

    def problems(self) -> Iterator[str]:
        if self.exits:
            yield f"exits: must be empty, got {list(self.exits)}"
        if self.embeddings.kind != "plain" and (self.decoder_start != "eos" or self.output_bias):
            yield (
                "decoder_start, output_bias: must be eos and false unless embeddings are plain, got "
                f"{self.decoder_start} and {self.output_bias} with {self.embeddings.kind} ones"
            )
        if self.embeddings.tying == "all" and self.encoder.width != self.decoder.width:
            yield (
                "embeddings.tying: must be decoder or none where the widths of encoder and decoder differ, got all "
                f"with {self.encoder.width} and {self.decoder.width}"
            )
        for part in PARTS:
            stack = self.stack(part)
            for number, layer in enumerate(stack.layers):
                place = f"{part}.layers[{number}]"
                if part == "encoder" and layer.cross_attention is not None:
                    yield f"{place}.cross_attention: must be null in the encoder, got {layer.cross_attention}"
                if part == "encoder" and (kind := layer.self_attention.kind) != "attention":
                    yield f"{place}.self_attention.kind: must be attention in the encoder, got {kind}"
                yield from _wrong_sharing(stack, number, place)
                yield from _wrong_matrices(layer, self.linear_shapes(part, layer), place)


def _linear_shapes(layer: Layer, width: int, encoder_width: int) -> Iterator[tuple[str, Shape]]:
    """Of a layer between streams of ``width``."""
    inside = width if layer.bottleneck is None else layer.bottleneck.width
    if layer.bottleneck is not None:
        yield from ((f"bottleneck_{name}.linear", (inside, width)) for name in ("in", "shared"))
    if layer.self_attention.kind == "attention":
        yield from _attention_shapes("self_attn", layer.self_attention, inside, inside, width)
    elif layer.self_attention.kind == "ssru":
        yield from ((f"self_attn.{name}", (width, width)) for name in ("forget", "project"))
    else:
        ffn = layer.self_attention.ffn
        yield from [("self_attn.fc1", (ffn, width)), ("self_attn.fc2", (width, ffn))] if ffn else []
        yield "self_attn.gates", (2 * width, 2 * width)
    cross = []
    if layer.cross_attention is not None:
        cross = list(_attention_shapes("encoder_attn", layer.cross_attention, inside, encoder_width, encoder_width))
    yield from cross if layer.bottleneck is None else []
    networks = [""] if layer.bottleneck is None else [f"ffns.{i}." for i in range(layer.bottleneck.ffn_stack)]
    for network in networks:
        yield f"{network}fc1", (layer.ffn, inside)
        yield f"{network}fc2", (inside, layer.ffn)
    if layer.bottleneck is not None:
        yield "bottleneck_out.linear", (width, inside)
        yield from cross


def _attention_shapes(name: str, attention: Attention, width: int, key: int, value: int) -> Iterator[tuple[str, Shape]]:
    inner = attention.width
    yield f"{name}.k_proj", (inner, key)
    yield f"{name}.v_proj", (inner, value)
    yield f"{name}.q_proj", (inner, width)
    yield f"{name}.out_proj", (width, inner)


def _wrong_sharing(stack: Stack, number: int, place: str) -> Iterator[str]:
    leader = stack.layers[number].shared_with
    if leader is None:
        return
    if not 0 <= leader < number or stack.layers[leader].shared_with is not None:
        yield f"{place}.shared_with: must be a layer before it that shares with none, got {leader}"
    elif replace(stack.layers[leader], shared_with=leader) != stack.layers[number]:
        yield f"{place}: must be alike layer {leader}, with which it shares parameters"


def _wrong_matrices(layer: Layer, shapes: dict[str, Shape], place: str) -> Iterator[str]:
    names = [matrix.name for matrix in layer.matrices]
    if len(set(names)) < len(names):
        yield f"{place}.matrices: must name each matrix once, got {', '.join(names)}"
    for matrix in layer.matrices:
        where = f"{place}.matrices: {matrix.name}"
        if matrix.name not in shapes:
            yield f"{where}: must be one of {', '.join(shapes)}"
            continue
        rows, columns = shapes[matrix.name]
        if (matrix.rank > 0) == (matrix.sparsity > 0):
            yield f"{where}: must have either a rank or a sparsity, got {matrix.rank} and {matrix.sparsity}"
        elif matrix.rank and matrix.rank not in interval(f"[1, {min(rows, columns)}]"):
            yield f"{where}: rank: must be in [1, {min(rows, columns)}] for {columns} -> {rows}, got {matrix.rank}"
        elif matrix.sparsity and (rows % matrix.block or columns % matrix.block):
            yield f"{where}: block: must divide {rows} and {columns}, got {matrix.block}"
