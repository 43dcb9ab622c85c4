"""The lexicon as objects, read from the tables in ``lexicon_nouns``, ``lexicon_verbs`` and so on."""

from dataclasses import dataclass, field
from functools import cached_property

from . import lexicon_adjectives, lexicon_adverbs, lexicon_names, lexicon_nouns, lexicon_verbs
from .features import FEMININE, PLURAL, SINGULAR
from .inflection import NOUN_CLASSES, Forms, decline_noun


@dataclass(frozen=True)
class Noun:
    """A noun or a name; ``rank`` is its place in its section of the table (0 is the most frequent)."""

    singular: str
    plural: str
    gender: str
    plural_gender: str
    kinds: frozenset[str]
    forms: Forms = field(compare=False)
    rank: int = 0
    possessive: str = ""  # of a name: Petrův

    @property
    def pronoun(self) -> str:
        """The English pronoun of the singular."""
        return "he" if "he" in self.kinds else "she" if "she" in self.kinds else "it"

    def gender_in(self, number: str) -> str:
        """The Czech gender in that number (dítě is neuter, děti is feminine)."""
        return self.plural_gender if number == PLURAL else self.gender


@dataclass(frozen=True)
class Adjective:
    """An adjective; ``comparative`` holds the English and the Czech one, or nothing."""

    english: str
    czech: str
    kinds: frozenset[str]
    comparative: tuple[str, str] | None
    order: int  # of two adjectives the one with the smaller stands first
    rank: int


@dataclass(frozen=True)
class Adverb:
    """An adverb or a fixed phrase."""

    english: str
    czech: str
    rank: int


@dataclass(frozen=True)
class Verb:
    """A verb. ``english`` has base form, past, past participle; ``frame`` is described in ``lexicon_verbs``."""

    english: tuple[str, str, str]
    english_preposition: str
    subjects: frozenset[str]
    frame: str  # "none", "in", "object", "give", "to" or "be"
    preposition: str
    case: str
    objects: frozenset[str]
    past: str
    progressive: str
    present: tuple[str, str]
    future: tuple[str, str] | None  # None: bude with the infinitive
    infinitive: str
    reflexive: str
    rank: int

    @property
    def is_state(self) -> bool:
        """Whether the verb has no progressive."""
        return not self.progressive

    @cached_property
    def ambiguous_present(self) -> bool:
        """Whether present and past look the same in English (read)."""
        return self.english[0] == self.english[1]


def _rows(table: str) -> list[tuple[int, list[str]]]:
    """Rank in its block and cells of every row; a blank line or a comment starts a new block."""
    rows, rank = [], 0
    for line in table.strip().splitlines():
        if not line or line.startswith("#"):
            rank = 0
        else:
            rows.append((rank, [cell.strip() for cell in line.split("|")]))
            rank += 1
    return rows


def english_plural(noun: str) -> str:
    """The regular plural: boxes, cities, keys."""
    if noun.endswith(("s", "x", "sh", "ch")):
        return noun + "es"
    return noun[:-1] + "ies" if noun.endswith("y") and noun[-2] not in "aeou" else noun + "s"


def _noun(rank: int, cells: list[str]) -> Noun:
    english, czech, model, kinds, *rest = cells
    singular, _, plural = english.partition("/")
    lemma, _, stem = czech.partition(":")
    exceptions = dict(item.split("=") for item in " ".join(rest).split())
    gender = NOUN_CLASSES[model][0]
    plural_gender = FEMININE if exceptions.pop("gender_p", "") == "f" else gender
    forms = decline_noun(lemma, stem or None, model, exceptions)
    plural = plural or english_plural(singular)
    return Noun(singular, plural, gender, plural_gender, frozenset(kinds.split()), forms, rank)


def _person(rank: int, cells: list[str]) -> Noun:
    english, czech, model, pronoun, possessive = cells
    lemma, _, stem = czech.partition(":")
    forms = decline_noun(lemma, stem or None, model, {})
    gender = NOUN_CLASSES[model][0]
    kinds = frozenset(("name", "person", pronoun))
    return Noun(english, "", gender, gender, kinds, forms, rank, possessive)


def _place(rank: int, cells: list[str]) -> Noun:
    english, czech, model, *rest = cells
    lemma, _, stem = czech.partition(":")
    gender = NOUN_CLASSES[model][0]
    plural = rest == ["plural"]
    exceptions = {} if plural else dict(item.split("=") for item in " ".join(rest).split())
    forms = decline_noun(lemma, stem or None, model, exceptions)
    if plural:  # the same forms in both numbers, so that the phrase may count as singular like in English
        forms |= {(SINGULAR, case): word for (number, case), word in forms.items() if number == PLURAL}
    return Noun(english, "", gender, gender, frozenset(("city",)), forms, rank)


def _adjective(rank: int, cells: list[str]) -> Adjective:
    comparative = (cells[3], cells[4]) if len(cells) > 3 else None
    classes = [names.split() for names in lexicon_adjectives.CLASSES]
    order = next((number for number, names in enumerate(classes, 1) if cells[0] in names), 0)
    return Adjective(cells[0], cells[1], frozenset(cells[2].split()), comparative, order, rank)


_ENGLISH_PREPOSITIONS = ("at", "for", "about", "with", "against")


def past_form(base: str) -> str:
    """The regular past: opened, saved, cried."""
    if base.endswith("e"):
        return base + "d"
    return base[:-1] + "ied" if base.endswith("y") and base[-2] not in "aeou" else base + "ed"


def _english_verb(cell: str) -> tuple[tuple[str, str, str], str]:
    words = cell.split()
    preposition = words.pop() if words[-1] in _ENGLISH_PREPOSITIONS else ""
    base, past, participle = words if len(words) == 3 else (words[0], past_form(words[0]), past_form(words[0]))
    return (base.replace("_", " "), past.replace("_", " "), participle.replace("_", " ")), preposition


def _frame(cell: str) -> tuple[str, str, str, frozenset[str]]:
    """Frame, Czech preposition, case and kinds of the object."""
    if cell in ("-", "in"):
        return {"-": "none", "in": "in"}[cell], "", "", frozenset()
    first, *rest = cell.split()
    if first in ("to", "give", "be"):
        case = {"to": "", "give": "acc", "be": "ins"}[first]
        return first, "", case, frozenset(rest)
    preposition = "" if first in ("gen", "dat", "acc", "loc", "ins") else first
    case = rest.pop(0) if preposition else first
    return "object", preposition, case, frozenset(rest)


def _pair(cell: str) -> tuple[str, str]:
    singular, plural = cell.split()
    return singular, plural


def _verb(rank: int, cells: list[str]) -> Verb:
    english, subjects, frame, past, progressive, present, future, infinitive = cells
    forms, english_preposition = _english_verb(english)
    kind, preposition, case, objects = _frame(frame)
    infinitive, _, reflexive = infinitive.partition(" ")
    return Verb(
        forms, english_preposition, frozenset(subjects.split()), kind, preposition, case, objects, past,
        "" if progressive == "-" else progressive, _pair(present), None if future == "bude" else _pair(future),
        infinitive, reflexive, rank,
    )  # fmt: skip


def _auxiliary(rank: int, cells: list[str]) -> Verb:
    """A modal, or a verb with a clause."""
    english, past, present, *rest = cells
    words = [word.replace("_", " ") for word in english.split()]
    present_forms = ("", "") if present == "-" else _pair(present)
    forms = (words[0], words[1], words[-1])
    kinds = frozenset(("person",))
    reflexive = rest[0] if rest else ""
    return Verb(forms, "", kinds, "none", "", "", frozenset(), past, "", present_forms, None, "", reflexive, rank)


NOUNS = tuple(_noun(*row) for row in _rows(lexicon_nouns.NOUNS))
PEOPLE = tuple(_person(*row) for row in _rows(lexicon_names.PEOPLE))
CITIES = tuple(_place(*row) for row in _rows(lexicon_names.PLACES))
ADJECTIVES = tuple(_adjective(*row) for row in _rows(lexicon_adjectives.ADJECTIVES))
VERBS = tuple(_verb(*row) for row in _rows(lexicon_verbs.VERBS))
MODALS = tuple(_auxiliary(*row) for row in _rows(lexicon_verbs.MODALS))
CLAUSE_VERBS = tuple(_auxiliary(*row) for row in _rows(lexicon_verbs.CLAUSE_VERBS))
ADVERBS = {
    name: tuple(Adverb(cells[0], cells[1], rank) for rank, cells in _rows(getattr(lexicon_adverbs, name)))
    for name in ("TIME_PAST", "TIME_FUTURE", "TIME_PRESENT", "FREQUENCY", "MANNER", "SENTENCE")
}
LEXEMES = sum(len(t) for t in (NOUNS, PEOPLE, CITIES, ADJECTIVES, VERBS, MODALS, CLAUSE_VERBS, *ADVERBS.values()))


def noun(english: str) -> Noun:
    """The noun or name with that English singular. Raises: KeyError when there is none."""
    for entry in (*NOUNS, *PEOPLE, *CITIES):
        if entry.singular == english:
            return entry
    raise KeyError(english)
