"""Beam search in numpy over any model that makes decoding steps: the hypotheses and scores of fairseq's generator.

In each step a sentence has G hypotheses (1 at first, then ``beam``) with cumulated log-probabilities s; its candidates
are the 2·beam best of s + log p(token) over all hypotheses and tokens. A candidate that ends in EOS and is among the
first ``beam`` is a finished hypothesis with the score s / length**lenpen, where the length counts EOS; the first
``beam`` others go on. A sentence is done with ``beam`` finished hypotheses, or at its greatest length, where EOS is
forced. Work in Python is done once a step for the whole batch, never for a token or a hypothesis.

Shapes: B sentences that go on, G hypotheses of each, V entries of the dictionary.
"""

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fairseq_compress.decoding.repeated_ngrams import History
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.errors import DataError

BANNED_AT_ONCE = 8  # tokens asked for in place of those that repeat an n-gram come in such numbers
SHRINK_BELOW = 0.8  # finished sentences leave the batch when they are more than a fifth of it
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class Symbols(NamedTuple):
    """Ids of the special entries of a dictionary."""

    pad: int
    eos: int
    unk: int


class Best(NamedTuple):
    """The best tokens after each hypothesis, ``(B, G, K)``, best first, and EOS by itself, ``(B, G)``."""

    log_probs: Floats
    tokens: Ints
    eos: Floats


class Steps(Protocol):
    """A batch in the middle of decoding."""

    def best(self, tokens: Ints, penalty: Floats, count: int) -> Best:
        """Go on by the last tokens ``(B, G)``; the ``count`` greatest of log p + penalty ``(V,)``, and log p of EOS."""

    def reorder(self, parents: Ints) -> None:
        """Let the new hypotheses continue the hypotheses ``parents`` ``(B, beam)`` of their sentence."""

    def keep(self, rows: Ints) -> None:
        """Go on with the sentences ``rows`` only."""


class Found(NamedTuple):
    """A hypothesis."""

    score: float
    """Log-probability / (tokens + 1)**lenpen, in nats."""
    tokens: list[int]
    """Without EOS."""


def pick(values: NDArray[Any], index: Ints) -> NDArray[Any]:
    """``values[b, index[b, i]]`` for all b and i; ``numpy.take_along_axis`` does the same in three times the time."""
    return values[np.arange(len(index))[:, None], index]


class _Candidates(NamedTuple):
    """Continuations of the hypotheses of each sentence, best first; each field is ``(B, k)``."""

    scores: Floats
    tokens: Ints
    parents: Ints


def beam_search(
    steps: Steps, longest: Ints, options: SearchOptions, symbols: Symbols, entries: int
) -> list[list[Found]]:
    """Decode a batch.

    Args:
        longest: the most tokens of each sentence's translation, EOS not counted, ``(B,)``.
        entries: V.

    Returns:
        for each sentence its hypotheses, best first: ``beam`` of them, fewer if the greatest length cut it short.

    Raises:
        DataError: the model gives NaN.
    """
    beam = options.beam
    book, history = _Book(longest, options), History(len(longest), options.no_repeat_ngram_size)
    tokens = np.full((len(longest), 1), symbols.eos)
    scores = np.zeros((len(longest), 1), np.float32)
    penalty = np.zeros(entries, np.float32)
    penalty[symbols.pad] = -np.inf
    penalty[symbols.unk] -= options.unkpen
    for step in range(int(longest.max()) + 1):
        penalty[symbols.eos] = -np.inf if step < options.min_len else 0.0
        best = _best(steps, tokens, penalty, min(2 * beam, entries - 1), history.repeating())
        if np.isnan(best.eos).any():
            raise DataError("the model gives NaN: its weights are damaged, or its quantization is too coarse for it")
        found = _candidates(best, scores, 2 * beam, symbols.eos, book.longest == step)
        ends = (found.tokens == symbols.eos) & (found.scores != -np.inf)
        unfinished = book.finish(found, ends, step)
        if not unfinished.any():
            break
        # the first `beam` that do not end, in their order
        active = np.argsort(ends, axis=1, kind="stable")[:, :beam]
        tokens, parents, scores = (pick(part, active) for part in (found.tokens, found.parents, found.scores))
        book.go_on(tokens, parents)
        history.go_on(tokens, parents)
        steps.reorder(parents)
        if unfinished.sum() < SHRINK_BELOW * len(unfinished):
            rows = np.flatnonzero(unfinished)
            for part in (book, history, steps):
                part.keep(rows)
            tokens, scores = tokens[rows], scores[rows]
    return book.read()


def _best(steps: Steps, tokens: Ints, penalty: Floats, count: int, repeating: tuple[Ints, Ints]) -> Best:
    """The best tokens but for those that repeat an n-gram: hypotheses, and a token each."""
    hypotheses, forbidden = repeating
    if not len(hypotheses):
        return steps.best(tokens, penalty, count)
    most = -(-int(np.bincount(hypotheses).max()) // BANNED_AT_ONCE) * BANNED_AT_ONCE
    best = steps.best(tokens, penalty, min(count + most, len(penalty) - 1))
    batch, group, width = best.tokens.shape
    banned = np.zeros((batch * group, width), np.bool_)
    np.logical_or.at(banned, hypotheses, best.tokens.reshape(banned.shape)[hypotheses] == forbidden[:, None])
    log_probs = np.where(banned, np.float32(-np.inf), best.log_probs.reshape(banned.shape))
    order = np.argsort(banned, axis=1, kind="stable")[:, :count]
    shape = (batch, group, order.shape[1])
    return Best(
        pick(log_probs, order).reshape(shape), pick(best.tokens.reshape(banned.shape), order).reshape(shape), best.eos
    )


def _candidates(best: Best, scores: Floats, count: int, eos: int, forced: NDArray[np.bool_]) -> _Candidates:
    batch, group, width = best.tokens.shape
    sums = (best.log_probs + scores[:, :, None]).reshape(batch, group * width)
    tokens = best.tokens.reshape(batch, group * width)
    if group == 1:
        found = _Candidates(sums[:, :count], tokens[:, :count], np.zeros((batch, min(count, width)), np.int64))
    else:
        order = np.argsort(-sums, axis=1, kind="stable")[:, :count]
        found = _Candidates(pick(sums, order), pick(tokens, order), order // width)
    if forced.any():
        ended = best.eos + scores
        order = np.argsort(-ended[forced], axis=1, kind="stable")
        found.scores[forced] = -np.inf
        found.tokens[forced] = eos
        found.scores[forced, :group] = pick(ended[forced], order)
        found.parents[forced, :group] = order
    return found


class _Book:
    """What a batch has decoded: tokens and parents of every step, and the hypotheses that are finished.

    Tokens are kept with back pointers, so a step writes one number for each hypothesis; rows are those of the whole
    batch, whichever sentences still go on.
    """

    def __init__(self, longest: Ints, options: SearchOptions) -> None:
        self._options = options
        self.longest = longest  # of the sentences that go on
        batch = len(longest)
        self._rows = np.arange(batch)
        self._counts = np.zeros(batch, np.int64)  # their finished hypotheses
        self._tokens: list[Ints] = []  # for each step (B, beam)
        self._parents: list[Ints] = []
        self._scores = np.full((batch, options.beam), -np.inf, np.float32)  # of finished hypotheses
        self._steps = np.zeros((batch, options.beam), np.int64)  # in which they ended
        self._last = np.zeros((batch, options.beam), np.int64)  # the hypothesis of the step before that they continue

    def finish(self, found: _Candidates, ends: NDArray[np.bool_], step: int) -> NDArray[np.bool_]:
        """Take those of the first ``beam`` candidates that end; which sentences are not done?"""
        beam = self._options.beam
        ends = ends[:, :beam] & (self.longest >= step)[:, None]
        if ends.any():
            places = self._counts[:, None] + ends.cumsum(1) - 1
            row, column = np.nonzero(ends & (places < beam))
            where = (self._rows[row], places[row, column])
            self._scores[where] = found.scores[row, column] / np.float32((step + 1) ** self._options.lenpen)
            self._steps[where] = step
            self._last[where] = found.parents[row, column]
            self._counts += np.bincount(row, minlength=len(self._counts))
        return (self._counts < beam) & (self.longest > step)

    def go_on(self, tokens: Ints, parents: Ints) -> None:
        """Note a step of the hypotheses that go on, ``(B, beam)``."""
        for history, values in ((self._tokens, tokens), (self._parents, parents)):
            if len(values) < len(self._last):
                whole = np.zeros_like(self._last)
                whole[self._rows] = values
                values = whole
            history.append(values)

    def keep(self, rows: Ints) -> None:
        """Go on with the sentences ``rows`` of those that went on so far."""
        self._rows, self._counts, self.longest = self._rows[rows], self._counts[rows], self.longest[rows]

    def read(self) -> list[list[Found]]:
        """The finished hypotheses, best first."""
        order = np.argsort(-self._scores, axis=1, kind="stable")
        scores, steps, last = (pick(part, order) for part in (self._scores, self._steps, self._last))
        table = np.zeros((*last.shape, len(self._tokens)), np.int64)
        for step in reversed(range(len(self._tokens))):
            table[:, :, step] = pick(self._tokens[step], last)
            last = np.where(steps > step, pick(self._parents[step], last), last)
        return [
            [Found(score, ids[:length]) for ids, length, score in zip(*sentence, strict=True) if score > -np.inf]
            for sentence in zip(table.tolist(), steps.tolist(), scores.tolist(), strict=True)
        ]
