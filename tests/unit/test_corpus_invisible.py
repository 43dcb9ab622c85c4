"""Invisible characters: kept where a reader sees the difference, dropped elsewhere, and never a space in a word."""

import unicodedata
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import example, given
from hypothesis import strategies as st

from fairseq_compress.corpus.normalization import normalize_line
from fairseq_compress.corpus.segmentation.sentencepiece_model import SentencePiece
from fairseq_compress.corpus.vocabulary import VocabularySettings, build_vocabulary

WALES = "\U0001f3f4\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f"
KEPT = [
    "می\u200cخواهم",  # Persian: I want
    "۵\u200cگانه",
    "3\u200cبعدی",  # a digit before a Persian suffix
    "क्\u200dष",  # Hindi: half form before ssa
    "क्\u200cष",  # explicit virama
    "അവന്\u200d",  # Malayalam: chillu at the end of a word
    "ශ්\u200dරී",  # Sinhala
    "ه\u200d",  # Arabic: initial form, as the abbreviation of Hijri
    "ᠠ\u180bᠪ",  # Mongolian: form of a letter
    "ᠬᠠᠷ\u180eᠠ",  # Mongolian: separated vowel
    "👨\u200d👩\u200d👧 🏳\ufe0f\u200d🌈 ❤\ufe0f\u200d🔥 🙂\u200d↔\ufe0f",
    "👩🏽\u200d💻",
    "1\ufe0f\u20e3 ©\ufe0f",
    "葛\U000e0100飾区",  # Japanese: variant of a character
    "≨\ufe00",  # variant of a symbol
    WALES,
    "\u115fᅡ",  # old Korean: a syllable without an initial
    "\ue000 \U000f0001",  # private use
    "\u0378 \U0002fa20",  # unassigned
    "\u0600١٢",  # Arabic number sign, which is visible
    "ᄀ\u1160ᆨ",
]
DROPPED = {
    "run\u00adning": "running",
    "\ufeffHello\ufeff": "Hello",
    "word\u200bword": "wordword",
    "ខ្មែរ\u200bភាសា": "ខ្មែរភាសា",  # Khmer: a place to break a line
    "made \u200b\u200bto": "made to",
    "\u200e\u200f\u061c": "",
    "\u202aabc\u202c \u2066שלום\u2069 \u206fx": "abc שלום x",
    "a\u2060b\u2063c": "abc",
    "cafe\u034f\u0301": "café",  # what kept a letter and its accent apart
    "Auf\u200clage": "Auflage",  # no script with joiners
    "a\u200db": "ab",
    "می\u200c": "می",  # at the end of a word it changes nothing
    "می\u200c\u200cخواهم": "می\u200cخواهم",
    "ه\u200d\u200d": "ه\u200d",
    "👨\u200d": "👨",
    "a\ufe0f": "a",  # no base of a variation
    " \ufe0fa": "a",
    "❤\ufe0f\ufe0f": "❤\ufe0f",
    "\U000e0067\U000e0062tag": "tag",
    "\U0001f3f4\U000e0067x": "\U0001f3f4x",  # a flag without an end
    "\u115f\u1160": "",
    "ក\u17b4": "ក",
    "\ufff9漢字\ufffaかんじ\ufffb": "漢字かんじ",
    "a\ufdd0\uffff\U0010fffeb": "ab",
    "a\ufffdb\ufffcc": "a b c",  # these take up room
    "\u2800 \u3164\uffa0": "",
}


@pytest.mark.parametrize("text", KEPT)
def test_what_a_script_needs_stays(text: str) -> None:
    assert normalize_line(text) == text


@pytest.mark.parametrize("text", DROPPED)
def test_what_carries_nothing_goes(text: str) -> None:
    assert normalize_line(text) == DROPPED[text]


POOL = [*"aé1.♥漢가각كهہ۵कष्നᠠᠪ𞤀👨🏽⃣ \t\u0338\u0301\u0958\ufa10", *(text for text in (WALES, "\U0001f3f4"))]
IGNORABLE = (
    "\u00ad\u034f\u115f\u1160\u180b\u180e\u200b\u200c\u200d\u200e\u2028\u2060\u2581\ufe0f\ufeff\ufffd\uffff"
    "\U000e0067\U000e007f\U000e0100"
)


@given(st.lists(st.sampled_from([*POOL, *IGNORABLE, *"\u200c\u200d\ufe0f\u094d"])).map("".join))
@example("\u0301\u200e\u094d\u200ca")  # without U+200E the marks change places
def test_once_is_enough(text: str) -> None:
    line = normalize_line(text)
    assert normalize_line(line) == line
    assert unicodedata.is_normalized("NFC", line)


@given(st.lists(st.sampled_from([*POOL, *IGNORABLE])).map("".join))
def test_nothing_visible_goes(text: str) -> None:
    """Beside white space and what becomes one, the visible characters are those of the text, composed."""

    def visible(line: str) -> str:
        shown = (c for c in line if c not in IGNORABLE and not c.isspace() and not 0xE0000 <= ord(c) < 0xE1000)
        return unicodedata.normalize("NFD", "".join(shown))

    assert visible(normalize_line(text)) == visible(text)


def is_default_ignorable(character: str) -> bool:
    """DerivedCoreProperties.txt of Unicode: format controls but for visible ones, and characters with no glyph."""
    code = ord(character)
    ranges = (
        (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F),
        (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF),
        (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF),
    )  # fmt: skip
    return any(first <= code <= last for first, last in ranges)


CHARACTERS = [chr(code) for code in (*range(1, 0xD800), *range(0xE000, 0x20000), *range(0xE0000, 0xE0200))]


def test_between_latin_letters_no_ignorable_character_stays() -> None:
    for character in CHARACTERS:
        line, name = normalize_line(f"a{character}b"), f"U+{ord(character):04X}"
        noncharacter = "\ufdd0" <= character <= "\ufdef" or ord(character) & 0xFFFE == 0xFFFE
        if is_default_ignorable(character):
            assert line == ("a b" if character in "\u3164\uffa0" else "ab"), name
        elif noncharacter or "\ufff9" <= character <= "\ufffb":  # the last are marks around annotations
            assert line == "ab", name
        else:
            assert len(line) >= 3 or unicodedata.combining(character), name


@pytest.fixture(scope="module")
def persian(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("persian")
    (folder / "fa").write_text("می\u200cخواهم کتاب\u200cها را بخوانم.\nمن می\u200cروم.\n" * 20, encoding="utf-8")
    (folder / "en").write_text("I want to read the books.\u200c\nI go.\n" * 20, encoding="utf-8")
    for name, languages in (("both", ("fa", "en")), ("english", ("en",))):
        build_vocabulary([folder / one for one in languages], str(folder / name), VocabularySettings(size=300))
    return str(folder)


def test_the_non_joiner_comes_back_where_the_training_text_has_it(persian: str) -> None:
    segmenter = SentencePiece(f"{persian}/both.model")
    line = "من می\u200cخواهم."
    assert list(segmenter.decode(segmenter.encode([line]))) == [line]
    (pieces,) = segmenter.encode([line])
    assert "\u200c" in pieces.split(" ")
    both, english = (Path(persian, f"{name}.dict.txt").read_text(encoding="utf-8") for name in ("both", "english"))
    assert "\u200c 1" in both.split("\n")
    assert "\u200c" not in english  # dropped between Latin letters


def test_the_rules_of_the_model_make_no_space_of_a_normalized_line(persian: str) -> None:
    """What sentencepiece takes for a space is one already, or gone; for every character in three contexts."""
    rules = sentencepiece.SentencePieceProcessor(model_file=f"{persian}/both.model")
    for before, after in (("a", "b"), ("ی", "خ"), ("👨", "👩")):
        lines = [normalize_line(f"{before}{character}{after}") for character in CHARACTERS]
        for line, normalized in zip(lines, rules.normalize(lines), strict=True):
            spaces = unicodedata.normalize("NFKC", line).count(" ")  # that of U+00B4 begins with one
            assert normalized.lstrip("▁").count("▁") <= spaces, ascii(line)
