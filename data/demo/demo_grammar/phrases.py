"""Random noun phrases and prepositional phrases."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

from .determiners import BARE, EVERY, INDEFINITE, NO, NUMERALS, OUR, OWN, SOME, THAT, THE, THIS, Determiner
from .features import ACCUSATIVE, DATIVE, PLURAL, SINGULAR
from .lexicon import Adjective, Noun
from .prepositions import (
    AT,
    BETWEEN,
    FROM,
    IN,
    NEAR_PLACE,
    ON,
    TO,
    TOWARDS,
    UNDER,
    WITH,
    WITHOUT,
    Preposition,
)
from .sampler import Draw, Words
from .trees import Coordination, NounPhrase, PrepositionalPhrase, Relative

# Probabilities of what a noun phrase may carry; the last four are multiplied by DEPTH at every level of nesting.
PLURAL_NOUN = 0.38
NUMERAL = 0.22  # of a plural
ADJECTIVE, SECOND_ADJECTIVE = 0.45, 0.15
NAME = 0.12  # a person is called by name
ANIMAL = 0.22  # a subject is an animal
POSSESSOR = 0.14
MODIFIER = 0.12
RELATIVE = 0.32
COORDINATION = 0.10
DEPTH = 0.5
LEAF = 9  # a depth at which nothing more is nested

Determiners = tuple[tuple[Determiner, float], ...]  # with weights
DEFINITE: Determiners = ((THE, 1.0),)
_SUBJECT_DETERMINERS: Determiners = ((THE, 70), (THIS, 6), (THAT, 6), (EVERY, 4), (SOME, 5), (OUR, 6), (NO, 3))
_SECOND_DETERMINERS: Determiners = ((THE, 8), (OUR, 2))
_PLACE_DETERMINERS: Determiners = ((THE, 80), (THIS, 6), (THAT, 4), (OUR, 5), (OWN, 5))

_TO_EVENT = Preposition("to", "na", ACCUSATIVE)
_TO_PERSON = Preposition("to", "k", DATIVE)


class Phrases(ABC):
    """Draws phrases; ``depth`` counts the levels of nesting above."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.words = Words(draw)

    @abstractmethod
    def relative(self, antecedent: NounPhrase, depth: int) -> Relative:
        """A relative clause that fits the antecedent."""

    def nested(self, probability: float, depth: int) -> bool:
        """Whether something is added that makes the sentence deeper."""
        return depth < LEAF and self.draw.chance(probability * DEPTH**depth)

    def plain(self, noun: Noun, determiners: Determiners = DEFINITE) -> NounPhrase:
        """Determiner or numeral, adjectives and noun."""
        number = PLURAL if self.draw.chance(PLURAL_NOUN) else SINGULAR
        determiner = self.draw.weighted(determiners)
        if determiner == EVERY:
            number = SINGULAR
        numeral = None
        if number == PLURAL and determiner in (THE, INDEFINITE) and self.draw.chance(NUMERAL):
            numeral = self.draw.weighted([(numeral, 1 / (rank + 3)) for rank, numeral in enumerate(NUMERALS)])
            determiner = BARE
        return NounPhrase(noun, number, determiner, numeral, self._adjectives(noun))

    def full(self, noun: Noun, depth: int, determiners: Determiners) -> NounPhrase:
        """A plain phrase, perhaps with a possessor, and with a prepositional phrase or a relative clause."""
        phrase = self.plain(noun, determiners)
        if phrase.determiner in (THE, INDEFINITE) and ("part" in noun.kinds or self.nested(POSSESSOR, depth)):
            possessor = self._possessor(noun)
            if possessor.noun != noun:
                phrase = replace(phrase, possessor=possessor, determiner=THE)
        if "person" in noun.kinds and self.nested(MODIFIER, depth):
            return replace(phrase, modifier=self._modifier())
        if phrase.determiner in (THE, INDEFINITE, BARE) and self.nested(RELATIVE, depth):
            relative = self.relative(phrase, depth + 1)
            return replace(phrase, relative=relative, determiner=BARE if phrase.numeral else THE)
        return phrase

    def _adjectives(self, noun: Noun) -> tuple[Adjective, ...]:
        if not self.draw.chance(ADJECTIVE):
            return ()
        first = self.words.adjective(noun)
        if not self.draw.chance(SECOND_ADJECTIVE):
            return (first,)
        second = self.words.adjective(noun)
        if second == first or (second.order and second.order == first.order):  # "small big", "Czech French"
            return (first,)
        return (second, first) if second.order < first.order else (first, second)

    def name(self) -> NounPhrase:
        """A person by name."""
        return NounPhrase(self.words.person_name(), determiner=BARE)

    def _possessor(self, noun: Noun) -> NounPhrase:
        """Of a part the whole, of anything else a person."""
        if "part" in noun.kinds:
            return self.plain(self.words.noun("building", "vehicle"))
        return self.name() if self.draw.chance(0.35) else self.plain(self.words.noun("person"))

    def _modifier(self) -> PrepositionalPhrase:
        """What tells one person from another: "from Prague", "with the umbrella", "near the river"."""
        kind = self.draw.weighted((("city", 3), ("with", 3), ("without", 1), ("near", 3)))
        if kind == "city":
            return PrepositionalPhrase(FROM, NounPhrase(self.words.city(), determiner=BARE))
        if kind == "near":
            return self._near(_PLACE_DETERMINERS[:-1])
        return PrepositionalPhrase(WITH if kind == "with" else WITHOUT, self.plain(self.words.noun("wear")))

    def place(self, own: bool = False) -> PrepositionalPhrase:
        """Where something happens; ``own``: it may belong to the subject ("in his garden")."""
        determiners = _PLACE_DETERMINERS if own else _PLACE_DETERMINERS[:-1]
        kind = self.draw.weighted((("in", 38), ("on", 18), ("at", 14), ("city", 12), ("near", 26)))
        if kind == "city":
            return PrepositionalPhrase(IN, NounPhrase(self.words.city(), determiner=BARE))
        if kind == "near":
            return self._near(determiners)
        preposition = {"in": IN, "on": ON, "at": AT}[kind]
        return PrepositionalPhrase(preposition, self.plain(self.words.noun(kind), determiners))

    def _near(self, determiners: Determiners) -> PrepositionalPhrase:
        """Near, behind, under ... something, or between two things."""
        if self.draw.chance(0.12):
            return PrepositionalPhrase(UNDER, self.plain(self.words.noun("under"), determiners))
        first = self.plain(self.words.noun("landmark", "building"), determiners)
        if self.draw.chance(0.1):
            second = self.plain(self.words.noun("landmark", "building"), determiners)
            if second.noun != first.noun:
                return PrepositionalPhrase(BETWEEN, Coordination(first, second))
        return PrepositionalPhrase(self.draw.weighted([(p, 1 / (i + 1)) for i, p in enumerate(NEAR_PLACE)]), first)

    def goal(self) -> PrepositionalPhrase:
        """Where somebody goes; Czech has a preposition for each kind of goal."""
        kind = self.draw.weighted((("in", 4), ("city", 2), ("at", 2), ("person", 1.5), ("landmark", 1.5)))
        if kind == "city":
            return PrepositionalPhrase(TO, NounPhrase(self.words.city(), determiner=BARE))
        preposition = {"in": TO, "at": _TO_EVENT, "person": _TO_PERSON, "landmark": TOWARDS}[kind]
        return PrepositionalPhrase(preposition, self.plain(self.words.noun(kind)))

    def subject(self, depth: int) -> NounPhrase | Coordination:
        """A person or an animal, or two."""
        first = self.name() if self.draw.chance(NAME) else self.full(self._being(), depth, _SUBJECT_DETERMINERS)
        if first.relative or first.numeral or first.determiner in (NO, EVERY) or not self.nested(COORDINATION, depth):
            return first
        second = self.definite_subject(_SECOND_DETERMINERS)
        return first if second.noun == first.noun or second.numeral else Coordination(first, second)

    def definite_subject(self, determiners: Determiners = DEFINITE) -> NounPhrase:
        """A person or an animal with nothing nested."""
        return self.name() if self.draw.chance(NAME) else self.plain(self._being(), determiners)

    def _being(self) -> Noun:
        return self.words.noun("animal" if self.draw.chance(ANIMAL) else "person")
