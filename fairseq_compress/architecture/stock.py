"""Architectures that fairseq's plain ``transformer`` can represent."""

from collections.abc import Iterator
from dataclasses import replace

from fairseq_compress.architecture.shape import (
    FIRST_POSITIONS,
    NORM_EPS,
    Architecture,
    Attention,
    Embeddings,
    LanguageTokens,
)
from fairseq_compress.functional.layer_map import PARTS


def dense(architecture: Architecture) -> Architecture:
    """The architecture with dense matrices and tables, and no shared layers."""
    embeddings = architecture.embeddings
    if embeddings.kind != "convolutional":
        embeddings = Embeddings(tying=embeddings.tying)
    layers = architecture.map_layers(lambda part, number, layer: replace(layer, matrices=(), shared_with=None))
    return replace(layers, embeddings=embeddings)


def forms(architecture: Architecture) -> list[str]:
    """What makes an architecture smaller than the plain one that computes the same; :func:`dense` has none of it."""
    layers = [layer for part in PARTS for layer in architecture.stack(part).layers]
    matrices = [matrix for layer in layers for matrix in layer.matrices]
    found = {
        "low-rank layers": any(matrix.rank for matrix in matrices),
        "sparse layers": any(matrix.sparsity for matrix in matrices),
        "shared layers": any(layer.shared_with is not None for layer in layers),
        f"{architecture.embeddings.kind.replace('_', '-')} embeddings": architecture.embeddings.kind != "plain",
    }
    return [name for name, there in found.items() if there]


def why_not_plain(architecture: Architecture, recurrent: bool = False) -> list[str]:
    """Reasons why fairseq's layers, of any sizes, cannot compute the architecture.

    Args:
        recurrent: allow recurrent units in the place of self-attention.
    """
    reasons = []
    for part in PARTS:
        layers = architecture.stack(part).layers
        kinds = [] if recurrent else sorted({layer.self_attention.kind for layer in layers} - {"attention"})
        reasons += [f"the {part} has {kind} in the place of self-attention" for kind in kinds]
        reasons += [f"the layers of the {part} have bottlenecks"] if any(layer.bottleneck for layer in layers) else []
    if len({layer.cross_attention is None for layer in architecture.decoder.layers}) > 1:
        reasons.append("not all layers of the decoder attend to the encoder")
    if architecture.embeddings.kind == "convolutional":
        reasons.append("its embeddings have a convolution")
    return reasons


def why_not_stock(architecture: Architecture) -> list[str]:
    """Reasons why fairseq's ``transformer``, whose layers are alike, cannot have these layers, output and inputs."""
    bias = ["its output layer has a bias"] if architecture.output_bias else []
    return why_not_conventions(architecture) + bias + why_not_alike(architecture)


def why_not_conventions(architecture: Architecture) -> list[str]:
    """Reasons in which the whole model differs, but for the output layer."""
    reasons = {
        f"its decoder starts with {architecture.decoder_start} in the place of the embedding of EOS": (
            architecture.decoder_start != "eos"
        ),
        f"its positions start at {architecture.first_position}": architecture.first_position != FIRST_POSITIONS[0],
        f"its layer norms have an epsilon of {architecture.norm_eps:g}": architecture.norm_eps != NORM_EPS,
        "it adds language tokens to every sentence": architecture.language_tokens != LanguageTokens(),
    }
    return [reason for reason, holds in reasons.items() if holds]


def why_not_alike(architecture: Architecture) -> list[str]:
    """Reasons why the layers of each part have no common sizes."""
    return [reason for part in PARTS for reason in _why_not(architecture, part)]


def _why_not(architecture: Architecture, part: str) -> Iterator[str]:
    stack = architecture.stack(part)
    attentions: list[Attention] = []
    for layer in stack.layers:
        attentions += [a for a in (layer.self_attention, layer.cross_attention) if a and a.kind == "attention"]
    heads = [attention.heads for attention in attentions]
    units = [layer.ffn for layer in stack.layers]
    for what, numbers in (("heads", heads), ("FFN units", units)):
        if len(set(numbers)) > 1:
            yield f"the layers of the {part} have {' or '.join(map(str, dict.fromkeys(numbers)))} {what}"
    for attention in [a for a in attentions if a.width != stack.width][:1]:
        yield f"{attention.heads} heads of width {attention.head_width} in the {part} are not its width {stack.width}"
