"""English words for the trees."""

from .determiners import OWN
from .features import FUTURE, PAST, PLURAL, PRESENT, PROGRESSIVE
from .lexicon import Adverb, Verb
from .trees import (
    Clause,
    Coordination,
    Existence,
    Gap,
    NounPhrase,
    PrepositionalPhrase,
    Pronoun,
    Question,
    Relative,
    Report,
    Sentence,
    Somebody,
    Statement,
    Subject,
)

Words = list[str]

# How a tense looks: as it is; after a past "said that"; after "when" and "if", where the future is a present.
PLAIN, SHIFTED, CONDITION = "plain", "shifted", "condition"
CONJUNCTIONS = ("because", "although", "when", "before", "while", "if")
_POSSESSIVE = {"he": "his", "she": "her", "it": "its", "they": "their"}
_SOUNDS_LIKE_CONSONANT = ("university",)


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


def _verb_group(
    forms: tuple[str, str, str], tense: str, negated: bool, plural: bool, state: bool = False, view: str = PLAIN,
    inverted: bool = False,
) -> tuple[Words, str]:  # fmt: skip
    """Auxiliaries (with "not") and the main verb."""
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


def _be(tense: str, negated: bool, plural: bool, view: str = PLAIN) -> Words:
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


def _article(words: Words) -> Words:
    """Turns a leading "a" into "an" where the next word asks for it."""
    if words[0] == "a" and words[1][0] in "aeiouAEIOU" and not words[1].startswith(_SOUNDS_LIKE_CONSONANT):
        return ["an", *words[1:]]
    return words


def possessive(word: str, plural: bool) -> str:
    """Teacher's, teachers', men's."""
    return word + ("'" if plural and word.endswith("s") else "'s")


def noun_phrase(phrase: NounPhrase | Coordination, owner: str = "") -> Words:
    """The words of a noun phrase; ``owner`` is the pronoun of the clause's subject, for his, her, its and their."""
    if isinstance(phrase, Coordination):
        return [*noun_phrase(phrase.first, owner), "and", *noun_phrase(phrase.second, owner)]
    plural = phrase.number == PLURAL
    noun = phrase.noun.plural if plural else phrase.noun.singular
    determiner = phrase.determiner.english[plural]
    words = [_POSSESSIVE[owner]] if phrase.determiner == OWN else [determiner] if determiner else []
    if phrase.possessor is not None and "part" not in phrase.noun.kinds:
        *front, last = noun_phrase(phrase.possessor)
        words = [*front, possessive(last, phrase.possessor.number == PLURAL)]
    words += [phrase.numeral.english] if phrase.numeral else []
    words += [adjective.english for adjective in phrase.adjectives] + [noun]
    words = _article(words)
    if phrase.possessor is not None and "part" in phrase.noun.kinds:
        words += ["of", *noun_phrase(phrase.possessor)]
    if phrase.modifier is not None:
        words += prepositional_phrase(phrase.modifier)
    return words + (_relative(phrase) if phrase.relative is not None else [])


def prepositional_phrase(phrase: PrepositionalPhrase, owner: str = "") -> Words:
    """Preposition and noun phrase."""
    return [phrase.preposition.english, *noun_phrase(phrase.object, owner)]


def _relative(phrase: NounPhrase) -> Words:
    relative: Relative = phrase.relative  # type: ignore[assignment]
    person = "person" in phrase.noun.kinds
    if relative.role == "subject":
        return ["who" if person else "which", *clause(relative.clause)]
    if relative.role == "whose":
        return ["whose", *clause(relative.clause)]
    pronoun = "whom" if person else "which"
    if relative.place is not None:
        return [relative.place.english, pronoun, *clause(relative.clause)]
    verb = relative.clause.verb
    assert verb is not None
    front = [verb.english_preposition] if verb.english_preposition else []
    return [*front, pronoun, *clause(relative.clause, stranded=False)]


def subject_words(subject: Subject) -> Words:
    """The words of a subject; none for the gap of a relative clause."""
    if isinstance(subject, Gap):
        return []
    if isinstance(subject, Pronoun):
        return [subject.pronoun]
    return [subject.english] if isinstance(subject, Somebody) else noun_phrase(subject)


def _object(part: Clause, owner: str, stranded: bool) -> Words:
    """The object with its preposition, the recipient and the goal."""
    assert part.verb is not None
    words = [part.verb.english_preposition] if part.verb.english_preposition and stranded else []
    words += noun_phrase(part.object, owner) if part.object is not None else []
    words += ["to", *noun_phrase(part.recipient, owner)] if part.recipient is not None else []
    return words + (prepositional_phrase(part.goal, owner) if part.goal is not None else [])


def _adjuncts(part: Clause, owner: str) -> Words:
    words = [part.manner.english] if part.manner else []
    words += prepositional_phrase(part.place, owner) if part.place else []
    return words + ([part.time.english] if part.time else [])


def _predicate(part: Clause, view: str, inverted: bool) -> tuple[Words, Words]:
    """The finite auxiliaries (which a question puts before the subject) and the rest of the verb."""
    plural = part.subject.agreement.number == PLURAL
    if part.adjective is not None:
        first, *rest = _be(part.tense, part.negated, plural, view)
        if part.compared is None:
            return [first], [*rest, part.adjective.english]
        assert part.adjective.comparative is not None
        return [first], [*rest, part.adjective.comparative[0], "than", *noun_phrase(part.compared)]
    assert part.verb is not None
    head = part.modal or part.verb
    auxiliaries, main = _verb_group(head.english, part.tense, part.negated, plural, head.is_state, view, inverted)
    frequency = [part.frequency.english] if part.frequency else []
    rest = [*frequency, *([main] if main else [])]
    return auxiliaries, [*rest, part.verb.english[0]] if part.modal else rest


def clause(part: Clause, view: str = PLAIN, inverted: bool = False, stranded: bool = True) -> Words:
    """The words of a clause; ``inverted`` for a question, ``stranded`` False when its preposition went to the front."""
    owner = part.subject.pronoun
    auxiliaries, rest = _predicate(part, view, inverted)
    if part.verb is not None:
        rest = rest + _object(part, owner, stranded)
    rest = rest + _adjuncts(part, owner)
    subject = subject_words(part.subject)
    words = [*auxiliaries, *subject, *rest] if inverted else [*subject, *auxiliaries, *rest]
    if isinstance(part.fronted, Adverb):
        words = [part.fronted.english, *words]
    elif part.fronted is not None:
        words = [*prepositional_phrase(part.fronted, owner), *words]
    return [part.opening.english, ",", *words] if part.opening else words


def _statement(sentence: Statement) -> Words:
    first, second = sentence.clause, sentence.second
    if second is None:
        return clause(first)
    if isinstance(second.subject, Gap):
        return [*clause(first), sentence.conjunction, *clause(second)]
    if sentence.conjunction in ("and", "but"):
        return [*clause(first), ",", sentence.conjunction, *clause(second)]
    view = CONDITION if sentence.conjunction in ("when", "if") else PLAIN
    if sentence.reversed:
        return [sentence.conjunction, *clause(first, view), ",", *clause(second)]
    return [*clause(first), sentence.conjunction, *clause(second, view)]


def _report(sentence: Report) -> Words:
    plural = sentence.subject.agreement.number == PLURAL
    verb: Verb | None = sentence.verb
    forms = verb.english if verb else ("want", "wanted", "wanted")
    auxiliaries, main = _verb_group(forms, sentence.tense, sentence.negated, plural)
    words = [*subject_words(sentence.subject), *auxiliaries, main]
    if verb is not None:
        return [*words, "that", *clause(sentence.clause, SHIFTED if sentence.tense == PAST else PLAIN)]
    inner = sentence.clause
    assert inner.verb is not None
    owner = inner.subject.pronoun
    rest = [inner.verb.english[0], *_object(inner, owner, True), *_adjuncts(inner, owner)]
    return [*words, *subject_words(inner.subject), "to", *rest]


def _question(sentence: Question) -> Words:
    if sentence.word == "who":
        return [*clause(sentence.clause)]
    return [*([sentence.word] if sentence.word else []), *clause(sentence.clause, inverted=True)]


def words_of(sentence: Sentence) -> Words:
    """All words of a sentence, commas among them, without the last mark."""
    if isinstance(sentence, Statement):
        return _statement(sentence)
    if isinstance(sentence, Report):
        return _report(sentence)
    if isinstance(sentence, Question):
        return _question(sentence)
    assert isinstance(sentence, Existence)
    plural = sentence.what.number == PLURAL
    verb = _be(sentence.tense, False, plural)
    return ["there", *verb, *noun_phrase(sentence.what), *prepositional_phrase(sentence.where)]


