"""What a sentence says, in no language: trees that ``english`` and ``czech`` put into words."""

from __future__ import annotations

from dataclasses import dataclass

from .determiners import THE, Determiner, Numeral
from .features import ANIMATE, FEMININE, NEUTER, PLURAL, SINGULAR, Agreement
from .lexicon import Adjective, Adverb, Noun, Verb
from .prepositions import Preposition


@dataclass(frozen=True)
class NounPhrase:
    """A noun and what hangs on it; ``possessor`` is a genitive ("the teacher's", "of the house") or a bare name."""

    noun: Noun
    number: str = SINGULAR
    determiner: Determiner = THE
    numeral: Numeral | None = None
    adjectives: tuple[Adjective, ...] = ()
    possessor: NounPhrase | None = None
    modifier: PrepositionalPhrase | None = None
    relative: Relative | None = None

    @property
    def agreement(self) -> Agreement:
        """What the verb copies."""
        counted = self.numeral is not None and self.numeral.counting
        return Agreement(self.noun.gender_in(self.number), self.number, counted)

    @property
    def pronoun(self) -> str:
        """The English pronoun that stands for it."""
        return "they" if self.number == PLURAL else self.noun.pronoun


@dataclass(frozen=True)
class Coordination:
    """Two noun phrases with "and"."""

    first: NounPhrase
    second: NounPhrase

    @property
    def agreement(self) -> Agreement:
        """Plural; animate when one is animate, neuter only when both are neuter plurals, else the feminine ending."""
        parts = (self.first.agreement, self.second.agreement)
        if any(part.gender == ANIMATE for part in parts):
            return Agreement(ANIMATE, PLURAL)
        neuter = all(part.gender == NEUTER and part.number == PLURAL for part in parts)
        return Agreement(NEUTER if neuter else FEMININE, PLURAL)

    pronoun = "they"


@dataclass(frozen=True)
class Pronoun:
    """He, she, it or they, standing for ``antecedent``: Czech leaves it out and shows it in the ending of the verb."""

    antecedent: NounPhrase | Coordination

    @property
    def agreement(self) -> Agreement:
        """The natural one: after "five teachers" the verb of the next clause is plural."""
        return self.antecedent.agreement._replace(counted=False)

    @property
    def pronoun(self) -> str:
        """The English pronoun."""
        return self.antecedent.pronoun


@dataclass(frozen=True)
class Somebody:
    """A subject without a noun: somebody, nobody, who. Masculine singular in Czech."""

    english: str
    czech: str
    negative: bool = False
    agreement = Agreement(ANIMATE, SINGULAR)
    pronoun = "he"


@dataclass(frozen=True)
class Gap:
    """The subject of a relative clause whose pronoun is the subject: nothing is said in its place."""

    antecedent: NounPhrase

    @property
    def agreement(self) -> Agreement:
        """As the antecedent, in its natural number."""
        return self.antecedent.agreement._replace(counted=False)

    @property
    def pronoun(self) -> str:
        """The English pronoun of the antecedent."""
        return self.antecedent.pronoun


Subject = NounPhrase | Coordination | Pronoun | Somebody | Gap


@dataclass(frozen=True)
class PrepositionalPhrase:
    """A preposition and its noun phrase."""

    preposition: Preposition
    object: NounPhrase | Coordination


@dataclass(frozen=True)
class Clause:
    """A subject and what it does: ``verb`` with its objects, or ``adjective`` ("was tired", "is older than ...").

    ``object`` may be missing where a relative or interrogative pronoun stands for it.
    """

    subject: Subject
    tense: str
    verb: Verb | None = None
    negated: bool = False
    modal: Verb | None = None
    recipient: NounPhrase | None = None
    object: NounPhrase | Coordination | None = None
    goal: PrepositionalPhrase | None = None
    place: PrepositionalPhrase | None = None
    time: Adverb | None = None
    frequency: Adverb | None = None
    manner: Adverb | None = None
    adjective: Adjective | None = None
    compared: NounPhrase | None = None
    fronted: Adverb | PrepositionalPhrase | None = None  # stands first: the Czech verb comes before its subject
    opening: Adverb | None = None  # "unfortunately": stands first, changes nothing


@dataclass(frozen=True)
class Relative:
    """A relative clause; ``role`` is what its pronoun is in it: "subject", "object", "place" or "whose"."""

    role: str
    clause: Clause
    place: Preposition | None = None


@dataclass(frozen=True)
class Statement:
    """One clause, or two with ``conjunction``: "and", "but", or a subordinating one (first when ``reversed``)."""

    clause: Clause
    conjunction: str = ""
    second: Clause | None = None
    reversed: bool = False


@dataclass(frozen=True)
class Report:
    """Words or thoughts: "said that ...", or with ``verb`` None "wanted the boy to ..." (chtěl, aby chlapec ...)."""

    subject: Subject
    verb: Verb | None
    tense: str
    negated: bool
    clause: Clause


@dataclass(frozen=True)
class Existence:
    """As in "there is a dog in the garden"; the place comes first in Czech."""

    what: NounPhrase
    where: PrepositionalPhrase
    tense: str


@dataclass(frozen=True)
class Question:
    """``word`` is "" (yes or no), where, when, why, who (its clause has Somebody as subject) or what (no object)."""

    word: str
    clause: Clause


Sentence = Statement | Report | Existence | Question
