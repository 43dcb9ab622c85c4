"""Hooks that record layer outputs, queries and keys of any fairseq transformer.

The decoder and its output layer get no hook, so :func:`student_output` can still use hidden states.
"""

import functools
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch.nn.functional as F
from fairseq.modules import MultiheadAttention
from torch import Tensor, nn

from fairseq_compress.errors import ConfigError
from fairseq_compress.models.student_output import unwrapped
from fairseq_compress.modules.attention import HookableMultiheadAttention

KINDS = {"encoder": "encoder", "decoder": "decoder", "cross": "decoder"}
"""Kinds of attention (the self-attentions, and that of the decoder to the encoder), and the part that has them."""

Site = tuple[str, int]
"""A part, or a kind of attention, and the number of the layer from 0."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of encoder and decoder."""

    layers: dict[str, int]
    """Number of layers."""
    widths: dict[str, int]
    """Width C of the outputs of layers."""
    last: dict[str, int]
    """Width of the outputs of encoder and decoder."""
    heads: dict[str, list[int]]
    """Heads of each kind of attention, by layer; empty without attention of the kind."""


class QueriesAndKeys(NamedTuple):
    """Projected queries and keys of an attention, not scaled."""

    query: Tensor
    """(T, B, H · D)"""
    key: Tensor
    """(S, B, H · D)"""
    heads: int


@dataclass
class Recorded:
    """Recorded tensors. T positions of the source (encoder) or of the target (decoder), B sentences."""

    layers: dict[Site, Tensor] = field(default_factory=dict)
    """(T, B, C), the outputs of layers."""
    last: dict[str, Tensor] = field(default_factory=dict)
    """(T, B, C), outputs of encoder and decoder, after a final layer norm or projection where there is one."""
    attention: dict[Site, QueriesAndKeys] = field(default_factory=dict)


def sizes_of(model: nn.Module) -> Sizes:
    """The sizes of ``model``."""
    inner = unwrapped(model)
    try:
        parts = {"encoder": inner.encoder, "decoder": inner.decoder}
        widths = {name: int(part.layers[0].embed_dim) for name, part in parts.items()}
        last = dict(widths)
        if inner.decoder.project_out_dim is not None:
            last["decoder"] = inner.decoder.output_embed_dim
        heads = {kind: _heads(inner, kind) for kind in KINDS}
        return Sizes({name: len(part.layers) for name, part in parts.items()}, widths, last, heads)
    except (AttributeError, IndexError, TypeError) as error:
        raise ConfigError(
            f"model: must be a transformer with encoder.layers and decoder.layers, got {type(inner).__name__}"
        ) from error


def recomputes_layers(model: nn.Module) -> bool:
    """Whether a layer's forward runs without a graph and again in the backward pass (``--checkpoint-activations``)."""
    inner = unwrapped(model)
    layers = [*inner.encoder.layers.children(), *inner.decoder.layers.children()]
    return any(isinstance(layer.forward, functools.partial) for layer in layers)


@contextmanager
def recording(
    model: nn.Module, layers: Collection[Site] = (), attention: Collection[Site] = (), last: bool = False
) -> Iterator[Recorded]:
    """Record tensors of the first run of ``model``, in any wrapper, inside of the ``with``.

    fairseq's attention does not call ``q_proj`` and ``k_proj``: there the products are computed from its inputs.

    Args:
        layers: layers to record the outputs of.
        attention: attentions to record the projected queries and keys of.
        last: also record the outputs of encoder and decoder.
    """
    inner, recorded, handles = unwrapped(model), Recorded(), []
    if any(getattr(part, "language_tokens", ()) for part in (inner.encoder, inner.decoder)):
        raise ConfigError("model: must not add language tokens to sentences, to be compared by layers")
    try:
        for site in layers:
            handles.append(_layer(inner, site).register_forward_hook(_keep(recorded.layers, site)))
        for site in attention:
            handles += _listen(_attention(inner, *site), _Projections(recorded.attention, site))
        for part in ("encoder", "decoder") if last else ():
            module, batch_first = _last_module(inner, part)
            handles.append(module.register_forward_hook(_keep(recorded.last, part, batch_first)))
        yield recorded
    finally:
        for handle in handles:
            handle.remove()
    missing = sorted({*layers} - {*recorded.layers} | {*attention} - {*recorded.attention})
    if missing or (last and len(recorded.last) < 2):
        raise ConfigError(f"model: every layer must run to be learned from, got none of {missing or 'the last states'}")


def _layer(inner: Any, site: Site) -> Any:
    part, number = site
    # Not by iteration: a list with layer drop would leave some out.
    return (inner.encoder if part == "encoder" else inner.decoder).layers[number]


def _attention(inner: Any, kind: str, number: int) -> Any:
    layer = _layer(inner, (KINDS[kind], number))
    return layer.encoder_attn if kind == "cross" else layer.self_attn


def _heads(inner: Any, kind: str) -> list[int]:
    if kind == "decoder" and getattr(inner.decoder, "cross_self_attention", False):
        return []  # its keys are of the source too
    part = inner.encoder if KINDS[kind] == "encoder" else inner.decoder
    attentions = [_attention(inner, kind, number) for number in range(len(part.layers))]
    if not all(isinstance(attention, MultiheadAttention) for attention in attentions):
        return []  # none, or a recurrent unit
    return [attention.num_heads for attention in attentions]


def _last_module(inner: Any, part: str) -> tuple[nn.Module, bool]:
    """The module whose output is that of the whole part, and whether sentences come first in it."""
    module = inner.encoder if part == "encoder" else inner.decoder
    projection = getattr(module, "project_out_dim", None)
    if projection is not None:
        return projection, True
    norm = getattr(module, "layer_norm", None)
    return (norm if norm is not None else module.layers[len(module.layers) - 1]), False


def _keep(store: dict[Any, Tensor], key: Any, batch_first: bool = False) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        store.setdefault(key, hidden.transpose(0, 1) if batch_first else hidden)

    return hook


class _Projections:
    """Collects queries and keys of one attention."""

    def __init__(self, store: dict[Site, QueriesAndKeys], site: Site) -> None:
        self.store, self.site = store, site
        self.query: Tensor | None = None

    def keep(self, query: Tensor, key: Tensor, heads: int) -> None:
        self.store.setdefault(self.site, QueriesAndKeys(query, key, heads))


def _listen(attention: Any, projections: _Projections) -> list[Any]:
    """The handles of hooks on one attention."""
    if not isinstance(attention, HookableMultiheadAttention):

        def from_inputs(module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            query, key = (
                arguments[i] if len(arguments) > i else named[name] for i, name in enumerate(("query", "key"))
            )
            q, k = (F.linear(x, p.weight, p.bias) for x, p in ((query, module.q_proj), (key, module.k_proj)))
            projections.keep(q, k, module.num_heads)

        return [attention.register_forward_pre_hook(from_inputs, with_kwargs=True)]

    def on_query(module: nn.Module, inputs: Any, output: Tensor) -> None:
        projections.query = output

    def on_key(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if projections.query is not None:  # our attention projects its queries first
            projections.keep(projections.query, output, attention.num_heads)

    return [attention.q_proj.register_forward_hook(on_query), attention.k_proj.register_forward_hook(on_key)]
