"""Random sentence trees. Everything random comes from ``Draw``, which uses nothing but ``random.Random.random``."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol, TypeVar

from . import lexicon
from .lexicon import Adjective, Adverb, Noun, Verb

# Frequency of the r-th word of a table (from 0) is proportional to 1 / (r + ZIPF_OFFSET) ** ZIPF_EXPONENT. The exponent
# is a little over that of real text, so that the last words come a handful of times in ten thousand sentences.
ZIPF_EXPONENT = 1.25
ZIPF_OFFSET = 2.5


class Ranked(Protocol):
    """Anything with a place in its table."""

    @property
    def rank(self) -> int:
        """0 is the most frequent."""
        ...


Entry = TypeVar("Entry", bound=Ranked)
Item = TypeVar("Item")


class Draw:
    """Draws words and choices; the same seed gives the same sequence on every Python.

    Args:
        words: of how many words each word is chosen, the most frequent that fit; None: of all that fit.
    """

    def __init__(self, seed: int, words: int | None = None) -> None:
        self._random = random.Random(seed).random
        self._words = words
        self._tables: dict[object, tuple[Sequence[Ranked], list[float]]] = {}

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return self._random() < probability

    def weighted(self, choices: Sequence[tuple[Item, float]]) -> Item:
        """One of the items, by their weights."""
        point = self._random() * sum(weight for _, weight in choices)
        for item, weight in choices:
            point -= weight
            if point < 0:
                return item
        return choices[-1][0]

    def ranked(self, key: object, entries: Sequence[Entry]) -> Entry:
        """One of the entries by the Zipf law of their ranks; ``key`` names the table, for its weights to be kept."""
        if key not in self._tables:
            if self._words is not None:
                entries = sorted(entries, key=lambda entry: entry.rank)[: self._words]
            weights = [1.0 / (entry.rank + ZIPF_OFFSET) ** ZIPF_EXPONENT for entry in entries]
            self._tables[key] = (entries, list(accumulate(weights)))
        entries, sums = self._tables[key]  # type: ignore[assignment]
        return entries[min(bisect_right(sums, self._random() * sums[-1]), len(entries) - 1)]


class Words:
    """Draws words of the lexicon by what they mean."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._pools: dict[object, tuple[Ranked, ...]] = {}

    def noun(self, *kinds: str) -> Noun:
        """A noun (no name) of one of these kinds."""
        key = ("noun", kinds)
        if key not in self._pools:
            self._pools[key] = tuple(n for n in lexicon.NOUNS if n.kinds.intersection(kinds))
        return self._draw.ranked(key, self._pools[key])  # type: ignore[return-value]

    def adjective(self, noun: Noun, comparative: bool = False) -> Adjective:
        """An adjective that goes with the noun; ``comparative``: one that has a comparative."""
        kinds = noun.kinds | {"being" if noun.kinds & {"person", "animal"} else "object"}
        key = ("adjective", tuple(sorted(kinds)), comparative)
        if key not in self._pools:
            fitting = (a for a in lexicon.ADJECTIVES if a.kinds & kinds and (a.comparative or not comparative))
            self._pools[key] = tuple(fitting)
        return self._draw.ranked(key, self._pools[key])  # type: ignore[return-value]

    def verb(self, subject: str, frames: tuple[str, ...], only: frozenset[str] = frozenset()) -> Verb:
        """A verb with a subject of that kind and one of the frames, and an object of one of the kinds ``only``."""
        key = ("verb", subject, frames, tuple(sorted(only)))
        if key not in self._pools:
            fitting = (v for v in lexicon.VERBS if subject in v.subjects and v.frame in frames)
            self._pools[key] = tuple(v for v in fitting if not only or v.objects & only)
        return self._draw.ranked(key, self._pools[key])  # type: ignore[return-value]

    def person_name(self) -> Noun:
        """A name of a person."""
        return self._draw.ranked("people", lexicon.PEOPLE)

    def city(self) -> Noun:
        """A name of a place."""
        return self._draw.ranked("cities", lexicon.CITIES)

    def adverb(self, table: str) -> Adverb:
        """An adverb of that table."""
        return self._draw.ranked(table, lexicon.ADVERBS[table])
