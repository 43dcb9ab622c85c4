"""Czech endings: declension classes of nouns, adjectives and possessive adjectives, and the l-participle.

A noun is given by its dictionary form, the stem of its other cases where that differs (pes, ps-), the model word of
its class (pán, hrad, žena, ...) and the forms that the class does not foretell. The vocative is not used.
"""

from .features import ANIMATE, CASES, FEMININE, INANIMATE, LOCATIVE, NEUTER, PLURAL, SINGULAR

Forms = dict[tuple[str, str], str]  # (number, case) -> word
_Endings = dict[str, tuple[str, ...]]  # number -> the six endings of each gender

# Model word -> gender and endings, six cases of the singular and six of the plural. "=" is the dictionary form itself,
# "0" the bare stem, "~" softens the end of the stem before e or i (ruka -> ruce, pták -> ptáci).
NOUN_CLASSES: dict[str, tuple[str, str, str]] = {
    "pán": (ANIMATE, "= a ovi a ovi em", "~i ů ům y ech y"),
    "muž": (ANIMATE, "= e ovi e ovi em", "i ů ům e ích i"),
    "předseda": (ANIMATE, "= y ovi u ovi ou", "ové ů ům y ech y"),
    "soudce": (ANIMATE, "= e i e i em", "i ů ům e ích i"),
    "hrad": (INANIMATE, "= u u = u em", "y ů ům y ech y"),
    "stroj": (INANIMATE, "= e i = i em", "e ů ům e ích i"),
    "žena": (FEMININE, "= y ~e u ~e ou", "y 0 ám y ách ami"),
    "růže": (FEMININE, "= e i i i í", "e í ím e ích emi"),
    "píseň": (FEMININE, "= e i = i í", "e í ím e ích emi"),
    "kost": (FEMININE, "= i i = i í", "i í em i ech mi"),
    "město": (NEUTER, "= a u = ~e em", "a 0 ům a ech y"),
    "moře": (NEUTER, "= e i = i em", "e í ím e ích i"),
    "kuře": (NEUTER, "= =te =ti = =ti =tem", "a 0 ům a ech y"),
    "stavení": (NEUTER, "= í í í í ím", "í í ím í ích ími"),
    "muzeum": (NEUTER, "= a u = u em", "a í ím a ích i"),
}
_SOFTENED = {"ch": "š", "k": "c", "h": "z", "g": "z", "r": "ř"}
_HOOKED = "bpvmfdtn"  # after these letters the softening e is written ě


def soften(stem: str, vowel: str) -> str:
    """Joins a stem and the softening ending ``e`` or ``i``: pták + i = ptáci, sestra: sestr + e = sestře."""
    for hard, soft in _SOFTENED.items():
        if stem.endswith(hard):
            return stem[: -len(hard)] + soft + vowel
    return stem + ("ě" if vowel == "e" and stem[-1] in _HOOKED else vowel)


def _attach(lemma: str, stem: str, ending: str, hook: bool) -> str:
    if ending.startswith("="):
        return lemma + ending[1:]
    if ending == "0":
        return stem
    if ending.startswith("~"):
        return soften(stem, ending[1:])
    return stem + ("ě" + ending[1:] if hook and ending.startswith("e") else ending)


def decline_noun(lemma: str, stem: str | None, model: str, exceptions: dict[str, str]) -> Forms:
    """All twelve forms of a noun.

    ``exceptions`` maps a key such as ``gp`` (genitive plural: first letter of the case, then s or p) to a whole word,
    or to ``-ending``, which is put on the stem as in ``NOUN_CLASSES``.
    """
    _, singular, plural = NOUN_CLASSES[model]
    if stem is None:
        stem = lemma.removesuffix("um") if model == "muzeum" else lemma[:-1] if lemma[-1] in "aeěoí" else lemma
    # Soft classes write their e as ě in kuchyně, kuchyněmi and after a stem in n or d: písně, lodě, koně.
    hook = (lemma.endswith("ě") and model in ("růže", "moře")) or (model in ("píseň", "muž") and stem[-1] in "nd")
    forms: Forms = {}
    for number, endings in ((SINGULAR, singular.split()), (PLURAL, plural.split())):
        for case, ending in zip(CASES, endings, strict=True):
            forms[number, case] = _attach(lemma, stem, ending, hook)
    # Velar stems take -ích in the locative plural: o ptácích, v parcích, na trzích.
    if model in ("pán", "hrad") and stem.endswith(("k", "h", "g")):
        forms[PLURAL, LOCATIVE] = soften(stem, "ích")
    for key, value in exceptions.items():
        number = SINGULAR if key[1] == "s" else PLURAL
        case = next(c for c in CASES if c[0] == key[0])
        forms[number, case] = _attach(lemma, stem, value[1:], hook) if value.startswith("-") else value
    return forms


# Rows: animate, inanimate, feminine, neuter; columns: the six cases. The animate nominative plural softens the stem.
_HARD: _Endings = {
    SINGULAR: ("ý ého ému ého ém ým", "ý ého ému ý ém ým", "á é é ou é ou", "é ého ému é ém ým"),
    PLURAL: ("~í ých ým é ých ými", "é ých ým é ých ými", "é ých ým é ých ými", "á ých ým á ých ými"),
}
_SOFT: _Endings = {
    SINGULAR: ("í ího ímu ího ím ím", "í ího ímu í ím ím", "í í í í í í", "í ího ímu í ím ím"),
    PLURAL: ("í ích ím í ích ími",) * 4,
}
# Possessive adjectives made from names: Petrův, Petrova, Petrovo; -ův is the ending of "=", -ov- the stem.
_POSSESSIVE: _Endings = {
    SINGULAR: ("= a u a ě ým", "= a u = ě ým", "a y ě u ě ou", "o a u o ě ým"),
    PLURAL: ("i ých ým y ých ými", "y ých ým y ých ými", "y ých ým y ých ými", "a ých ým a ých ými"),
}
_GENDER_ROW = {ANIMATE: 0, INANIMATE: 1, FEMININE: 2, NEUTER: 3}


def _ending(table: _Endings, gender: str, number: str, case: str) -> str:
    return table[number][_GENDER_ROW[gender]].split()[CASES.index(case)]


def soften_adjective(stem: str) -> str:
    """Stem of the animate nominative plural: velk- -> velc-, česk- -> češt-, německ- -> němečt-, tich- -> tiš-."""
    for hard, soft in {"sk": "št", "ck": "čt"}.items():
        if stem.endswith(hard):
            return stem[: -len(hard)] + soft
    return soften(stem, "í")[:-1]


def decline_adjective(lemma: str, gender: str, number: str, case: str) -> str:
    """A form of a hard (mladý) or soft (cizí) adjective, found by the last letter of its dictionary form."""
    stem = lemma[:-1]
    if lemma.endswith("í"):
        return stem + _ending(_SOFT, gender, number, case)
    ending = _ending(_HARD, gender, number, case)
    return soften_adjective(stem) + ending[1:] if ending.startswith("~") else stem + ending


def decline_possessive(lemma: str, gender: str, number: str, case: str) -> str:
    """A form of a possessive adjective in -ův (Petrův) or -in (Janin)."""
    stem = lemma[:-2] + "ov" if lemma.endswith("ův") else lemma
    ending = _ending(_POSSESSIVE, gender, number, case)
    return lemma if ending == "=" else stem + ending


_PARTICIPLE = {
    SINGULAR: {ANIMATE: "", INANIMATE: "", FEMININE: "a", NEUTER: "o"},
    PLURAL: {ANIMATE: "i", INANIMATE: "y", FEMININE: "y", NEUTER: "a"},
}


def participle(form: str, gender: str, number: str) -> str:
    """The l-participle for a subject; ``form`` is its masculine, with the other stem after a colon (přišel:přišl)."""
    masculine, _, stem = form.partition(":")
    ending = _PARTICIPLE[number][gender]
    return (stem or masculine) + ending if ending else masculine
