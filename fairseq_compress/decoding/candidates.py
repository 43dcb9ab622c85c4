"""The best candidates of each sentence, from the best tokens after each hypothesis that a graph computes."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fairseq_compress.decoding.beam_search import Candidates, Choice, Floats, Ints, pick

BANNED_AT_ONCE = 8  # tokens that replace those of repeated n-grams are requested in multiples of it


class Best(NamedTuple):
    """The best tokens after each hypothesis, ``(B, G, K)``, best first, and EOS, ``(B, G)``."""

    lprobs: Floats
    tokens: Ints
    eos: Floats


def candidates(best: Callable[[int], Best], scores: Floats, choice: Choice, most: int) -> Candidates:
    """The candidates of a step.

    Args:
        best: computes the step and returns a number of tokens after each hypothesis; is called once.
        scores: of the hypotheses, ``(B, G)``.
        most: the largest number that it accepts.
    """
    count = min(choice.most, most)
    hypotheses, forbidden = choice.repeated
    if len(hypotheses):
        more = -(-int(np.bincount(hypotheses).max()) // BANNED_AT_ONCE) * BANNED_AT_ONCE
        found = _without(best(min(count + more, most)), hypotheses, forbidden, count)
    else:
        found = best(count)
    batch, group, width = found.tokens.shape
    sums = (found.lprobs + scores[:, :, None]).reshape(batch, group * width)
    tokens = found.tokens.reshape(batch, group * width)
    if group == 1:
        return Candidates(sums, tokens, np.zeros((batch, width), np.int64), found.eos)
    order = np.argsort(-sums, axis=1, kind="stable")[:, : choice.most]
    return Candidates(pick(sums, order), pick(tokens, order), order // width, found.eos)


def _without(best: Best, hypotheses: Ints, forbidden: Ints, count: int) -> Best:
    """The first ``count`` tokens without the forbidden pairs."""
    batch, group, width = best.tokens.shape
    tokens = best.tokens.reshape(batch * group, width)
    banned = np.zeros(tokens.shape, np.bool_)
    np.logical_or.at(banned, hypotheses, tokens[hypotheses] == forbidden[:, None])
    lprobs = np.where(banned, np.float32(-np.inf), best.lprobs.reshape(banned.shape))
    order = np.argsort(banned, axis=1, kind="stable")[:, :count]
    shape = (batch, group, -1)
    return Best(pick(lprobs, order).reshape(shape), pick(tokens, order).reshape(shape), best.eos)
