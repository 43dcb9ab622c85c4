"""A search with a beam of one by the graph of :mod:`fairseq_compress.export.onnx.greedy`.

Results are those of ``beam_search`` over the graph of a step, bit for bit.
"""

import numpy as np
from numpy.typing import NDArray

from fairseq_compress.decoding.beam_search import NAN, Floats, Symbols
from fairseq_compress.decoding.hypothesis import Hypothesis
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.errors import DataError
from fairseq_compress.runtimes.onnx.loop import Arrays, SearchLoop


def greedy_search(
    loop: SearchLoop, options: SearchOptions, symbols: Symbols, entries: int
) -> list[list[Hypothesis[list[int]]]]:
    """The best hypothesis of each sentence; see :func:`fairseq_compress.decoding.beam_search.beam_search`.

    Args:
        entries: of the output of the graph.
    """
    penalty = np.zeros(entries, np.float32)
    penalty[symbols.pad], penalty[symbols.unk] = -np.inf, -options.unkpen
    rows = np.arange(len(loop.longest))  # of the sentences that go on
    found: list[list[Hypothesis[list[int]]]] = [[] for _ in rows]
    sums, tokens = np.zeros(len(rows), np.float32), np.zeros((0, len(rows)), np.int64)
    while len(rows):
        step = len(tokens)
        penalty[symbols.eos] = -np.inf if step < options.min_len else 0
        decoded = loop.run(options.min_len, penalty, open=np.ones((len(rows), 1), np.int64))
        decoded = {name: values[:, :, 0] for name, values in decoded.items()}
        if np.isnan(decoded["eos"]).any():
            raise DataError(NAN)
        tokens = np.concatenate([tokens, decoded["best"]])
        scores, ends = _scores(decoded, sums, loop.longest == loop.step - 1, symbols.eos)
        first = ends.argmax(axis=0)
        for row in np.flatnonzero(ends.any(axis=0)):
            length = step + int(first[row])
            score = float(scores[first[row], row] / np.float32((length + 1) ** options.lenpen))
            found[rows[row]] = [Hypothesis(score, tokens[:length, row].tolist())] * (score > -np.inf)
        left = np.flatnonzero(~ends.any(axis=0))
        if 0 < len(left) < len(rows):
            loop.keep(left)
        rows, sums, tokens = rows[left], scores[-1, left], tokens[:, left]
    return found


def _scores(decoded: Arrays, sums: Floats, forced: NDArray[np.bool_], eos: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Cumulated log-probabilities after each step, and where EOS is; ``forced`` sentences have it in the last step."""
    lprobs, ends = decoded["log_probs"].copy(), decoded["best"] == eos
    lprobs[-1, forced], ends[-1, forced] = decoded["eos"][-1, forced], True
    return np.cumsum(np.concatenate([sums[None], lprobs]), axis=0)[1:], ends
