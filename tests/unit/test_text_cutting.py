"""Cutting long text: lossless, at ends of sentences where it can be, and never inside what must stay whole."""

import itertools
import re
import sys
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fairseq_compress.corpus.text_cutting import cut_text, is_joined, sentence_ends

any_line = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60)
FILLER = "a man and a dog walk to the house "
CORES = [
    "costs 37.4 euro", "at 12:30 today", "see www.example.org now", '"I saw him." She said', "has 1.234.567 people",
    "user@example.org or", "(see there) and", "« Bonjour ! » et", "„Viděl jsem ho.“ řekla", "10 000 lidí", "what ?! No",
    "https://example.org/a,b;c?d=e.f#g and", "J. R. Smith said", "e.g. this", "‘quoted’ words", 'he said " no " and',
]  # fmt: skip


def words(text):
    return len(text.split())


@given(any_line, st.integers(1, 20), st.sampled_from([None, "en", "cs", "ja", "xx"]))
def test_nothing_is_lost_and_parts_fit(text, limit, language):
    parts = cut_text(text, limit, len, language)
    assert "".join(parts) == text
    assert all(parts)
    for part in parts:  # a single grapheme may be longer
        assert len(part) <= limit or all(is_joined(part, at) for at in range(1, len(part.rstrip(" "))))
    for before, behind in itertools.pairwise(parts):
        assert before.endswith(" ") or unicodedata.category(behind[0]) not in ("Mn", "Mc", "Me")


@given(st.text("ab.,!?\"' ()12", max_size=200), st.integers(1, 8))
@example("1  ?", 1)  # two spaces
@example("1 ?111111", 1)  # after a short part a word looks longer than it is
def test_words_stay_whole_if_they_fit(text, limit):
    parts = cut_text(text, limit, words)
    assert "".join(parts) == text
    for before, behind in itertools.pairwise(parts):
        assert before.endswith(" ")
        assert words(before) <= limit
        assert not behind.startswith(" ")


@pytest.mark.parametrize("own_rules", [False, True])
@pytest.mark.parametrize("core", CORES)
def test_what_must_stay_whole(core, own_rules, monkeypatch):
    """Wherever the limit falls, the cut is at white space, not before what closes, and not behind what opens."""
    if own_rules:
        monkeypatch.setitem(sys.modules, "sentencex", None)
    for limit in range(40, 150, 7):
        text = (FILLER * 3)[limit % 31 :].lstrip() + core + " " + FILLER * 2
        parts = cut_text(text, limit, len, "en")
        assert "".join(parts) == text
        for before, behind in itertools.pairwise(parts):
            assert before.endswith(" ")
            assert not re.match(r"[.,;:!?)»“”’]|\" |000", behind), (before, behind)
            assert not re.search(r"[(«„‘]$|(^| )\"$", before.rstrip()), (before, behind)


@pytest.mark.parametrize(
    ("text", "language", "limit", "parts"),
    [
        ("One two. Three four. Five six.", "en", 5, ["One two. Three four. ", "Five six."]),
        ("One. Two three four five six", "en", 4, ["One. ", "Two three four five ", "six"]),
        ("Dr. Smith paid 3.5 euro. He left.", "en", 6, ["Dr. Smith paid 3.5 euro. ", "He left."]),
        ("Přišel Ing. Novák a 3. května šel. Nic.", "cs", 7, ["Přišel Ing. Novák a 3. května šel. ", "Nic."]),
        ("One two, three four five", "en", 4, ["One two, three four ", "five"]),  # the clause is too short
        ("One two three, four five", "en", 4, ["One two three, ", "four five"]),
        ('He said "no." Then he left us', "en", 5, ['He said "no." ', "Then he left us"]),
    ],
)  # fmt: skip
def test_where_a_text_is_cut(text, language, limit, parts):
    assert cut_text(text, limit, words, language) == parts


@pytest.mark.parametrize(
    ("text", "language", "limit", "parts"),
    [
        ("私は日本人です。あなたは？はい。", "ja", 12, ["私は日本人です。", "あなたは？はい。"]),
        ("「はい。」と言った。", "ja", 6, ["「はい。」", "と言った。"]),
        ("東京でコンピューターを買う", "ja", 10, ["東京でコンピューター", "を買う"]),
        ("会议在2019年3月12日举行", "zh", 6, ["会议在", "2019年", "3月12日举", "行"]),
        ("请看www.example.org的说明", "zh", 16, ["请看", "www.example.org的", "说明"]),
        ("ประเทศไทย เมืองไทย", "th", 12, ["ประเทศไทย ", "เมืองไทย"]),
        ("👨‍👩‍👧‍👦👨‍👩‍👧‍👦", None, 7, ["👨‍👩‍👧‍👦", "👨‍👩‍👧‍👦"]),
        ("e\u0301" * 4, None, 3, ["e\u0301"] * 4),
    ],
)
def test_text_without_spaces(text, language, limit, parts):
    assert cut_text(text, limit, len, language) == parts


def test_little_of_a_long_text_is_measured():
    """The lengths that are measured grow with the text, not with its square."""
    for text, measure in (
        ("a dog runs to the house and sees a man. " * 2500, words),
        ("x" * 30_000, len),
        ("漢字仮名" * 8000, len),
        ("x" * 30_000 + " and a dog" * 900, lambda part: len(part) // 9),
    ):
        measured = []
        parts = cut_text(text, 50, lambda part: measured.append(len(part)) or measure(part))  # noqa: B023
        assert "".join(parts) == text
        assert sum(measured) < 6 * len(text)


def test_sentences_by_our_own_rules(monkeypatch):
    text = 'He left. "Why?" J. Smith asked... On 3. May it was 3.5 euro! 今日は。はい。'
    monkeypatch.setitem(sys.modules, "sentencex", None)
    places = [0, *sentence_ends(text), len(text)]
    parts = [text[start:end] for start, end in itertools.pairwise(places)]
    assert parts == ["He left. ", '"Why?" ', "J. Smith asked... ", "On 3. May it was 3.5 euro! ", "今日は。", "はい。"]
