"""The generator of the demo corpus: Czech forms and sentences known by hand, agreement in random ones, the files."""

import hashlib
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "data" / "demo"))

from demo_grammar import determiners, lexicon
from demo_grammar.features import ANIMATE, CASES, FEMININE, GENDERS, INANIMATE, NEUTER, NUMBERS, PLURAL, SINGULAR
from demo_grammar.inflection import decline_adjective, decline_possessive, participle
from demo_grammar.prepositions import FROM, IN, NEAR_PLACE, ON, vocalise
from demo_grammar.sentences import Sentences, realize
from demo_grammar.trees import (
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
)

GENERATE = Path(__file__).resolve().parents[2] / "data" / "demo" / "generate.py"
PARADIGMS = {  # nominative, genitive, dative, accusative, locative, instrumental; singular / plural
    "student": "student studenta studentovi studenta studentovi studentem"
    " / studenti studentů studentům studenty studentech studenty",
    "dog": "pes psa psovi psa psovi psem / psi psů psům psy psech psy",
    "bird": "pták ptáka ptákovi ptáka ptákovi ptákem / ptáci ptáků ptákům ptáky ptácích ptáky",
    "boy": "chlapec chlapce chlapcovi chlapce chlapcovi chlapcem / chlapci chlapců chlapcům chlapce chlapcích chlapci",
    "horse": "kůň koně koni koně koni koněm / koně koní koním koně koních koňmi",
    "tourist": "turista turisty turistovi turistu turistovi turistou"
    " / turisté turistů turistům turisty turistech turisty",
    "friend": "přítel přítele přítelovi přítele přítelovi přítelem / přátelé přátel přátelům přátele přátelích přáteli",
    "house": "dům domu domu dům domě domem / domy domů domům domy domech domy",
    "forest": "les lesa lesu les lese lesem / lesy lesů lesům lesy lesích lesy",
    "hill": "kopec kopce kopci kopec kopci kopcem / kopce kopců kopcům kopce kopcích kopci",
    "book": "kniha knihy knize knihu knize knihou / knihy knih knihám knihy knihách knihami",
    "sister": "sestra sestry sestře sestru sestře sestrou / sestry sester sestrám sestry sestrách sestrami",
    "street": "ulice ulice ulici ulici ulici ulicí / ulice ulic ulicím ulice ulicích ulicemi",
    "song": "píseň písně písni píseň písni písní / písně písní písním písně písních písněmi",
    "answer": "odpověď odpovědi odpovědi odpověď odpovědi odpovědí"
    " / odpovědi odpovědí odpovědím odpovědi odpovědích odpověďmi",
    "city": "město města městu město městě městem / města měst městům města městech městy",
    "airport": "letiště letiště letišti letiště letišti letištěm / letiště letišť letištím letiště letištích letišti",
    "puppy": "štěně štěněte štěněti štěně štěněti štěnětem / štěňata štěňat štěňatům štěňata štěňatech štěňaty",
    "child": "dítě dítěte dítěti dítě dítěti dítětem / děti dětí dětem děti dětech dětmi",
    "station": "nádraží nádraží nádraží nádraží nádraží nádražím"
    " / nádraží nádraží nádražím nádraží nádražích nádražími",
    "museum": "muzeum muzea muzeu muzeum muzeu muzeem / muzea muzeí muzeím muzea muzeích muzei",
}


@pytest.mark.parametrize("english", PARADIGMS)
def test_noun_paradigms(english: str) -> None:
    forms = lexicon.noun(english).forms
    made = " / ".join(" ".join(forms[number, case] for case in CASES) for number in NUMBERS)
    assert made == PARADIGMS[english]


@pytest.mark.parametrize(
    ("lemma", "gender", "number", "expected"),
    [
        ("starý", ANIMATE, SINGULAR, "starý starého starému starého starém starým"),
        ("starý", ANIMATE, PLURAL, "staří starých starým staré starých starými"),
        ("velký", INANIMATE, SINGULAR, "velký velkého velkému velký velkém velkým"),
        ("malý", FEMININE, SINGULAR, "malá malé malé malou malé malou"),
        ("nový", NEUTER, PLURAL, "nová nových novým nová nových novými"),
        ("cizí", ANIMATE, SINGULAR, "cizí cizího cizímu cizího cizím cizím"),
        ("cizí", FEMININE, SINGULAR, "cizí cizí cizí cizí cizí cizí"),
        ("cizí", NEUTER, PLURAL, "cizí cizích cizím cizí cizích cizími"),
    ],
)
def test_adjective_paradigms(lemma: str, gender: str, number: str, expected: str) -> None:
    assert " ".join(decline_adjective(lemma, gender, number, case) for case in CASES) == expected


@pytest.mark.parametrize(
    ("lemma", "plural"),
    [("velký", "velcí"), ("drahý", "drazí"), ("tichý", "tiší"), ("dobrý", "dobří"), ("český", "čeští"),
     ("anglický", "angličtí"), ("mladý", "mladí"), ("zlatý", "zlatí")],
)  # fmt: skip
def test_animate_plural_softens_the_adjective(lemma: str, plural: str) -> None:
    assert decline_adjective(lemma, ANIMATE, PLURAL, "nom") == plural
    assert decline_adjective(lemma, INANIMATE, PLURAL, "nom") == lemma[:-1] + "é"


def test_determiners_numerals_and_relatives() -> None:
    assert determiners.decline_determiner("tento", FEMININE, SINGULAR, "acc") == "tuto"
    assert determiners.decline_determiner("svůj", INANIMATE, SINGULAR, "ins") == "svým"
    assert decline_possessive("Petrův", FEMININE, SINGULAR, "acc") == "Petrovu"
    assert decline_possessive("Janin", ANIMATE, PLURAL, "nom") == "Janini"
    two = [determiners.decline_numeral(determiners.NUMERALS[0], gender, "nom") for gender in GENDERS]
    assert two == ["dva", "dva", "dvě", "dvě"]
    assert determiners.relative_pronoun(ANIMATE, PLURAL, "nom") == "kteří"
    assert determiners.relative_pronoun(FEMININE, SINGULAR, "ins") == "kterou"


def test_participle_agrees() -> None:
    forms = [participle("přišel:přišl", gender, number) for number in NUMBERS for gender in GENDERS]
    assert forms == ["přišel", "přišel", "přišla", "přišlo", "přišli", "přišly", "přišly", "přišla"]


@pytest.mark.parametrize(
    "phrase",
    ["v domě", "ve škole", "ve vlaku", "ve Francii", "ve městě", "v zahradě", "ve kterém", "v lese", "ve třech",
     "s knihou", "se psem", "se sestrou", "se ženou", "se dvěma", "s přítelem", "z Prahy", "ze zahrady",
     "ze Španělska", "z lesa", "k řece", "ke kostelu", "ke stromu", "k sestře", "ke škole", "na stole", "u psa"],
)  # fmt: skip
def test_vocalised_prepositions(phrase: str) -> None:
    preposition, word = phrase.split()
    base = {"ve": "v", "se": "s", "ze": "z", "ke": "k"}.get(preposition, preposition)
    assert vocalise(base, word) == preposition


def adjective(english: str) -> lexicon.Adjective:
    return next(entry for entry in lexicon.ADJECTIVES if entry.english == english)


def verb(english: str, preposition: str = "") -> lexicon.Verb:
    return next(v for v in lexicon.VERBS if (v.english[0], v.english_preposition) == (english, preposition))


def np(words: str, **parts: object) -> NounPhrase:
    """A noun phrase from its English words: determiner (the, a, ...) or numeral or none, adjectives, noun."""
    *front, last = words.split()
    known = (determiners.THE, determiners.INDEFINITE, determiners.THIS, determiners.NO, determiners.OWN)
    determiner = next((d for d in known if front and front[0] in d.english), determiners.BARE)
    numeral = next((n for n in determiners.NUMERALS if front and n.english == front[0]), None)
    adjectives = tuple(map(adjective, front[1:] if numeral or determiner != determiners.BARE else front))
    number = PLURAL if any(n.plural == last for n in lexicon.NOUNS) else SINGULAR
    noun = next((n for n in lexicon.NOUNS if n.plural == last), None) or lexicon.noun(last)
    return NounPhrase(noun, number, determiner, numeral, adjectives, **parts)


def clause(subject: object, tense: str, what: str, **parts: object) -> Clause:
    """A clause; ``what`` is an adjective, or a verb and the preposition it needs."""
    if any(entry.english == what for entry in lexicon.ADJECTIVES):
        parts["adjective"] = adjective(what)
    else:
        parts["verb"] = verb(*what.split())
    return Clause(np(subject) if isinstance(subject, str) else subject, tense, **parts)


def near(words: str) -> PrepositionalPhrase:
    return PrepositionalPhrase(NEAR_PLACE[0], np(words))


SAW_THE_DOG = clause(Gap(np("the old teachers")), "past", "see", object=np("the small dog"), place=near("the river"))
SEEING_TEACHERS = np("the old teachers", relative=Relative("subject", SAW_THE_DOG))
SENTENCES: list[tuple[Sentence, str, str]] = [
    (
        Statement(clause(SEEING_TEACHERS, "past", "tired")),
        "The old teachers who saw the small dog near the river were tired.",
        "Staří učitelé, kteří viděli malého psa u řeky, byli unavení.",
    ),
    (
        Statement(clause("five teachers", "past", "tired")),
        "Five teachers were tired.",
        "Pět učitelů bylo unavených.",
    ),
    (
        Statement(clause("five teachers", "present", "play with", object=np("his dog"))),
        "Five teachers play with their dog.",
        "Pět učitelů si hraje se svým psem.",
    ),
    (
        Statement(clause("the women", "past", "hungry"), "because", clause(Pronoun(np("the women")), "past", "work")),
        "The women were hungry because they worked.",
        "Ženy byly hladové, protože pracovaly.",
    ),
    (
        Statement(
            clause("the boy", "future", "come", goal=PrepositionalPhrase(FROM, np("Bohemia"))),
            "when",
            clause("the girl", "future", "sleep"),
            reversed=True,
        ),
        "When the boy comes from Bohemia, the girl will sleep.",
        "Až chlapec přijde z Čech, dívka bude spát.",
    ),
    (
        Report(
            np("Jane"),
            lexicon.CLAUSE_VERBS[0],
            "past",
            False,
            clause("the king", "future", "look at", object=np("the old castle")),
        ),
        "Jane said that the king would look at the old castle.",
        "Jana řekla, že se král podívá na starý hrad.",
    ),
    (
        Report(np("the mother"), None, "past", True, clause("the son", "past", "buy", object=np("a big car"))),
        "The mother did not want the son to buy a big car.",
        "Matka nechtěla, aby syn koupil velké auto.",
    ),
    (
        Existence(np("six hens"), PrepositionalPhrase(IN, np("the kitchen")), "past"),
        "There were six hens in the kitchen.",
        "V kuchyni bylo šest slepic.",
    ),
    (
        Question("why", clause(Coordination(np("the dog"), np("the cat")), "past", "fear", object=np("a mouse"))),
        "Why did the dog and the cat fear a mouse?",
        "Proč se báli pes a kočka myši?",
    ),
    (
        Question("", clause("the children", "progressive", "read", object=np("this book"))),
        "Were the children reading this book?",
        "Četly děti tuto knihu?",
    ),
    (
        Statement(clause("no teacher", "past", "become", object=np("a king"))),
        "No teacher became a king.",
        "Žádný učitel se nestal králem.",
    ),
    (
        Statement(
            clause(
                Somebody("somebody", "někdo"),
                "past",
                "steal",
                object=np("the houses", possessor=np("Peter")),
                fronted=PrepositionalPhrase(ON, np("the street")),
            )
        ),
        "On the street somebody stole Peter's houses.",
        "Na ulici ukradl někdo Petrovy domy.",
    ),
    (
        Statement(
            clause(
                "the queen",
                "past",
                "ask about",
                modal=lexicon.MODALS[0],
                object=np("the price", possessor=np("the expensive house")),
                time=lexicon.ADVERBS["TIME_PAST"][0],
            )
        ),
        "The queen wanted to ask about the price of the expensive house yesterday.",
        "Královna se včera chtěla zeptat na cenu drahého domu.",
    ),
]


@pytest.mark.parametrize(("tree", "english", "czech"), SENTENCES, ids=[sentence[1] for sentence in SENTENCES])
def test_sentences_known_by_hand(tree: Sentence, english: str, czech: str) -> None:
    assert realize(tree) == (english, czech)


Analyses = set[tuple[str, str, str]]  # gender, number, case


def analyses() -> tuple[dict[str, Analyses], dict[str, Analyses]]:
    """All readings of every noun form and of every adjective form (relative pronouns among them)."""
    nouns: dict[str, Analyses] = {}
    for entry in lexicon.NOUNS:
        for (number, case), form in entry.forms.items():
            nouns.setdefault(form, set()).add((entry.gender_in(number), number, case))
    adjectives: dict[str, Analyses] = {}
    for lemma in [entry.czech for entry in lexicon.ADJECTIVES] + ["který"]:
        for gender in GENDERS:
            for number in NUMBERS:
                for case in CASES:
                    form = decline_adjective(lemma, gender, number, case)
                    adjectives.setdefault(form, set()).add((gender, number, case))
    return nouns, adjectives


def test_random_sentences_agree() -> None:
    """Checked on the text alone: adjective and noun, subject and participle, antecedent and relative pronoun."""
    nouns, adjectives = analyses()
    pasts: dict[str, set[tuple[str, str]]] = {}
    for entry in lexicon.VERBS:
        for gender in GENDERS:
            for number in NUMBERS:
                pasts.setdefault(participle(entry.past, gender, number), set()).add((gender, number))
    checked = {"adjective": 0, "participle": 0, "relative": 0}
    sentences = Sentences(3)
    for _ in range(2000):
        czech = sentences.pair().czech
        words = re.findall(r"\w+|[,.?]", czech[0].lower() + czech[1:])
        for first, second in pairwise(words):
            if first in adjectives and second in nouns and not first.startswith("kter"):
                assert adjectives[first] & nouns[second], czech
                checked["adjective"] += 1
        if words[0] in adjectives and words[1] in nouns:  # the subject begins the sentence
            subject = {(g, n) for g, n, case in adjectives[words[0]] & nouns[words[1]] if case == "nom"}
            if words[2] in pasts and words[1] not in pasts:
                assert pasts[words[2]] & subject, czech
                checked["participle"] += 1
            if words[2] == "," and words[3].startswith("kter"):
                assert {(g, n) for g, n, _ in adjectives[words[3]]} & subject, czech
                checked["relative"] += 1
    assert min(checked.values()) > 20, checked


def test_text_is_clean_and_one_english_sentence_has_one_translation() -> None:
    sentences = Sentences(4)
    translations: dict[str, str] = {}
    for _ in range(3000):
        english, czech = sentences.pair()
        assert translations.setdefault(english, czech) == czech
        for line in (english, czech):
            assert re.fullmatch(r"[^\W\d_](?:[^\W\d_]|[ ,'])*[.?]", line), line
            assert line[0].isupper(), line
            assert not re.search(r"  | ,|,,|,[.?]|,\S", line), line
        assert 2 <= len(english.split()) <= 35
        assert not re.search(r"\b[Aa] [aeio]|\b[Aa]n [^aeiouE]", english), english


def generate(directory: Path, *arguments: object, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(GENERATE), "--output-dir", str(directory), *map(str, arguments)],
        capture_output=True, text=True, timeout=60, check=False, env=os.environ | {"PYTHONHASHSEED": hash_seed},
    )  # fmt: skip


SMALL = ("--train", 2000, "--valid", 100, "--test", 100)
FILES = [f"{part}.{language}" for part in ("train", "valid", "test") for language in ("en", "cs")]


def digest(directory: Path) -> str:
    return hashlib.sha256(b"".join((directory / name).read_bytes() for name in FILES)).hexdigest()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("demo")
    result = generate(directory, "--seed", 1, *SMALL)
    assert result.returncode == 0, result.stderr
    return directory


def read(directory: Path, name: str) -> list[str]:
    return (directory / name).read_text(encoding="utf-8").splitlines()


def test_one_seed_decides_everything(corpus: Path, tmp_path: Path) -> None:
    assert generate(tmp_path / "same", "--seed", 1, *SMALL, hash_seed="12345").returncode == 0
    assert generate(tmp_path / "other", "--seed", 2, *SMALL).returncode == 0
    assert digest(tmp_path / "same") == digest(corpus)
    assert digest(tmp_path / "other") != digest(corpus)


def test_files_and_no_overlap(corpus: Path) -> None:
    assert sorted(path.name for path in corpus.iterdir()) == sorted(FILES)
    for language in ("en", "cs"):
        parts = {part: read(corpus, f"{part}.{language}") for part in ("train", "valid", "test")}
        assert [len(lines) for lines in parts.values()] == [2000, 100, 100]
        every = [line for lines in parts.values() for line in lines]
        assert len(set(every)) == len(every)


def test_noise_is_in_train_alone_and_at_its_rate(corpus: Path, tmp_path: Path) -> None:
    assert generate(tmp_path, "--seed", 1, *SMALL, "--noise", 0.1).returncode == 0
    for language in ("en", "cs"):
        clean, noisy = ([line.split() for line in read(path, f"train.{language}")] for path in (corpus, tmp_path))
        assert [len(words) for words in clean] == [len(words) for words in noisy]
        pairs = [pair for lines in zip(clean, noisy, strict=True) for pair in zip(*lines, strict=True)]
        changed = sum(a != b for a, b in pairs) / len(pairs)
        assert 0.085 < changed < 0.105  # a little under 0.1: sometimes a word is drawn in place of itself
        train = {" ".join(words) for words in noisy}
        assert not train & set(read(tmp_path, f"valid.{language}") + read(tmp_path, f"test.{language}"))


def test_short_sentences_of_few_words(corpus: Path, tmp_path: Path) -> None:
    assert generate(tmp_path, "--seed", 1, *SMALL, "--max-words", 8, "--choice", 6).returncode == 0
    short, full = (read(path, "train.en") for path in (tmp_path, corpus))
    assert len(short) == len(set(short)) == len(full)
    assert max(len(line.split()) for line in short) == 8 < max(len(line.split()) for line in full)
    known, every = ({word.strip(",.?") for line in lines for word in line.split()} for lines in (short, full))
    assert len(known) < 0.7 * len(every)


def test_examples_of_the_readme_are_real(corpus: Path) -> None:
    pairs = list(zip(read(corpus, "train.en"), read(corpus, "train.cs"), strict=True))
    readme = (GENERATE.parent / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+[.]) \| (.+[.]) \|$", readme, flags=re.MULTILINE)
    assert rows == [pairs[line - 1] for line in (16, 36, 37, 39, 47, 75)]


def test_no_english_word_of_valid_and_test_is_new(corpus: Path) -> None:
    words = {name: {w.strip(",.?").lower() for line in read(corpus, name) for w in line.split()} for name in FILES}
    assert words["valid.en"] | words["test.en"] <= words["train.en"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--train", 0), "--train"),
        (("--test", "many"), "--test"),
        (("--seed", -1), "--seed"),
        (("--train", 1, "--valid", 1), "--valid 1"),
        (("--noise", 1), "--noise"),
        (("--max-words", 4), "--max-words"),
        (("--max-words", 36), "--max-words"),
        (("--choice", 0), "--choice"),
        (("--nonsense",), "--nonsense"),
    ],
)
def test_bad_arguments_give_one_line(tmp_path: Path, arguments: tuple[object, ...], message: str) -> None:
    result = generate(tmp_path / "out", *arguments)
    assert result.returncode != 0
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_output_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    result = generate(tmp_path / "file", "--train", 400, "--valid", 1, "--test", 1)
    assert result.returncode == 1
    assert "--output-dir" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "kept"


def test_lexicon_has_no_homonyms() -> None:
    """One English form stands for one Czech word among nouns, adjectives and verbs each."""
    nouns = [form for entry in (*lexicon.NOUNS, *lexicon.PEOPLE, *lexicon.CITIES)
             for form in (entry.singular, entry.plural) if form]  # fmt: skip
    assert len(set(nouns)) == len(nouns)
    verbs = [(entry.english[0], entry.english_preposition, entry.frame) for entry in lexicon.VERBS]
    assert len(set(verbs)) == len(verbs)
    for table in (lexicon.ADJECTIVES, *lexicon.ADVERBS.values()):
        assert len({entry.english for entry in table}) == len({entry.czech for entry in table}) == len(table)
