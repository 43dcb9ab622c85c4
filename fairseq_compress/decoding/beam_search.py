"""Beam search over any model that makes decoding steps: the hypotheses and scores of fairseq's ``SequenceGenerator``.

In each step a sentence has G hypotheses (1 at first, then ``beam``) with cumulated log-probabilities s. Its candidates
are the 2·beam best of s + log p(token) over all hypotheses and tokens. A candidate that ends in EOS and is among the
first ``beam`` is a finished hypothesis with the score s / length**lenpen, where the length counts EOS; the first
``beam`` others continue. A sentence is done with ``beam`` finished hypotheses, or at its maximum length, where EOS is
forced. The model computes the candidates; the rest is numpy on small arrays, once a step for the whole batch.

Shapes: B sentences in the batch, G hypotheses of each, K candidates of a sentence.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fairseq_compress.decoding.hypothesis import Hypothesis
from fairseq_compress.decoding.repeated_ngrams import History
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.errors import DataError

SHRINK_BELOW = 0.8  # finished sentences leave the batch when they are more than a fifth of it
NAN = "the model gives NaN: its weights are damaged, or its precision is too low for it"
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Symbols:
    """Ids of the special entries of a dictionary."""

    pad: int
    eos: int
    unk: int


class Choice(NamedTuple):
    """Which tokens may continue the hypotheses in a step."""

    most: int  # candidates of a sentence, K; a model may return fewer
    penalties: dict[int, float]  # subtracted from the log-probability of a token; inf forbids it
    repeated: tuple[Ints, Ints]
    """Forbidden pairs: numbers of hypotheses, ``b * G + g``, and tokens that would repeat an n-gram."""


class Candidates(NamedTuple):
    """The best continuations of each sentence, best first."""

    scores: Floats  # cumulated log-probabilities, (B, K)
    tokens: Ints
    parents: Ints  # the hypotheses that they continue, numbered within the sentence
    eos: Floats  # log-probability of EOS after each hypothesis, without penalties, (B, G)


class Steps(Protocol):
    """A batch of encoded sentences in the middle of decoding."""

    def candidates(self, tokens: Ints, scores: Floats, choice: Choice) -> Candidates:
        """Append the last tokens ``(B, G)`` to hypotheses with cumulated ``scores (B, G)``; return what continues."""

    def reorder(self, parents: Ints) -> None:
        """Let the new hypotheses continue the hypotheses ``parents (B, beam)`` of their sentence."""

    def keep(self, rows: Ints) -> None:
        """Continue with the sentences ``rows`` only."""


def pick(values: NDArray[Any], index: Ints) -> NDArray[Any]:
    """``values[b, index[b, i]]`` for all b and i; ``numpy.take_along_axis`` does the same in three times the time."""
    return values[np.arange(len(index))[:, None], index]


def beam_search(
    steps: Steps, longest: Ints, options: SearchOptions, symbols: Symbols
) -> list[list[Hypothesis[list[int]]]]:
    """Decode a batch: at most ``beam`` hypotheses of each sentence, best first.

    Args:
        longest: maximum length of each translation, EOS not counted, ``(B,)``.
    """
    beam = options.beam
    book, history = _Book(longest, options), History(len(longest), options.no_repeat_ngram_size)
    tokens = np.full((len(longest), 1), symbols.eos)
    scores = np.zeros((len(longest), 1), np.float32)
    penalties = {symbols.pad: np.inf, symbols.unk: options.unkpen}
    for step in range(int(longest.max()) + 1):
        penalties[symbols.eos] = np.inf if step < options.min_len else 0.0
        found = steps.candidates(tokens, scores, Choice(2 * beam, penalties, history.repeating()))
        if np.count_nonzero(np.isnan(found.eos)):  # on small arrays ten times as fast as any()
            raise DataError(NAN)
        _force_eos(found, scores, symbols.eos, book.longest == step)
        ends = (found.tokens == symbols.eos) & (found.scores != -np.inf)
        unfinished = book.finish(found, ends, step)
        left = np.count_nonzero(unfinished)
        if left == 0:
            break
        scores, tokens, parents = _continuing(found, ends, beam)
        book.append(tokens, parents)
        history.append(tokens, parents)
        steps.reorder(parents)
        if left < SHRINK_BELOW * len(unfinished):
            rows = np.flatnonzero(unfinished)
            for part in (book, history, steps):
                part.keep(rows)
            tokens, scores = tokens[rows], scores[rows]
    return book.hypotheses()


def _continuing(found: Candidates, ends: NDArray[np.bool_], beam: int) -> tuple[Floats, Ints, Ints]:
    """Scores, tokens and parents of the first ``beam`` candidates of each sentence that do not end, in their order."""
    if not np.count_nonzero(ends[:, :beam]):  # copied, as a model may use its memory again
        return found.scores[:, :beam].copy(), found.tokens[:, :beam].copy(), found.parents[:, :beam].copy()
    active = np.argsort(ends, axis=1, kind="stable")[:, :beam]
    return pick(found.scores, active), pick(found.tokens, active), pick(found.parents, active)


def _force_eos(found: Candidates, scores: Floats, eos: int, rows: NDArray[np.bool_]) -> None:
    """Let every hypothesis of the sentences ``rows`` end, in place."""
    if not np.count_nonzero(rows):
        return
    ended = (found.eos + scores)[rows]
    order, group = np.argsort(-ended, axis=1, kind="stable"), scores.shape[1]
    found.scores[rows] = -np.inf
    found.tokens[rows] = eos
    found.scores[rows, :group] = pick(ended, order)
    found.parents[rows, :group] = order


class _Book:
    """Tokens and back pointers of every step of a batch, and its finished hypotheses.

    Rows are those of the whole batch, whichever sentences continue.
    """

    def __init__(self, longest: Ints, options: SearchOptions) -> None:
        self._options = options
        self.longest = longest  # of the sentences that continue
        batch = len(longest)
        self._rows = np.arange(batch)
        self._counts = np.zeros(batch, np.int64)  # their finished hypotheses
        self._tokens: list[Ints] = []  # for each step (B, beam)
        self._parents: list[Ints] = []
        self._scores = np.full((batch, options.beam), -np.inf, np.float32)  # of finished hypotheses
        self._steps = np.zeros((batch, options.beam), np.int64)  # in which they ended
        self._last = np.zeros((batch, options.beam), np.int64)  # the hypothesis of the step before that they continue

    def finish(self, found: Candidates, ends: NDArray[np.bool_], step: int) -> NDArray[np.bool_]:
        """Store those of the first ``beam`` candidates that end; return which sentences are not done."""
        beam = self._options.beam
        ends = ends[:, :beam] & (self.longest >= step)[:, None]
        if np.count_nonzero(ends):
            places = self._counts[:, None] + ends.cumsum(1) - 1
            row, column = np.nonzero(ends & (places < beam))
            where = (self._rows[row], places[row, column])
            self._scores[where] = found.scores[row, column] / np.float32((step + 1) ** self._options.lenpen)
            self._steps[where] = step
            self._last[where] = found.parents[row, column]
            self._counts += np.bincount(row, minlength=len(self._counts))
        return (self._counts < beam) & (self.longest > step)

    def append(self, tokens: Ints, parents: Ints) -> None:
        """Store a step of the hypotheses that continue, ``(B, beam)``."""
        for history, values in ((self._tokens, tokens), (self._parents, parents)):
            if len(values) < len(self._last):
                whole = np.zeros_like(self._last)
                whole[self._rows] = values
                values = whole
            history.append(values)

    def keep(self, rows: Ints) -> None:
        self._rows, self._counts, self.longest = self._rows[rows], self._counts[rows], self.longest[rows]

    def hypotheses(self) -> list[list[Hypothesis[list[int]]]]:
        """The finished hypotheses, best first."""
        order = np.argsort(-self._scores, axis=1, kind="stable")
        scores, steps, last = (pick(part, order) for part in (self._scores, self._steps, self._last))
        table = np.zeros((*last.shape, len(self._tokens)), np.int64)
        for step in reversed(range(len(self._tokens))):
            table[:, :, step] = pick(self._tokens[step], last)
            last = np.where(steps > step, pick(self._parents[step], last), last)
        return [
            [Hypothesis(score, ids[:length]) for ids, length, score in zip(*sentence, strict=True) if score > -np.inf]
            for sentence in zip(table.tolist(), steps.tolist(), scores.tolist(), strict=True)
        ]
