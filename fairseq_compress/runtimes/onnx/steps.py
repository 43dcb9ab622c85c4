"""Decoding steps of an exported model in ONNX Runtime.

The session is bound to the memory of keys and values, into which a step writes those of its tokens in place. When the
beam is reordered, they are not copied: ``path[b, g, t]`` is the row of sentence b with the keys and values of step t of
hypothesis g. Other states, of a constant size, are written to memory of their own and copied in the new order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_compress.decoding.beam_search import Candidates, Choice, Floats, Ints, pick
from fairseq_compress.decoding.candidates import Best, candidates
from fairseq_compress.options import option
from fairseq_compress.runtimes.onnx.chosen import Entries

STEPS_AT_FIRST = 32  # for which there is room; it doubles when they are over


@dataclass(frozen=True)
class State:
    """What a step keeps of each hypothesis in ``state_NAME (B G, width)``, zeros before the first step."""

    name: str
    width: int = option(range="[1, inf)")


@dataclass(frozen=True)
class Shape:
    """Shape of a decoder."""

    layers: int
    heads: Any  # H of self-attention: a number, or one of each layer where they differ; 0 if it keeps no keys
    head_width: Any  # D, likewise
    entries: int  # of the dictionary and the padding of the output
    states: tuple[State, ...] = ()
    attending: tuple[int, ...] | None = None
    """Numbers of the layers that attend to the source; None: all."""

    def problems(self) -> Iterator[str]:
        """A message for each damaged field."""
        for name in ("heads", "head_width"):
            sizes = self._of_layers(getattr(self, name))
            if len(sizes) != self.layers or not all(type(size) is int for size in sizes):
                yield f"{name}: must be a whole number or one of each layer, got {getattr(self, name)}"

    def caches(self) -> dict[int, tuple[int, int]]:
        """Number of a layer that keeps keys and values -> (H, D)."""
        sizes = zip(self._of_layers(self.heads), self._of_layers(self.head_width), strict=True)
        return {number: size for number, size in enumerate(sizes) if size[0]}

    def sources(self) -> tuple[int, ...]:
        """The layers that attend to the source."""
        return tuple(range(self.layers)) if self.attending is None else self.attending

    def _of_layers(self, size: Any) -> list[int]:
        return size if isinstance(size, list) else [size] * self.layers


class Encoded(NamedTuple):
    """Encoded sentences, as a decoder reads them."""

    layers: dict[int, Floats]
    """For each layer that attends to the source its keys and values, ``(2, B, H, S, D)``."""
    mask: NDArray[np.int32]
    """``(B, S)``, 1 for tokens, 0 for padding."""
    positions: Floats
    """Vectors of the decoding steps, ``(.., C)``."""
    chosen: Entries | None = None
    """The shortlists of the sentences, if the graph of a step requires them."""

    def take(self, rows: Ints) -> "Encoded":
        """The sentences ``rows``; contiguous, as bound memory must be."""
        layers = {number: part.take(rows, axis=1) for number, part in self.layers.items()}
        if self.chosen is not None:
            self.chosen.keep(rows)
        return Encoded(layers, self.mask.take(rows, axis=0), self.positions, self.chosen)

    def inputs(self) -> dict[str, NDArray[Any]]:
        """What a graph reads of the sentences."""
        layers = {
            f"source_{number}_{kv}": part[at] for number, part in self.layers.items() for at, kv in enumerate("kv")
        }
        return {"source_mask": self.mask, **layers}


class OnnxSteps:
    """See :class:`fairseq_compress.decoding.beam_search.Steps`.

    Args:
        session: of the graph of a step.
        entries: of the dictionary; the output of the graph may have more.
        language_tokens: those that the decoder reads behind its first input.
    """

    def __init__(
        self, session: Any, shape: Shape, entries: int, source: Encoded, language_tokens: Sequence[int] = ()
    ) -> None:
        self._session, self._shape, self._entries, self._source = session, shape, entries, source
        self._language_tokens = language_tokens
        batch, self._positions = len(source.mask), source.positions
        self._room = min(STEPS_AT_FIRST, len(self._positions))
        self._caches = list(shape.caches().items())
        self._past = self._empty(batch)
        self._states = [np.zeros((batch, state.width), np.float32) for state in shape.states]
        self._new_states = [np.empty_like(state) for state in self._states]
        self._path = np.zeros((batch, 1, self._room), np.int32)
        self._step = 0
        self._binding: Any = None

    def candidates(self, tokens: Ints, scores: Floats, choice: Choice) -> Candidates:
        most = self._entries if self._source.chosen is None else self._source.chosen.ids.shape[1]
        return candidates(lambda k: self._run(tokens, choice.penalties, k), scores, choice, most - 1)

    def _run(self, tokens: Ints, penalties: dict[int, float], count: int) -> Best:
        for language in self._language_tokens if self._step == 0 else ():
            self._append(tokens, penalties, count)
            self._renew_states(np.arange(tokens.size), resized=False)
            tokens = np.full_like(tokens, language)
        return self._append(tokens, penalties, count)

    def _append(self, tokens: Ints, penalties: dict[int, float], count: int) -> Best:
        if self._step == self._room:
            self._grow()
        if self._binding is None or count != self._constants[0]:
            self._bind(len(tokens), tokens.shape[1], count)
        np.copyto(self._tokens, tokens)
        np.copyto(self._position[0, 0], self._positions[self._step])
        for token, penalty in penalties.items():
            self._penalty[token] = -penalty
        self._number[0] = self._step
        self._path[:, :, self._step] = self._own
        self._session.run_with_iobinding(self._binding)
        self._step += 1
        return Best(self._lprobs, self._best, self._eos)

    def reorder(self, parents: Ints) -> None:
        batch, group = parents.shape
        former = self._path.shape[1]
        if self._states:
            self._renew_states((np.arange(batch)[:, None] * former + parents).ravel(), resized=group != former)
        if group != former:  # after the first step
            self._path = np.zeros((batch, group, self._path.shape[2]), np.int32)
            self._renew_past(batch * group, to=slice(None, None, group))
        elif group > 1:
            path = self._path[:, :, : self._step]
            path[...] = pick(path, parents)

    def keep(self, rows: Ints) -> None:
        group = self._path.shape[1]
        self._source = self._source.take(rows)
        self._path = self._path.take(rows, axis=0)
        hypotheses = (rows[:, None] * group + np.arange(group)).ravel()
        self._states = [state.take(hypotheses, axis=0) for state in self._states]
        self._new_states = [np.empty_like(state) for state in self._states]
        self._renew_past(len(hypotheses), chosen=hypotheses)

    def _renew_states(self, chosen: Ints, resized: bool) -> None:
        """Let the next step start from the ``chosen`` rows of the states of the last one."""
        if resized:
            self._states = [new.take(chosen, axis=0) for new in self._new_states]
            self._new_states = [np.empty_like(state) for state in self._states]
            self._binding = None
        else:
            for new, state in zip(self._new_states, self._states, strict=True):
                new.take(chosen, axis=0, out=state, mode="clip")  # the other modes copy twice

    def _empty(self, hypotheses: int) -> list[Floats]:
        """For each layer with them keys and values, ``(2, B G, H, P, D)`` with room for P steps."""
        sizes = ((2, hypotheses, heads, self._room, width) for _, (heads, width) in self._caches)
        return [np.empty(size, np.float32) for size in sizes]

    def _renew_past(self, hypotheses: int, to: slice = slice(None), chosen: Any = slice(None)) -> None:
        """Copy the ``chosen`` rows of the past to the rows ``to`` of new memory."""
        past, self._past = self._past, self._empty(hypotheses)
        for new, old in zip(self._past, past, strict=True):
            new[:, to, :, : self._step] = old[:, chosen, :, : self._step]
        self._binding = None

    def _grow(self) -> None:
        path = self._path
        self._room *= 2
        self._renew_past(path.shape[0] * path.shape[1])
        self._path = np.zeros((*path.shape[:2], self._room), np.int32)
        self._path[:, :, : self._step] = path

    def _bind(self, batch: int, group: int, count: int) -> None:
        self._binding = self._session.io_binding()
        self._tokens = np.empty((batch, group), np.int64)
        self._position = np.empty((1, 1, self._positions.shape[1]), np.float32)
        chosen = {} if self._source.chosen is None else self._source.chosen.inputs(group)
        self._penalty = np.zeros(self._shape.entries if not chosen else chosen["entries"].shape[1], np.float32)
        self._number = np.zeros(1, np.int32)
        self._own = np.arange(group, dtype=np.int32)
        self._constants = np.array([count], np.int64), np.array([group], np.int32)
        self._lprobs = np.empty((batch, group, count), np.float32)
        self._best = np.empty((batch, group, count), np.int64)
        self._eos = np.empty((batch, group), np.float32)
        inputs: dict[str, NDArray[Any]] = {
            "tokens": self._tokens, "position": self._position, "path": self._path, "penalty": self._penalty,
            "count": self._constants[0], "step": self._number, "beam": self._constants[1], **self._source.inputs(),
            **chosen,
        }  # fmt: skip
        outputs: dict[str, NDArray[Any]] = {"log_probs": self._lprobs, "best": self._best, "eos": self._eos}
        for place, (layer, _) in enumerate(self._caches):
            for part, name in enumerate("kv"):
                inputs[f"past_{layer}_{name}"] = outputs[f"new_{layer}_{name}"] = self._past[place][part]
        for state, old, new in zip(self._shape.states, self._states, self._new_states, strict=True):
            inputs[f"state_{state.name}"], outputs[f"new_state_{state.name}"] = old, new
        self._bound = inputs  # whose memory must stay
        for name, array in inputs.items():
            self._binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, array in outputs.items():
            self._binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
