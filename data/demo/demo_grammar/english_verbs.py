"""English verbs: third person, -ing form, tenses with their auxiliaries."""

from .features import FUTURE, PAST, PRESENT, PROGRESSIVE

Words = list[str]

# How a tense looks: as it is; after a past "said that"; after "when" and "if", where the future is a present.
PLAIN, SHIFTED, CONDITION = "plain", "shifted", "condition"


def third_person(base: str) -> str:
    """Says, washes, carries; of "fall asleep" the first word."""
    head, _, particle = base.partition(" ")
    if head == "have":
        head = "has"
    elif head.endswith(("s", "sh", "ch", "x", "o")):
        head += "es"
    else:
        head = head[:-1] + "ies" if head.endswith("y") and head[-2] not in "aeou" else head + "s"
    return f"{head} {particle}".strip()


def ing_form(base: str) -> str:
    """Reading, writing; no verb of the lexicon doubles its last letter."""
    head, _, particle = base.partition(" ")
    head = head[:-1] if head.endswith("e") and not head.endswith("ee") else head
    return f"{head}ing {particle}".strip()


def verb_group(
    forms: tuple[str, str, str], tense: str, negated: bool, plural: bool, state: bool = False, view: str = PLAIN,
    inverted: bool = False,
) -> tuple[Words, str]:  # fmt: skip
    """Auxiliaries (with "not") and the main verb; ``inverted`` asks for an auxiliary, for a question."""
    base, past, participle = forms
    negation = ["not"] if negated else []
    if view == CONDITION and tense == FUTURE:
        tense = PRESENT
    if view == SHIFTED:
        if tense == PAST:
            return ["had", *negation], participle
        if tense == FUTURE:
            return ["would", *negation], base
        tense = PAST if state else PROGRESSIVE
    if tense == PROGRESSIVE:
        return ["were" if plural else "was", *negation], ing_form(base)
    if tense == FUTURE:
        return ["will", *negation], base
    if base == "can":
        word = "could" if tense == PAST else "can"
        return ([word, "not"], "") if negated and tense == PAST else (["cannot" if negated else word], "")
    if negated or inverted:
        return ["did" if tense == PAST else "do" if plural else "does", *negation], base
    return [], past if tense == PAST else base if plural else third_person(base)


def be_words(tense: str, negated: bool, plural: bool, view: str = PLAIN) -> Words:
    """The forms of "be", the one that a question puts first before the others."""
    negation = ["not"] if negated else []
    if view == SHIFTED:
        if tense == FUTURE:
            return ["would", *negation, "be"]
        if tense == PAST:
            return ["had", *negation, "been"]
        return ["were" if plural else "was", *negation]
    if tense == FUTURE and view == PLAIN:
        return ["will", *negation, "be"]
    if tense == PAST:
        return ["were" if plural else "was", *negation]
    return ["are" if plural else "is", *negation]
