"""Czech verbs: the finite form that agrees with a subject."""

from .features import FUTURE, NEUTER, PAST, PLURAL, PRESENT, PROGRESSIVE, SINGULAR, Agreement
from .inflection import participle
from .lexicon import Verb

Words = list[str]

WANT = Verb(
    ("want", "wanted", "wanted"), "", frozenset(), "none", "", "", frozenset(), "chtěl", "", ("chce", "chtějí"), None,
    "", "", 0,
)  # fmt: skip


def _past(form: str, agreement: Agreement) -> str:
    if agreement.counted:
        return participle(form, NEUTER, SINGULAR)
    return participle(form, agreement.gender, agreement.number)


def be_form(tense: str, agreement: Agreement, negative: bool) -> str:
    """The form of být in the tense: je, nejsou, byl, budou."""
    plural = agreement.number == PLURAL and not agreement.counted
    if tense == PRESENT:
        return ("nejsou" if negative else "jsou") if plural else ("není" if negative else "je")
    form = _past("byl", agreement) if tense in (PAST, PROGRESSIVE) else "budou" if plural else "bude"
    return "ne" + form if negative else form


def finite(verb: Verb, tense: str, agreement: Agreement, negative: bool) -> tuple[str, str]:
    """The finite verb and, in the future with "bude", the infinitive after it."""
    plural = agreement.number == PLURAL and not agreement.counted
    if tense == FUTURE and verb.future is None:
        return be_form(FUTURE, agreement, negative), verb.infinitive
    if tense in (PAST, PROGRESSIVE):
        form = _past(verb.past if tense == PAST else verb.progressive, agreement)
    else:
        form = (verb.present if tense == PRESENT or verb.future is None else verb.future)[plural]
    return ("ne" + form if negative else form), ""
