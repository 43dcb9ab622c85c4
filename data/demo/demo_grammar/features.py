"""Names of the grammatical categories, shared by all modules of the demo grammar."""

from typing import NamedTuple

# Genders; masculine nouns differ by animacy in Czech (accusative singular, nominative plural, agreement).
ANIMATE, INANIMATE, FEMININE, NEUTER = "animate", "inanimate", "feminine", "neuter"
GENDERS = (ANIMATE, INANIMATE, FEMININE, NEUTER)

SINGULAR, PLURAL = "singular", "plural"
NUMBERS = (SINGULAR, PLURAL)

NOMINATIVE, GENITIVE, DATIVE, ACCUSATIVE, LOCATIVE, INSTRUMENTAL = "nom", "gen", "dat", "acc", "loc", "ins"
CASES = (NOMINATIVE, GENITIVE, DATIVE, ACCUSATIVE, LOCATIVE, INSTRUMENTAL)

# Tenses. PAST is the English simple past and the Czech perfective past, PROGRESSIVE is "was reading" and the Czech
# imperfective past: so each English form has one Czech aspect.
PAST, PROGRESSIVE, PRESENT, FUTURE = "past", "progressive", "present", "future"


class Agreement(NamedTuple):
    """What a Czech verb or predicate adjective copies from its subject."""

    gender: str
    number: str
    counted: bool = False  # the subject is a numeral from five up: verb neuter singular, adjective genitive plural
