"""Prepositions: the English one, the Czech one, its case, and its vowel before clusters that are hard to say."""

from typing import NamedTuple

from .features import DATIVE, GENITIVE, INSTRUMENTAL, LOCATIVE


class Preposition(NamedTuple):
    """``english`` is what English says; ``czech`` governs ``case``."""

    english: str
    czech: str
    case: str


IN = Preposition("in", "v", LOCATIVE)
ON = Preposition("on", "na", LOCATIVE)
AT = Preposition("at", "na", LOCATIVE)
FROM = Preposition("from", "z", GENITIVE)
TO = Preposition("to", "do", GENITIVE)
TOWARDS = Preposition("towards", "k", DATIVE)
WITH = Preposition("with", "s", INSTRUMENTAL)
WITHOUT = Preposition("without", "bez", GENITIVE)
UNDER = Preposition("under", "pod", INSTRUMENTAL)
BETWEEN = Preposition("between", "mezi", INSTRUMENTAL)
# Where something is, seen from a place or a landmark; in the order of frequency.
NEAR_PLACE = (
    Preposition("near", "u", GENITIVE),
    Preposition("behind", "za", INSTRUMENTAL),
    Preposition("in front of", "před", INSTRUMENTAL),
    Preposition("next to", "vedle", GENITIVE),
    Preposition("opposite", "naproti", DATIVE),
)

# Beginnings of a word before which the preposition takes its vowel, after the handbook of the Czech Language Institute
# (where usage wavers, one of the two is taken throughout). "S+" stands for s, š, z, ž and one more consonant.
_VOCALISED: dict[str, tuple[str, tuple[str, ...]]] = {
    "v": ("ve", ("v", "f", "S+", "dv", "tř", "čt", "kt", "hř", "hv", "tm", "měst", "mlýn", "lv")),
    "s": ("se", ("s", "š", "z", "ž", "dv", "tř", "čt", "kt", "ps", "vz", "vš", "lv", "lž")),
    "z": ("ze", ("s", "š", "z", "ž", "dv", "tř", "čt", "kt", "lv", "mlýn")),
    "k": ("ke", ("k", "g", "S+", "dv", "tř", "čt", "ps", "lv", "lž", "mlýn")),
}


def _starts(word: str, beginning: str) -> bool:
    if beginning != "S+":
        return word.startswith(beginning)
    return word[0] in "sšzž" and word[1:2] not in tuple("aáeéěiíoóuúůyý")


def vocalise(preposition: str, following: str) -> str:
    """The preposition as it is written before the word ``following``: v + škole = ve, s + psem = se, k + řece = k."""
    if preposition not in _VOCALISED:
        return preposition
    longer, beginnings = _VOCALISED[preposition]
    word = following.lower()
    return longer if any(_starts(word, beginning) for beginning in beginnings) else preposition
