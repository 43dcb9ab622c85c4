"""The non-padding positions of a batch, for modules that measure activations.

:func:`follow` wraps the forward passes of encoders and decoders to set them; attention sets those of its keys.

Shapes: B sentences, T positions, C features.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from fairseq.models import FairseqDecoder, FairseqEncoder
from torch import Tensor, nn


@dataclass(frozen=True)
class Positions:
    """The positions of the present activations."""

    tokens: Tensor | None = None
    """``(B, T)``, true at tokens and false at padding; None: there is no padding."""
    observed: bool = False
    """Whether this is a training forward, whose activations count in moving averages."""

    def largest(self, x: Tensor, time_first: bool) -> Tensor:
        """max |x| over all tokens, a scalar in float32; see :meth:`of`."""
        largest = x.abs().amax(dim=-1).float()
        mask = self._mask(largest, time_first)
        return (largest if mask is None else largest.masked_fill(~mask, 0.0)).amax()

    def of(self, x: Tensor, time_first: bool) -> Tensor:
        """The rows ``(N, C)`` of ``x`` that belong to tokens; ``x`` itself, if it does not have the shape of the batch.

        Args:
            x: ``(T, B, C)`` or ``(B, T, C)``.
            time_first: which of these it is, if B = T.
        """
        mask = self._mask(x[..., 0], time_first)
        return x if mask is None else x[mask]

    def _mask(self, rows: Tensor, time_first: bool) -> Tensor | None:
        if self.tokens is None:
            return None
        masks = (self.tokens.t(), self.tokens) if time_first else (self.tokens, self.tokens.t())
        return next((mask for mask in masks if mask.shape == rows.shape), None)


_OUTSIDE = Positions()
_CURRENT = ContextVar("positions", default=_OUTSIDE)
_OBSERVES = ContextVar("observes", default=True)


def current() -> Positions:
    """Those of the running forward pass; outside of one, as in the backward pass, without padding and not observed."""
    return _CURRENT.get()


@contextmanager
def within(positions: Positions) -> Iterator[None]:
    """Activations inside are those of ``positions``."""
    before = _CURRENT.set(positions)
    try:
        yield
    finally:
        _CURRENT.reset(before)


def reading(padding: Tensor | None) -> AbstractContextManager[None]:
    """Activations inside are those of another sequence: ``padding`` ``(B, T)`` is true at padding, None if none is."""
    return within(replace(_CURRENT.get(), tokens=None if padding is None else ~padding.bool()))


@contextmanager
def unobserved() -> Iterator[None]:
    """Activations inside, as of a dummy batch, do not count in moving averages."""
    before = _OBSERVES.set(False)
    try:
        yield
    finally:
        _OBSERVES.reset(before)


def follow(model: nn.Module) -> int:
    """Wrap ``forward`` of all fairseq encoders and decoders in a model; returns their number.

    Hooks would not fire: beam search calls ``forward`` without ``__call__``.
    """
    parts = [module for module in model.modules() if isinstance(module, (FairseqEncoder, FairseqDecoder))]
    parts = [part for part in parts if part.dictionary is not None]  # fairseq's attention is a decoder without one
    for part in parts:
        part.forward = partial(_forward, part.forward, part)
    return len(parts)


def _forward(original: Callable[..., Any], part: Any, *args: Any, **kwargs: Any) -> Any:
    name = "prev_output_tokens" if isinstance(part, FairseqDecoder) else "src_tokens"
    tokens = kwargs[name] if name in kwargs else args[0]
    if kwargs.get("incremental_state") is not None:
        tokens = tokens[:, -1:]
    observed = _CURRENT.get().observed or (part.training and torch.is_grad_enabled() and _OBSERVES.get())
    with within(Positions(tokens.ne(part.dictionary.pad()), observed)):
        return original(*args, **kwargs)
