"""Decoding steps of a beam that the graph of :mod:`fairseq_compress.export.onnx.beam` makes many at a time.

The graph chooses as ``beam_search`` does, which afterwards reads the candidates of each step and keeps the books. Its
choice is that of the graph, so nothing of it is passed back.
"""

import numpy as np

from fairseq_compress.decoding.beam_search import Candidates, Choice, Floats, Ints
from fairseq_compress.runtimes.onnx.loop import Arrays, SearchLoop

FIELDS = ("all_scores", "candidates", "parents", "eos")


class LoopSteps:
    """See :class:`fairseq_compress.decoding.beam_search.Steps`; it forbids no pairs.

    Args:
        min_len: the first step in which EOS is allowed.
        entries: of the dictionary.
        outputs: of the graph.
    """

    def __init__(self, loop: SearchLoop, beam: int, min_len: int, entries: int, outputs: int) -> None:
        self._loop, self._beam, self._min_len, self._outputs = loop, beam, min_len, outputs
        self._count = min(2 * beam, entries - 1)
        self._found: Arrays = {"eos": np.zeros((0, 0))}
        self._at = 0  # the step that is read next

    def candidates(self, tokens: Ints, scores: Floats, choice: Choice) -> Candidates:
        if self._at == len(self._found["eos"]):
            self._run(choice.penalties)
        at = self._at
        self._at += 1
        return Candidates(*(self._found[name][at] for name in FIELDS))

    def reorder(self, parents: Ints) -> None:
        pass

    def keep(self, rows: Ints) -> None:
        self._found = {name: values[self._at :].take(rows, axis=1) for name, values in self._found.items()}
        self._at = 0
        self._loop.keep(rows)

    def _run(self, penalties: dict[int, float]) -> None:
        penalty, group, batch = np.zeros(self._outputs, np.float32), self._loop.group, len(self._loop.longest)
        for token, value in penalties.items():
            penalty[token] = -value
        every = group * self._count
        self._found, self._at = self._loop.run(
            self._min_len, penalty, count=np.array([self._count]), width=np.array([min(2 * self._beam, every)]),
            hypotheses=np.array([self._beam]), by_sentence=np.array([-1, every]),
            first=np.arange(0, batch * group, group)[:, None],
            own=np.tile(np.arange(group, dtype=np.int32), batch)[:, None],
        ), 0  # fmt: skip
