"""Closed classes that agree with a noun: pronouns used as determiners, the relative který, and numerals."""

from typing import NamedTuple

from .features import ANIMATE, CASES, FEMININE, INANIMATE, NEUTER, PLURAL, SINGULAR
from .inflection import decline_adjective

_Table = dict[str, dict[str, str]]

# Six cases by number and gender; tento is ten with -to put on.
_TEN: _Table = {
    SINGULAR: {
        ANIMATE: "ten toho tomu toho tom tím",
        INANIMATE: "ten toho tomu ten tom tím",
        FEMININE: "ta té té tu té tou",
        NEUTER: "to toho tomu to tom tím",
    },
    PLURAL: {
        ANIMATE: "ti těch těm ty těch těmi",
        INANIMATE: "ty těch těm ty těch těmi",
        FEMININE: "ty těch těm ty těch těmi",
        NEUTER: "ta těch těm ta těch těmi",
    },
}
_SVUJ: _Table = {
    SINGULAR: {
        ANIMATE: "svůj svého svému svého svém svým",
        INANIMATE: "svůj svého svému svůj svém svým",
        FEMININE: "svá své své svou své svou",
        NEUTER: "své svého svému své svém svým",
    },
    PLURAL: {
        ANIMATE: "sví svých svým své svých svými",
        INANIMATE: "své svých svým své svých svými",
        FEMININE: "své svých svým své svých svými",
        NEUTER: "svá svých svým svá svých svými",
    },
}
_NAS: _Table = {
    SINGULAR: {
        ANIMATE: "náš našeho našemu našeho našem naším",
        INANIMATE: "náš našeho našemu náš našem naším",
        FEMININE: "naše naší naší naši naší naší",
        NEUTER: "naše našeho našemu naše našem naším",
    },
    PLURAL: {
        ANIMATE: "naši našich našim naše našich našimi",
        INANIMATE: "naše našich našim naše našich našimi",
        FEMININE: "naše našich našim naše našich našimi",
        NEUTER: "naše našich našim naše našich našimi",
    },
}


class Determiner(NamedTuple):
    """``english`` has the singular and the plural word; "" for a number in which it is not used."""

    english: tuple[str, str]
    czech: str


# Czech has no article: "the" and "a" are nothing there. The plural of "a" is no word in English either.
THE = Determiner(("the", "the"), "")
INDEFINITE = Determiner(("a", ""), "")
BARE = Determiner(("", ""), "")
THIS = Determiner(("this", "these"), "tento")
THAT = Determiner(("that", "those"), "ten")
EVERY = Determiner(("every", ""), "každý")
SOME = Determiner(("some", "some"), "nějaký")
NO = Determiner(("no", "no"), "žádný")
OUR = Determiner(("our", "our"), "náš")
OWN = Determiner(("his", "their"), "svůj")  # the possessor is the subject; English says his, her, its or their


def decline_determiner(lemma: str, gender: str, number: str, case: str) -> str:
    """A form of a determiner; každý, nějaký and žádný are hard adjectives."""
    column = CASES.index(case)
    if lemma in ("ten", "tento"):
        return _TEN[number][gender].split()[column] + lemma[len("ten") :]
    table = {"svůj": _SVUJ, "náš": _NAS}.get(lemma)
    return table[number][gender].split()[column] if table else decline_adjective(lemma, gender, number, case)


def relative_pronoun(gender: str, number: str, case: str) -> str:
    """A form of který (který, kteří, kterou, ...), which declines like a hard adjective."""
    return decline_adjective("který", gender, number, case)


# The possessive relative "whose", before a nominative.
def whose(gender: str, number: str) -> str:
    """Jehož after a masculine or neuter singular, jejíž after a feminine one, jejichž after a plural."""
    return "jejichž" if number == PLURAL else "jejíž" if gender == FEMININE else "jehož"


class Numeral(NamedTuple):
    """``czech`` has the six cases; a ``counting`` one takes the genitive plural in the nominative and accusative."""

    english: str
    czech: str
    counting: bool


NUMERALS = (
    Numeral("two", "dva dvou dvěma dva dvou dvěma", False),
    Numeral("three", "tři tří třem tři třech třemi", False),
    Numeral("many", "mnoho mnoha mnoha mnoho mnoha mnoha", True),
    Numeral("five", "pět pěti pěti pět pěti pěti", True),
    Numeral("four", "čtyři čtyř čtyřem čtyři čtyřech čtyřmi", False),
    Numeral("several", "několik několika několika několik několika několika", True),
    Numeral("six", "šest šesti šesti šest šesti šesti", True),
    Numeral("ten", "deset deseti deseti deset deseti deseti", True),
    Numeral("seven", "sedm sedmi sedmi sedm sedmi sedmi", True),
    Numeral("eight", "osm osmi osmi osm osmi osmi", True),
    Numeral("nine", "devět devíti devíti devět devíti devíti", True),
    Numeral("twelve", "dvanáct dvanácti dvanácti dvanáct dvanácti dvanácti", True),
)


def decline_numeral(numeral: Numeral, gender: str, case: str) -> str:
    """A form of a numeral; only dva has a gender (dvě for feminine and neuter)."""
    form = numeral.czech.split()[CASES.index(case)]
    return "dvě" if form == "dva" and gender in (FEMININE, NEUTER) else form
