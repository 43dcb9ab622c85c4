"""English words for the trees."""

from .determiners import OWN
from .english_verbs import CONDITION, PLAIN, SHIFTED, Words, be_words, verb_group
from .features import PAST, PLURAL
from .lexicon import Adverb
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

_POSSESSIVE = {"he": "his", "she": "her", "it": "its", "they": "their"}
_SOUNDS_LIKE_CONSONANT = ("university",)


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
    return words + (_relative(phrase.relative, "person" in phrase.noun.kinds) if phrase.relative is not None else [])


def prepositional_phrase(phrase: PrepositionalPhrase, owner: str = "") -> Words:
    """Preposition and noun phrase."""
    return [phrase.preposition.english, *noun_phrase(phrase.object, owner)]


def _relative(relative: Relative, person: bool) -> Words:
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
        first, *rest = be_words(part.tense, part.negated, plural, view)
        if part.compared is None:
            return [first], [*rest, part.adjective.english]
        assert part.adjective.comparative is not None
        return [first], [*rest, part.adjective.comparative[0], "than", *noun_phrase(part.compared)]
    assert part.verb is not None
    head = part.modal or part.verb
    auxiliaries, main = verb_group(head.english, part.tense, part.negated, plural, head.is_state, view, inverted)
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
    verb = sentence.verb
    forms = verb.english if verb else ("want", "wanted", "wanted")
    auxiliaries, main = verb_group(forms, sentence.tense, sentence.negated, plural)
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
        return clause(sentence.clause)
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
    verb = be_words(sentence.tense, False, plural)
    return ["there", *verb, *noun_phrase(sentence.what), *prepositional_phrase(sentence.where)]
