"""Decoding steps of an exported model in ONNX Runtime: its memory, and nothing else between two steps.

Keys and values of all steps lie in one array, whose slots a step's own are put into; the session is bound to that
array, so that nothing else is copied. Which slots a hypothesis attends to stands in a mask. Every few steps the array
grows, and what no hypothesis reaches any more is left behind.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_compress.inference.beam_search import Best, Floats, Ints, pick

STEPS_BETWEEN_GROWTHS = 4  # more cost attention to empty slots, fewer cost copies
STEPS_OF_ONE = 16  # of a sentence by itself


class Shape(NamedTuple):
    """Of a decoder."""

    layers: int
    heads: int
    head_width: int
    entries: int
    """Of its dictionary, with those that pad its output."""


class OnnxSteps:
    """See :class:`fairseq_compress.inference.beam_search.Steps`.

    Args:
        session: of the graph of a step.
        source: for each layer keys and values of the source, ``(2, B, H, S, D)``.
        source_mask: ``(B, 1, 1, S)``, 0 for tokens, -inf for padding.
        positions: a row for each step, ``(.., C)``.
    """

    def __init__(
        self, session: Any, shape: Shape, source: list[Floats], source_mask: Floats, positions: Floats
    ) -> None:
        self._session, self._shape, self._positions = session, shape, positions
        self._source, self._source_mask = source, source_mask
        batch = len(source_mask)
        layers, heads, width, _ = shape
        self._past = np.empty((2 * layers, batch, heads, 0, width), np.float32)
        self._mask = np.empty((1, 1, 1, 0), np.float32)
        self._used = 0  # slots
        self._step = 0
        self._own = (0, 0)  # the first slot of the last step, and how many it has
        self._binding: Any = None

    def best(self, tokens: Ints, penalty: Floats, count: int) -> Best:
        """See :class:`fairseq_compress.inference.beam_search.Steps`."""
        group = tokens.shape[1]
        if self._used + group > self._past.shape[3]:
            self._grow(group)
        if self._binding is None:
            self._bind(len(tokens), group, count)
        np.copyto(self._tokens, tokens)
        np.copyto(self._position[0, 0], self._positions[self._step])
        np.copyto(self._penalty[: len(penalty)], penalty)
        self._session.run_with_iobinding(self._binding)
        self._past[:, :, :, self._used : self._used + group] = self._new
        self._own = (self._used, group)
        self._used += group
        self._step += 1
        return Best(self._log_probs, self._best, self._eos)

    def reorder(self, parents: Ints) -> None:
        """See :class:`fairseq_compress.inference.beam_search.Steps`."""
        first, group = self._own
        for place in range(group):
            self._mask[:, 0, place, first + place] = 0
        if group != parents.shape[1]:  # after the first step
            mask = np.broadcast_to(self._mask[:, 0], (len(parents), group, self._mask.shape[3]))
            self._mask = pick(mask, parents)[:, None]
            self._binding = None
        elif group > 1:
            past = self._mask[:, 0, :, : self._used]
            past[...] = pick(past, parents)

    def keep(self, rows: Ints) -> None:
        """See :class:`fairseq_compress.inference.beam_search.Steps`."""
        self._source = [part.take(rows, axis=1) for part in self._source]
        self._source_mask = self._source_mask.take(rows, axis=0)
        self._past = self._past.take(rows, axis=1)  # contiguous, as the bound memory must be
        if len(self._mask) > 1:
            self._mask = self._mask.take(rows, axis=0)
        self._binding = None

    def _grow(self, group: int) -> None:
        """Make room for some steps more, and leave behind the slots that nothing reaches."""
        old, mask = self._past, self._mask[..., : self._used]
        slots = None
        if mask.shape[2] > 1:
            reached = (mask[:, 0] == 0).any(axis=1)  # (B, P)
            self._used = int(reached.sum(axis=1).max())
            slots = np.argsort(~reached, axis=1, kind="stable")[:, : self._used]
            mask = np.take_along_axis(mask, slots[:, None, None], 3)
        steps = max(STEPS_BETWEEN_GROWTHS, STEPS_OF_ONE // old.shape[1])
        room = self._used + steps * max(group, mask.shape[2])
        self._past = np.empty((*old.shape[:3], room, old.shape[4]), np.float32)
        self._past[:, :, :, self._used :] = 0  # what a mask hides must be finite too
        for row in range(old.shape[1]):  # whole rows of D, which indices for all sentences at once would not copy
            kept = old[:, row, :, : self._used] if slots is None else old[:, row].take(slots[row], axis=2)
            self._past[:, row, :, : self._used] = kept
        self._mask = np.full((*mask.shape[:3], room), -np.inf, np.float32)
        self._mask[..., : self._used] = mask
        if self._binding is not None:
            self._bind_past()

    def _bind(self, batch: int, group: int, count: int) -> None:
        layers, heads, width, entries = self._shape
        self._binding = self._session.io_binding()
        self._tokens = np.empty((batch, group), np.int64)
        self._position = np.empty((1, 1, self._positions.shape[1]), np.float32)
        self._penalty = np.zeros(entries, np.float32)
        self._count = np.array([count], np.int64)
        inputs: dict[str, NDArray[Any]] = {
            "tokens": self._tokens,
            "position": self._position,
            "source_mask": self._source_mask,
            "penalty": self._penalty,
            "count": self._count,
        }
        for layer in range(layers):
            for part, name in enumerate("kv"):
                inputs[f"source_{layer}_{name}"] = self._source[layer][part]
        self._new = np.empty((2 * layers, batch, heads, group, width), np.float32)
        self._log_probs = np.empty((batch, group, count), np.float32)
        self._best = np.empty((batch, group, count), np.int64)
        self._eos = np.empty((batch, group), np.float32)
        self._bind_inputs(inputs)
        self._bind_past()
        outputs: dict[str, NDArray[Any]] = {
            "new": self._new,
            "log_probs": self._log_probs,
            "best": self._best,
            "eos": self._eos,
        }
        for name, array in outputs.items():
            self._binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def _bind_past(self) -> None:
        inputs: dict[str, NDArray[Any]] = {"mask": self._mask}
        for layer in range(self._shape.layers):
            inputs |= {f"past_{layer}_{name}": self._past[2 * layer + part] for part, name in enumerate("kv")}
        self._bind_inputs(inputs)

    def _bind_inputs(self, inputs: dict[str, NDArray[Any]]) -> None:
        for name, array in inputs.items():
            self._binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
