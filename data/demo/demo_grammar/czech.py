"""Czech words for the trees: cases, agreement, word order, the place of the clitics "se" and "si"."""

from .czech_verbs import WANT, Words, be_form, finite
from .determiners import decline_determiner, decline_numeral, relative_pronoun, whose
from .features import ACCUSATIVE, DATIVE, FUTURE, GENITIVE, NOMINATIVE, Agreement
from .inflection import decline_adjective, decline_possessive
from .lexicon import Adjective, Adverb
from .prepositions import vocalise
from .trees import (
    Clause,
    Coordination,
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

CONJUNCTIONS = {
    "because": "protože",
    "although": "ačkoli",
    "when": "když",
    "before": "než",
    "while": "zatímco",
    "if": "pokud",
}
QUESTION_WORDS = {"": "", "where": "kde", "when": "kdy", "why": "proč", "what": "co"}


def noun_phrase(phrase: NounPhrase | Coordination, case: str) -> Words:
    """The words of a noun phrase in a case; from five up the numeral has the case and the rest is a genitive plural."""
    if isinstance(phrase, Coordination):
        return [*noun_phrase(phrase.first, case), "a", *noun_phrase(phrase.second, case)]
    gender, number = phrase.noun.gender_in(phrase.number), phrase.number
    words = []
    if phrase.numeral is not None:
        words.append(decline_numeral(phrase.numeral, gender, case))
        if phrase.numeral.counting and case in (NOMINATIVE, ACCUSATIVE):
            case = GENITIVE
    if phrase.determiner.czech:
        words.append(decline_determiner(phrase.determiner.czech, gender, number, case))
    owner = phrase.possessor
    named = owner is not None and bool(owner.noun.possessive)
    if owner is not None and named:
        words.insert(0, decline_possessive(owner.noun.possessive, gender, number, case))
    words += [decline_adjective(adjective.czech, gender, number, case) for adjective in phrase.adjectives]
    words.append(phrase.noun.forms[number, case])
    if owner is not None and not named:
        words += noun_phrase(owner, GENITIVE)
    if phrase.modifier is not None:
        words += prepositional_phrase(phrase.modifier)
    return words + (_relative(phrase, phrase.relative) if phrase.relative is not None else [])


def prepositional_phrase(phrase: PrepositionalPhrase) -> Words:
    """Preposition (with its vowel where needed) and noun phrase."""
    return _governed(phrase.preposition.czech, noun_phrase(phrase.object, phrase.preposition.case))


def _governed(preposition: str, words: Words) -> Words:
    return [vocalise(preposition, words[0]), *words] if preposition else words


def _relative(phrase: NounPhrase, relative: Relative) -> Words:
    """The relative clause between its commas."""
    inner = relative.clause
    gender, number = phrase.noun.gender_in(phrase.number), phrase.number
    if relative.role == "whose":
        assert isinstance(inner.subject, NounPhrase)
        opener = [whose(gender, number), *noun_phrase(inner.subject, NOMINATIVE)]
        return [",", *_ordered(opener, [], inner), ","]
    if relative.role == "subject":
        opener = [relative_pronoun(gender, number, NOMINATIVE)]
    elif relative.place is not None:
        opener = _governed(relative.place.czech, [relative_pronoun(gender, number, relative.place.case)])
    else:
        assert inner.verb is not None
        opener = _governed(inner.verb.preposition, [relative_pronoun(gender, number, inner.verb.case)])
    return [",", *_ordered(opener, subject_words(inner.subject), inner), ","]


def subject_words(subject: Subject) -> Words:
    """The words of a subject in the nominative; none for a pronoun or a gap."""
    if isinstance(subject, (Gap, Pronoun)):
        return []
    return [subject.czech] if isinstance(subject, Somebody) else noun_phrase(subject, NOMINATIVE)


def is_negative(clause: Clause) -> bool:
    """Whether the Czech verb is negated: also by a negative word in the clause ("No teacher came", "saw no dog")."""
    if clause.negated:
        return True
    phrases = (clause.subject, clause.object)
    if any(isinstance(phrase, Somebody) and phrase.negative for phrase in phrases):
        return True
    return any(isinstance(phrase, NounPhrase) and phrase.determiner.czech == "žádný" for phrase in phrases)


def _reflexive(clause: Clause) -> Words:
    clitics = [verb.reflexive for verb in (clause.modal, clause.verb) if verb is not None and verb.reflexive]
    return clitics[:1]


def _verb_parts(clause: Clause, negative: bool) -> tuple[str, str]:
    agreement = clause.subject.agreement
    if clause.verb is None:
        return be_form(clause.tense, agreement, negative), ""
    if clause.modal is not None:
        return finite(clause.modal, clause.tense, agreement, negative)[0], clause.verb.infinitive
    return finite(clause.verb, clause.tense, agreement, negative)


def _objects(clause: Clause) -> Words:
    """What follows the verb, in Czech order: predicate adjective; recipient, object, goal, place."""
    words: Words = []
    if clause.adjective is not None:
        words += _predicate_adjective(clause.adjective, clause.subject.agreement, clause.compared)
    if clause.recipient is not None:
        words += noun_phrase(clause.recipient, DATIVE)
    if clause.object is not None:
        assert clause.verb is not None
        words += _governed(clause.verb.preposition, noun_phrase(clause.object, clause.verb.case))
    for phrase in (clause.goal, clause.place):
        words += prepositional_phrase(phrase) if phrase is not None else []
    return words


def _predicate_adjective(adjective: Adjective, agreement: Agreement, compared: NounPhrase | None) -> Words:
    """Byli unavení, but after a numeral bylo unavených; "older than ..." is starší než and a nominative."""
    case = GENITIVE if agreement.counted else NOMINATIVE
    if compared is None or adjective.comparative is None:
        return [decline_adjective(adjective.czech, agreement.gender, agreement.number, case)]
    comparative = decline_adjective(adjective.comparative[1], agreement.gender, agreement.number, case)
    return [comparative, "než", *noun_phrase(compared, NOMINATIVE)]


def _ordered(opener: Words, subject: Words, clause: Clause, subject_second: bool = False) -> Words:
    """Puts a clause in order, the clitic in second place.

    ``opener`` is the first constituent (a conjunction, a relative or question word, a fronted phrase) or nothing.
    Adverbs of time and frequency stand before the finite verb, an adverb of manner before the verb that carries the
    meaning. ``subject_second``: verb before subject (questions, fronted phrases).
    """
    finite, infinitive = _verb_parts(clause, is_negative(clause))
    adverbs = [[adverb.czech] for adverb in (clause.time, clause.frequency) if adverb is not None]
    manner = [[clause.manner.czech]] if clause.manner is not None else []
    tail = [[infinitive] if infinitive else [], _objects(clause)]
    if subject_second:
        parts = [opener, [finite], subject, *adverbs, *manner, *tail]
    elif infinitive:
        parts = [opener, subject, *adverbs, [finite], *manner, *tail]
    else:
        parts = [opener, subject, *adverbs, *manner, [finite], *tail]
    parts = [part for part in parts if part]
    parts.insert(1, _reflexive(clause))
    return [word for part in parts for word in part]


def clause_words(clause: Clause, conjunction: str = "") -> Words:
    """The words of a main clause, or of one after a subordinating ``conjunction``."""
    subject = subject_words(clause.subject)
    if clause.fronted is not None:
        fronted = clause.fronted
        opener = [fronted.czech] if isinstance(fronted, Adverb) else prepositional_phrase(fronted)
        return _ordered(opener, subject, clause, subject_second=True)
    if clause.opening is not None:
        return _ordered([clause.opening.czech], subject, clause)
    return _ordered([conjunction] if conjunction else [], subject, clause)


def _statement(sentence: Statement) -> Words:
    first, second = sentence.clause, sentence.second
    if second is None:
        return clause_words(first)
    if sentence.conjunction == "and":
        return [*clause_words(first), "a", *clause_words(second)]
    if sentence.conjunction == "but":
        return [*clause_words(first), ",", "ale", *clause_words(second)]
    conjunction = CONJUNCTIONS[sentence.conjunction]
    subordinate = first if sentence.reversed else second
    if conjunction == "když" and subordinate.tense == FUTURE:
        conjunction = "až"
    if sentence.reversed:
        return [*clause_words(first, conjunction), ",", *clause_words(second)]
    return [*clause_words(first), ",", *clause_words(second, conjunction)]


def _report(sentence: Report) -> Words:
    matrix = Clause(sentence.subject, sentence.tense, sentence.verb or WANT, sentence.negated)
    conjunction = "že" if sentence.verb else "aby"
    return [*clause_words(matrix), ",", *clause_words(sentence.clause, conjunction)]


def _question(sentence: Question) -> Words:
    inner = sentence.clause
    if sentence.word == "who":
        return clause_words(inner)
    word = QUESTION_WORDS[sentence.word]
    return _ordered([word] if word else [], subject_words(inner.subject), inner, subject_second=True)


def words_of(sentence: Sentence) -> Words:
    """All words of a sentence, commas among them (some of them double), without the last mark."""
    if isinstance(sentence, Statement):
        return _statement(sentence)
    if isinstance(sentence, Report):
        return _report(sentence)
    if isinstance(sentence, Question):
        return _question(sentence)
    be = be_form(sentence.tense, sentence.what.agreement, False)
    return [*prepositional_phrase(sentence.where), be, *noun_phrase(sentence.what, NOMINATIVE)]
