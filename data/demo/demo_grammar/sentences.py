"""Random sentences, and their text in both languages."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from . import czech, english, lexicon
from .clauses import FRAMES, Clauses, ends_in_relative, is_none, kind_of, may_negate
from .determiners import INDEFINITE, OUR, SOME, THAT, THE, THIS
from .features import FUTURE, PAST, PRESENT, PROGRESSIVE
from .phrases import Determiners
from .sampler import Draw
from .trees import (
    Clause,
    Existence,
    Gap,
    NounPhrase,
    Pronoun,
    Question,
    Report,
    Sentence,
    Somebody,
    Statement,
    Subject,
)

MIN_WORDS, MAX_WORDS = 2, 35  # of an English sentence; others are drawn again

# How often a sentence is of each kind.
KINDS = (
    ("simple", 38),
    ("thing", 7),
    ("coordinate", 11),
    ("subordinate", 17),
    ("report", 9),
    ("wish", 4),
    ("existence", 5),
    ("question", 9),
)
FRONTED, OPENING, TIME, FREQUENCY = 0.22, 0.06, 0.16, 0.25
SOMEBODY = 0.03
SHARED = 0.6  # two clauses with "and" have one subject, said once
PRONOUN = 0.6  # the second of two clauses has the subject of the first
TIME_TABLES = {PAST: "TIME_PAST", PROGRESSIVE: "TIME_PAST", PRESENT: "TIME_PRESENT", FUTURE: "TIME_FUTURE"}
CONJUNCTIONS = (("because", 5), ("although", 3), ("when", 5), ("before", 2), ("while", 2), ("if", 2))
_THING: Determiners = ((THE, 80), (THIS, 8), (THAT, 7), (OUR, 5))


class Pair(NamedTuple):
    """One sentence in both languages."""

    english: str
    czech: str


def text(words: list[str], mark: str) -> str:
    """Joins words: a capital first, commas after words and never two or before the last mark."""
    kept: list[str] = []
    for word in words:
        if word != ",":
            kept.append(word)
        elif kept and not kept[-1].endswith(","):
            kept[-1] += ","
    line = " ".join(kept).rstrip(",") + mark
    return line[0].upper() + line[1:]


def realize(sentence: Sentence) -> Pair:
    """The text of a tree in both languages."""
    mark = "?" if isinstance(sentence, Question) else "."
    return Pair(text(english.words_of(sentence), mark), text(czech.words_of(sentence), mark))


class Sentences(Clauses):
    """Draws sentences: the same seed gives the same sequence.

    Args:
        max_words: of an English sentence.
        choice: of how many words each word is chosen, as :class:`Draw`.
    """

    def __init__(self, seed: int, max_words: int = MAX_WORDS, choice: int | None = None) -> None:
        super().__init__(Draw(seed, choice))
        self._max_words = max_words
        self._kinds = {
            "simple": self._simple, "thing": self._thing, "coordinate": self._coordinate,
            "subordinate": self._subordinate, "report": self._report, "wish": self._wish,
            "existence": self._existence, "question": self._question,
        }  # fmt: skip

    def tree(self) -> Sentence:
        """The next tree."""
        return self._kinds[self.draw.weighted(KINDS)]()

    def pair(self) -> Pair:
        """The next pair of a good length."""
        while True:
            pair = realize(self.tree())
            if MIN_WORDS <= len(pair.english.split()) <= self._max_words:
                return pair

    def _adorned(self, clause: Clause, may_front: bool = True) -> Clause:
        """Perhaps an adverb of time or frequency, or a phrase that stands first."""
        time = self.words.adverb(TIME_TABLES[clause.tense])
        # The Czech verb before a long subject would be hard to follow.
        may_front = may_front and not (isinstance(clause.subject, NounPhrase) and clause.subject.relative)
        if may_front and self.draw.chance(FRONTED):
            place = clause.goal is None and clause.place is None and clause.adjective is None and self.draw.chance(0.5)
            return replace(clause, fronted=self.place() if place else time)
        if may_front and self.draw.chance(OPENING):
            return replace(clause, opening=self.words.adverb("SENTENCE"))
        plain_verb = clause.verb is not None and clause.modal is None
        negative = clause.negated or is_none(clause.subject) or is_none(clause.object)
        if clause.tense == PRESENT and plain_verb and not negative and self.draw.chance(FREQUENCY):
            return replace(clause, frequency=self.words.adverb("FREQUENCY"))
        if clause.adjective is None and not ends_in_relative(clause) and self.draw.chance(TIME):
            return replace(clause, time=time)
        return clause

    def _subject(self) -> Subject:
        if not self.draw.chance(SOMEBODY):
            return self.subject(0)
        return self.draw.weighted(((Somebody("somebody", "někdo"), 2), (Somebody("nobody", "nikdo", True), 1)))

    def _simple(self) -> Sentence:
        return Statement(self._adorned(self.clause(self._subject(), 0)))

    def _thing_subject(self) -> NounPhrase:
        return self.full(self.words.noun("building", "thing", "vehicle", "landmark", "text", "food", "part"), 0, _THING)

    def _thing(self) -> Sentence:
        return Statement(self.adjective_clause(self._thing_subject()))

    def _coordinate(self) -> Sentence:
        first = self.clause(self._subject(), 1)
        conjunction = self.draw.weighted((("and", 3), ("but", 2)))
        subject = first.subject
        sharable = isinstance(subject, NounPhrase) and not subject.numeral and not is_none(subject)
        if conjunction == "and" and sharable and not ends_in_relative(first) and self.draw.chance(SHARED):
            assert isinstance(subject, NounPhrase)
            return Statement(first, conjunction, self.clause(Gap(subject), 1, first.tense))
        return Statement(self._adorned(first, may_front=False), conjunction, self.clause(self.subject(1), 1))

    def _subordinate(self) -> Sentence:
        conjunction = self.draw.weighted(CONJUNCTIONS)
        tense = {"before": PAST, "while": PROGRESSIVE, "if": FUTURE}.get(conjunction, "")
        if conjunction == "when":
            tense = self.draw.weighted(((PAST, 0.7), (FUTURE, 0.3)))
        subject = self.subject(1)
        subordinate_first = conjunction != "because" and self.draw.chance(0.5)
        first = self._timed(subject, tense or self.draw.weighted(((PAST, 5), (PRESENT, 3), (FUTURE, 2))), conjunction)
        follower: Subject = self.subject(1)
        if self.draw.chance(PRONOUN) and not is_none(subject):
            follower = Pronoun(subject)
        second = self._timed(follower, first.tense, conjunction)
        return Statement(first, conjunction, second, reversed=subordinate_first)

    def _timed(self, subject: Subject, tense: str, conjunction: str) -> Clause:
        """A clause in the tense; of "while" both are in progress, of "when" and "before" both are events."""
        if conjunction in ("because", "although"):
            return self.clause(subject, 1, tense)
        while True:
            clause = self.verb_clause(subject, 1, FRAMES, tense)
            if clause.tense == tense:
                return clause

    def _reporter(self) -> NounPhrase:
        return self.name() if self.draw.chance(0.25) else self.plain(self.words.noun("person"))

    def _report(self) -> Sentence:
        verb = self.draw.ranked("clause verbs", lexicon.CLAUSE_VERBS)
        tense = self.draw.weighted(((PAST, 6), (PRESENT, 4)))
        inner_tense = self.draw.weighted(((PAST, 4), (PRESENT, 3), (FUTURE, 3)))
        inner = self.clause(self.subject(1), 1, inner_tense, bare=True)
        some = isinstance(inner.object, NounPhrase) and inner.object.determiner == SOME
        if self.draw.chance(0.1) and may_negate(inner.subject) and not some:
            inner = replace(inner, negated=True)
        return Report(self._reporter(), verb, tense, self.draw.chance(0.1), inner)

    def _wish(self) -> Sentence:
        inner = self.verb_clause(self.definite_subject(), 1, FRAMES, PAST)
        tense = self.draw.weighted(((PAST, 6), (PRESENT, 4)))
        return Report(self._reporter(), None, tense, self.draw.chance(0.15), inner)

    def _existence(self) -> Sentence:
        kinds = ("animal", "person", "thing", "food", "text")
        what = self.plain(self.words.noun(*kinds), ((INDEFINITE, 1.0),))
        return Existence(what, self.place(), self.draw.weighted(((PAST, 6), (PRESENT, 4))))

    def _question(self) -> Sentence:
        word = self.draw.weighted((("", 5), ("where", 2), ("when", 2), ("why", 2), ("who", 3), ("what", 3)))
        if word == "who":
            return Question(word, self.verb_clause(Somebody("who", "kdo"), 1, FRAMES))
        subject = self.subject(1)
        if is_none(subject):  # "Did no teacher ...?" is no question that anybody asks
            subject = self.definite_subject()
        if word == "what":
            verb = self.words.verb(kind_of(subject), ("object",), frozenset(("thing", "food", "text")))
            if verb.preposition or verb.case != "acc":
                return self._question()
            return Question(word, Clause(subject, self.tense(verb), verb))
        if word in ("where", "when"):
            tense = self.draw.weighted(((PAST, 7), (FUTURE, 3)))
            clause = self.verb_clause(subject, 1, ("object", "none", "give", "in"), tense)
            return Question(word, replace(clause, place=None) if word == "where" else clause)
        return Question(word, self.clause(subject, 1, bare=True))
