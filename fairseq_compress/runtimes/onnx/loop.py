"""Graphs that make many decoding steps at a time (:mod:`fairseq_compress.export.onnx.loop`), as sessions of a batch.

A graph returns when only its caller can go on: when EOS becomes allowed, when enough sentences are finished to leave
the batch, when the room for keys and values is used up, and at the greatest length of a sentence.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_compress.decoding.beam_search import SHRINK_BELOW, Ints
from fairseq_compress.runtimes.onnx.steps import Encoded, Shape

NEW, PAST, PATH, FINISHED = "new_", "past_", "past_path", "finished"
ROOM = 16  # steps for which there is room at first; it doubles when they are over
# Hypotheses in a batch, up to which a loop is faster than single steps. It copies keys and values in each step; states
# are few, but with many hypotheses what it saves between steps is little, and each of them reserves memory again.
MOST, MOST_WITH_KEYS = 64, 8
Arrays = dict[str, NDArray[Any]]


def faster(shape: Shape, hypotheses: int) -> bool:
    """Whether a loop is faster than steps that it makes one at a time; the results are the same, bit for bit."""
    return hypotheses <= (MOST_WITH_KEYS if shape.caches() else MOST)


class SearchLoop:
    """A batch of encoded sentences in the middle of a search; ``longest (B,)`` are their greatest lengths.

    What a step leaves to the next has names with ``new_`` among the outputs. The first step has one hypothesis of each
    sentence, the others have ``beam``.
    """

    def __init__(self, session: Any, shape: Shape, source: Encoded, beam: int, longest: Ints, eos: int) -> None:
        batch = len(longest)
        self._session, self._source, self._beam, self.longest = session, source, beam, longest
        self.group, self.step = 1, 0
        self._inputs = [each.name for each in session.get_inputs()]
        self._outputs = [each.name for each in session.get_outputs()]
        self._room = min(ROOM, len(source.positions))
        self._carried: Arrays = {"tokens": np.full((batch, 1), eos)}
        for layer, (heads, width) in shape.caches().items():
            past = np.empty((2, batch, heads, self._room, width), np.float32)
            self._carried |= {f"{PAST}{layer}_k": past[0], f"{PAST}{layer}_v": past[1]}
        for state in shape.states:
            self._carried[f"state_{state.name}"] = np.zeros((batch, state.width), np.float32)
        if beam > 1:
            self._carried |= {"scores": np.zeros((batch, 1), np.float32), FINISHED: np.zeros((batch, 1), np.int64)}
        if beam > 1 and shape.caches():
            self._carried[PATH] = np.zeros((batch, self._room), np.int32)

    def run(self, min_len: int, penalty: NDArray[np.float32], **more: NDArray[Any]) -> Arrays:
        """Make steps and return the results of each, ``(T, ..)``; EOS becomes allowed in the step ``min_len``."""
        if self.step == self._room:
            self._grow()
        if FINISHED in self._carried:
            self._carried[FINISHED][self.longest < self.step] = self._beam
        batch = len(self.longest)
        feeds = self._source.inputs() | self._carried | more | {
            "most": np.array(self._last(min_len) - self.step), "step": np.array([self.step], np.int32),
            "least": np.array(math.ceil(SHRINK_BELOW * batch) - 1), "penalty": penalty,
            "positions": self._source.positions, "beam": np.array([self.group], np.int32),
            "columns": np.arange(self._room, dtype=np.int32), "path": np.zeros((batch, 1, self._room), np.int32),
        }  # fmt: skip
        outputs = self._session.run(self._outputs, {name: feeds[name] for name in self._inputs})
        found = dict(zip(self._outputs, outputs, strict=True))
        self.step = int(found[f"{NEW}step"][0])
        self._carried = {name: found[NEW + name.removeprefix(PAST)] for name in self._carried}
        if self.group < self._beam:
            self._widen()
        return {name: values for name, values in found.items() if not name.startswith(NEW)}

    def _last(self, min_len: int) -> int:
        """The step with which a run must end, not counted."""
        last = int(self.longest.min(initial=self._room, where=self.longest >= self.step)) + 1
        if self.step < min_len:
            last = min(last, min_len)
        return min(last, self._room if self.group == self._beam else 1)

    def _widen(self) -> None:
        """Let all hypotheses of a sentence continue its first; ``path`` tells so, the others need memory only."""
        self.group = self._beam
        for name, past in self._carried.items():
            if name.startswith(PAST) and name != PATH:
                self._carried[name] = np.empty((len(past) * self._beam, *past.shape[1:]), past.dtype)
                self._carried[name][:: self._beam] = past

    def keep(self, rows: Ints) -> None:
        """Continue with the sentences ``rows`` only."""
        batch = len(self.longest)
        self._source, self.longest = self._source.take(rows), self.longest[rows]
        for name, value in self._carried.items():
            chosen = value.reshape(batch, -1, *value.shape[1:]).take(rows, axis=0)
            self._carried[name] = chosen.reshape(-1, *value.shape[1:])

    def _grow(self) -> None:
        former, self._room = self._room, 2 * self._room
        for name, past in self._carried.items():
            if name.startswith(PAST):
                axis = 1 if name == PATH else 2
                more = np.zeros([former if at == axis else size for at, size in enumerate(past.shape)], past.dtype)
                self._carried[name] = np.concatenate([past, more], axis=axis)
