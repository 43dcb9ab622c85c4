"""Random clauses and relative clauses."""

from __future__ import annotations

from dataclasses import replace

from . import lexicon
from .determiners import BARE, EVERY, INDEFINITE, NO, OUR, OWN, SOME, THAT, THIS
from .features import FUTURE, PAST, PRESENT, PROGRESSIVE
from .lexicon import Noun, Verb
from .phrases import COORDINATION, LEAF, NAME, Determiners, Phrases
from .prepositions import AT, IN, ON
from .trees import Clause, Coordination, Gap, NounPhrase, Pronoun, Relative, Somebody, Subject

# Probabilities of what a clause may carry.
ADJECTIVE_PREDICATE, COMPARISON = 0.16, 0.3
MODAL = 0.12
NEGATION = 0.14
MANNER = 0.14
PLACE = 0.24  # multiplied by phrases.DEPTH at every level of nesting
TENSES = ((PAST, 0.52), (PROGRESSIVE, 0.14), (PRESENT, 0.18), (FUTURE, 0.16))
BE_TENSES = ((PAST, 0.5), (PRESENT, 0.35), (FUTURE, 0.15))

FRAMES = ("object", "none", "to", "give", "be", "in")
_OBJECT_DETERMINERS: Determiners = ((INDEFINITE, 58), (THIS, 8), (THAT, 7), (SOME, 4), (OUR, 5), (OWN, 15), (NO, 3))


def head_noun(subject: Subject) -> Noun | None:
    """The (first) noun that the subject is or stands for."""
    if isinstance(subject, (Gap, Pronoun)):
        return head_noun(subject.antecedent)
    if isinstance(subject, Coordination):
        return subject.first.noun
    return None if isinstance(subject, Somebody) else subject.noun


def kind_of(subject: Subject) -> str:
    """Whether a verb for the subject must suit an animal."""
    if isinstance(subject, (Gap, Pronoun)):
        return kind_of(subject.antecedent)
    if isinstance(subject, Coordination):
        return "animal" if "animal" in (kind_of(subject.first), kind_of(subject.second)) else "person"
    return "animal" if isinstance(subject, NounPhrase) and "animal" in subject.noun.kinds else "person"


def is_none(phrase: Subject | None) -> bool:
    """Whether it is "nobody" or "no teacher"."""
    if isinstance(phrase, Somebody):
        return phrase.negative
    return isinstance(phrase, NounPhrase) and phrase.determiner == NO


def may_negate(subject: Subject) -> bool:
    """Whether "not" is clear: one negative word is enough, and "every teacher did not" would say two things."""
    return not is_none(subject) and not (isinstance(subject, NounPhrase) and subject.determiner == EVERY)


def ends_in_relative(clause: Clause) -> bool:
    """Whether an adverb behind the objects would seem to belong to a relative clause."""
    phrases = (clause.object, clause.recipient, clause.compared)
    return any(isinstance(phrase, NounPhrase) and phrase.relative is not None for phrase in phrases)


class Clauses(Phrases):
    """Draws clauses."""

    def relative(self, antecedent: NounPhrase, depth: int) -> Relative:
        """A relative clause that fits the antecedent."""
        kinds = antecedent.noun.kinds
        being = bool(kinds & {"person", "animal"})
        places = [preposition for preposition, kind in ((IN, "in"), (ON, "on"), (AT, "at")) if kind in kinds]
        weights = {"object": 0.5 if being else 1.0, "subject": 1.6 * being, "place": 1.2 * bool(places)}
        weights["whose"] = 0.25 if "person" in kinds else 0.0
        role = self.draw.weighted(list(weights.items()))
        if role == "subject":
            return Relative(role, self.clause(Gap(antecedent), depth))
        if role == "whose":
            owned = self.plain(self.words.noun("person", "animal"), ((BARE, 1.0),))
            return Relative(role, self.clause(owned, depth))
        if role == "place":
            inner = self.verb_clause(self.definite_subject(), depth, ("none", "object", "in"))
            return Relative(role, replace(inner, place=None), places[0])
        subject = self.name() if self.draw.chance(NAME) else self.plain(self.words.noun("person"))
        verb = self.words.verb("person", ("object",), kinds - {"he", "she"})
        return Relative(role, Clause(subject, self.tense(verb), verb))

    def tense(self, verb: Verb) -> str:
        """A tense in which the verb is clear."""
        return possible_tense(verb, self.draw.weighted(TENSES))

    def clause(self, subject: Subject, depth: int, tense: str = "", bare: bool = False) -> Clause:
        """A clause about the subject, in that tense when given; ``bare``: no modal, no negation."""
        if self.draw.chance(ADJECTIVE_PREDICATE) and not isinstance(subject, Somebody):
            return self.adjective_clause(subject, tense, bare)
        return self._verb_clause(subject, self.words.verb(kind_of(subject), FRAMES), depth, tense, bare)

    def verb_clause(self, subject: Subject, depth: int, frames: tuple[str, ...], tense: str = "") -> Clause:
        """A clause with a verb of one of the frames, no modal and no negation."""
        return self._verb_clause(subject, self.words.verb(kind_of(subject), frames), depth, tense, bare=True)

    def _verb_clause(self, subject: Subject, verb: Verb, depth: int, tense: str = "", bare: bool = False) -> Clause:
        result = Clause(subject, possible_tense(verb, tense) if tense else self.tense(verb), verb)
        if verb.frame == "be":
            result = replace(result, object=self._predicate_noun(subject))
        elif verb.objects:
            # "gave the book which she read to the boy" would say two things: a gift has no relative clause.
            object_depth = LEAF if verb.frame == "give" else depth
            result = replace(result, object=self._object(verb, subject, object_depth, bare))
        if verb.frame == "give":
            person = self.name() if self.draw.chance(NAME) else self.plain(self.words.noun("person"))
            result = replace(result, recipient=person)
        if verb.frame == "to":
            result = replace(result, goal=self.goal())
        result = result if bare else self._modality(result)
        if not verb.is_state and not ends_in_relative(result) and self.draw.chance(MANNER):
            result = replace(result, manner=self.words.adverb("MANNER"))
        if verb.frame == "in":
            return replace(result, place=self.place())
        if result.goal is None and not ends_in_relative(result) and self.nested(PLACE, depth):
            result = replace(result, place=self.place(own=not isinstance(subject, Somebody)))
        return result

    def adjective_clause(self, subject: Subject, tense: str = "", bare: bool = False) -> Clause:
        """A clause with "be" and an adjective: is tired, was not older than the king."""
        noun = head_noun(subject)
        assert noun is not None
        negated = not bare and may_negate(subject) and self.draw.chance(NEGATION)
        tense = tense or self.draw.weighted(BE_TENSES)
        tense = PAST if tense == PROGRESSIVE else tense
        if not self.draw.chance(COMPARISON):
            return Clause(subject, tense, negated=negated, adjective=self.words.adjective(noun))
        kinds = sorted(noun.kinds - {"name", "he", "she", "open"})
        other = self.plain(self.words.noun(*kinds))
        adjective = self.words.adjective(noun, comparative=True)
        return Clause(subject, tense, negated=negated, adjective=adjective, compared=other)

    def _object(self, verb: Verb, subject: Subject, depth: int, bare: bool) -> NounPhrase | Coordination:
        kinds = tuple(sorted(verb.objects))
        if "person" in kinds and self.draw.chance(NAME):
            return self.name()
        determiners = [
            (determiner, weight)
            for determiner, weight in _OBJECT_DETERMINERS
            if not (determiner == OWN and isinstance(subject, Somebody))
            and not (determiner == NO and (bare or not may_negate(subject)))
            and not (determiner == SOME and is_none(subject))
        ]
        first = self.full(self.words.noun(*kinds), depth, tuple(determiners))
        if first.determiner != INDEFINITE or first.modifier or not self.nested(COORDINATION, depth):
            return first
        second = self.plain(self.words.noun(*kinds), ((INDEFINITE, 1.0),))
        return first if second.noun == first.noun else Coordination(first, second)

    def _predicate_noun(self, subject: Subject) -> NounPhrase:
        """Who the subject becomes: of its sex and number."""
        fitting = "she" if subject.pronoun == "she" else "he"
        while fitting not in (noun := self.words.noun("job")).kinds:
            continue
        phrase = self.plain(noun, ((INDEFINITE, 1.0),))
        return replace(phrase, number=subject.agreement.number, numeral=None, determiner=INDEFINITE)

    def _modality(self, clause: Clause) -> Clause:
        """Perhaps a modal and a negation (but one negative word is enough, and "some" becomes "any" after it)."""
        some = isinstance(clause.object, NounPhrase) and clause.object.determiner in (SOME, NO)
        if may_negate(clause.subject) and not some and self.draw.chance(NEGATION):
            clause = replace(clause, negated=True)
        if clause.tense not in (PAST, PRESENT) or not self.draw.chance(MODAL):
            return clause
        reflexive = clause.verb is not None and bool(clause.verb.reflexive)
        modals = [
            (modal, 1 / (modal.rank + 2))
            for modal in lexicon.MODALS
            if (clause.tense == PAST or modal.present[0]) and not (modal.reflexive and reflexive)
        ]
        return replace(clause, modal=self.draw.weighted(modals))


def possible_tense(verb: Verb, tense: str) -> str:
    """The tense, or the past where the tense is not clear: a state has no progressive, "read" no present."""
    unclear = (tense == PROGRESSIVE and verb.is_state) or (tense == PRESENT and verb.ambiguous_present)
    return PAST if unclear else tense
