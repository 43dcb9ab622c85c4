"""The names of Marian's parameters for the layers of an architecture, for export and import."""

from collections.abc import Iterator
from typing import NamedTuple

from fairseq_compress.architecture.shape import Architecture
from fairseq_compress.functional.layer_map import PARTS

ALPHA = "_QuantMultA"  # behind the name of a weight: the multiplier of its layer's input
OUTPUT, OUTPUT_BIAS, OUTPUT_ALPHA = "decoder.output_projection", "decoder_ff_logit_out_b", f"none{ALPHA}"
TABLE = "Wemb"
_PROJECTIONS = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "out_proj": "o"}


class Linear(NamedTuple):
    """A linear layer; Marian's matrix is the transpose of ours."""

    ours: str
    weight: str
    bias: str | None


class Norm(NamedTuple):
    """A layer norm; Marian's parameters are ``NAME_ln_scale`` and ``NAME_ln_bias``."""

    ours: str
    name: str


def linear_layers(architecture: Architecture) -> Iterator[Linear]:
    """All linear layers but the output layer."""
    for part in PARTS:
        for number, layer in enumerate(architecture.stack(part).layers):
            ours, theirs = f"{part}.layers.{number}", f"{part}_l{number + 1}"
            if layer.self_attention.kind == "ssru":
                yield Linear(f"{ours}.self_attn.forget", f"{theirs}_rnn_Wf", f"{theirs}_rnn_bf")
                yield Linear(f"{ours}.self_attn.project", f"{theirs}_rnn_W", None)
            else:
                yield from _attention(f"{ours}.self_attn", f"{theirs}_self")
            if layer.cross_attention is not None:
                yield from _attention(f"{ours}.encoder_attn", f"{theirs}_context")
            for place in "12":
                yield Linear(f"{ours}.fc{place}", f"{theirs}_ffn_W{place}", f"{theirs}_ffn_b{place}")


def norms(architecture: Architecture) -> Iterator[Norm]:
    """All layer norms of a post-norm model."""
    for part in PARTS:
        for number, layer in enumerate(architecture.stack(part).layers):
            ours, theirs = f"{part}.layers.{number}", f"{part}_l{number + 1}"
            own = "rnn_ffn" if layer.self_attention.kind == "ssru" else "self_Wo"
            yield Norm(f"{ours}.self_attn_layer_norm", f"{theirs}_{own}")
            if layer.cross_attention is not None:
                yield Norm(f"{ours}.encoder_attn_layer_norm", f"{theirs}_context_Wo")
            yield Norm(f"{ours}.final_layer_norm", f"{theirs}_ffn_ffn")


def _attention(ours: str, theirs: str) -> Iterator[Linear]:
    for name, letter in _PROJECTIONS.items():
        yield Linear(f"{ours}.{name}", f"{theirs}_W{letter}", f"{theirs}_b{letter}")
