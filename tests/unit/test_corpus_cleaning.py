"""Normalization and filtering of pairs."""

import json
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairseq_compress.corpus.cleaning import (
    DROP_REASONS,
    CleaningReport,
    CleaningRules,
    Pair,
    PairCleaner,
    clean_parallel,
    normalize_line,
    read_pairs,
)
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.work.files import read_lines

any_text = st.text(st.characters(exclude_categories=["Cs"]))
few_words = st.lists(st.sampled_from(["a", "b", "3,5"]), max_size=12).map(" ".join)


def make_pairs(texts: list[tuple[str, str]]) -> list[Pair]:
    return [Pair("a.en", "a.cs", number, *pair) for number, pair in enumerate(texts, start=1)]


@pytest.mark.parametrize(
    ("raw", "normalized"),
    [
        ("  a \t b  ", "a b"),
        ("a\u00a0b\u2028c\u0085d\x00e\u3000f\u202fg\u2581h\ri", "a b c d e f g h i"),
        ("r\u030ceka", "\u0159eka"),  # NFC: r + caron -> ř
        ("„Ano,“ řekl… ½ ﬁ", "„Ano,“ řekl… ½ ﬁ"),  # quotes, ellipsis and compatibility characters stay
        ("VELKÁ", "VELKÁ"),
        (
            "\ufeffne\u200bna\u00adpadá 👨\u200d👩",
            "nenapadá 👨\u200d👩",
        ),  # what is invisible goes, the joiner of emoji stays
        (" \u3000 ", ""),
    ],
)
def test_normalization(raw: str, normalized: str) -> None:
    assert normalize_line(raw) == normalized


@given(any_text)
def test_normalized_is_one_nfc_line_for_every_tool_and_stays_so(text: str) -> None:
    line = normalize_line(text)
    assert normalize_line(line) == line
    assert unicodedata.is_normalized("NFC", line)
    assert len(line.splitlines()) <= 1
    assert line.split() == [word for word in line.split(" ") if word]


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("a", "", "empty"),
        ("", "", "empty"),
        ("\u200e", "\u200f", "empty"),
        ("a b", "\u061c", "empty"),
        ("a", "b c", "too_short"),
        ("a b", "b c", None),
        ("a " * 10, "b " * 11, "too_long"),
        ("a " * 10, "b " * 10, None),
        ("a b", "c " * 7, None),  # ratio 3.5, but only 5 words apart
        ("a b", "c " * 8, "ratio"),  # 6 apart, ratio 4
        ("a b c", "c " * 9, None),  # 6 apart, ratio exactly 3
        ("same line", "same line", "identical"),
    ],
)
def test_each_rule(source: str, target: str, reason: str | None) -> None:
    rules = CleaningRules(min_words=2, max_words=10, max_ratio=3.0, drop_identical=True)
    source, target = normalize_line(source), normalize_line(target)
    assert PairCleaner(rules).drop_reason(source, target) == reason
    assert PairCleaner(rules).drop_reason(target, source) == reason


def test_the_first_of_equal_pairs_stays() -> None:
    texts = [("a", "b"), ("a", "c"), ("a", "b"), ("c", "b"), ("a", "b")]
    cleaner = PairCleaner(CleaningRules())
    assert [pair.line_number for pair in cleaner.select(make_pairs(texts))] == [1, 2, 4]
    assert cleaner.report.dropped["duplicate"] == 2
    assert len(list(PairCleaner(CleaningRules(deduplicate=False)).select(make_pairs(texts)))) == 5


@given(st.lists(st.tuples(few_words, few_words)), st.integers(1, 8), st.floats(1, 4), st.booleans())
def test_cleaning_only_removes_counts_add_up_and_twice_is_once(texts, max_words, max_ratio, drop_identical) -> None:
    rules = CleaningRules(max_words=max_words, max_ratio=max_ratio, drop_identical=drop_identical)
    cleaner = PairCleaner(rules)
    pairs = make_pairs(texts)
    kept = list(cleaner.select(pairs))
    assert kept == [pair for pair in pairs if pair in kept]  # a subsequence, in order
    assert cleaner.report.read == len(pairs) == len(kept) + sum(cleaner.report.dropped.values())
    assert cleaner.report.kept == len(kept) == len({(pair.source, pair.target) for pair in kept})
    assert list(PairCleaner(rules).select(kept)) == kept


@given(st.lists(st.tuples(few_words, few_words)))
def test_without_dropping_every_pair_stays(texts) -> None:
    pairs = make_pairs(texts)
    assert list(PairCleaner(CleaningRules(max_words=12), drop=False).select(pairs)) == pairs


def test_without_dropping_a_long_line_is_an_error() -> None:
    cleaner = PairCleaner(CleaningRules(max_words=3), drop=False)
    with pytest.raises(DataError, match=r"a\.cs, line 2: 4 words, over --max-words 3"):
        list(cleaner.select(make_pairs([("a", "b"), ("a b c", "a b c d")])))


def test_all_bad_rules_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"--min-words.*got 0.*--max-ratio.*got nan.*--max-words.*got -1"):
        CleaningRules(min_words=0, max_words=-1, max_ratio=float("nan"))


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def clean(folder: Path, sources: list[Path], targets: list[Path], **options) -> CleaningReport:
    cleaner = PairCleaner(CleaningRules(), **options)
    return clean_parallel(sources, targets, folder / "o.en", folder / "o.cs", folder / "o.json", cleaner)


def test_files_are_joined_and_the_report_written(tmp_path: Path) -> None:
    sources = [write(tmp_path, "1.en", "One\u2028line\r\n\r\nTwo"), write(tmp_path, "2.en", b"\xef\xbb\xbfTwo\n")]
    targets = [write(tmp_path, "1.cs", "Jedna\nx\nDva\n"), write(tmp_path, "2.cs", "Dva")]
    report = clean(tmp_path, sources, targets)
    assert (tmp_path / "o.en").read_bytes() == b"One line\nTwo\n"
    assert (tmp_path / "o.cs").read_bytes() == b"Jedna\nDva\n"
    written = json.loads((tmp_path / "o.json").read_text())
    assert written["read"] == 4
    assert written["kept"] == 2
    assert written["dropped"] == {**dict.fromkeys(DROP_REASONS, 0), "empty": 1, "duplicate": 1}
    assert written["rules"]["max_words"] == 250
    assert report.summary() == "read 4 pairs, kept 2, dropped 1 empty, 1 duplicate"


def test_a_one_line_file_and_identical_sides(tmp_path: Path) -> None:
    report = clean(tmp_path, [write(tmp_path, "a", "Praha")], [write(tmp_path, "b", "Praha")])
    assert (report.kept, report.identical) == (1, 1)


def test_without_dropping_empty_lines_stay_in_place(tmp_path: Path) -> None:
    clean(tmp_path, [write(tmp_path, "a", "1\n\n1\n")], [write(tmp_path, "b", "x\ny\nx")], drop=False)
    assert (tmp_path / "o.en").read_text() == "1\n\n1\n"
    assert (tmp_path / "o.cs").read_text() == "x\ny\nx\n"


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    write(tmp_path, "o.en", "old")
    source, target = write(tmp_path, "a", "good\n\xff".encode("latin1")), write(tmp_path, "b", "x\ny")
    with pytest.raises(DataError, match="line 2: not valid UTF-8"):
        clean(tmp_path, [source], [target])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "o.en"]
    assert (tmp_path / "o.en").read_text() == "old"


def test_nothing_left_and_bad_file_lists(tmp_path: Path) -> None:
    source, target = write(tmp_path, "a", "x\n"), write(tmp_path, "b", "\n")
    with pytest.raises(DataError, match=r"no pair is left of .*dropped 1 empty"):
        clean(tmp_path, [source], [target])
    with pytest.raises(ConfigError, match="equally many files, got 2 and 1"):
        clean(tmp_path, [source, source], [target])
    with pytest.raises(ConfigError, match=r"o\.cs is also an input"):
        clean(tmp_path, [source], [write(tmp_path, "o.cs", "x\n")])


def data_folder() -> Path | None:
    named = os.environ.get("FAIRSEQ_COMPRESS_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "data"
    return folder / "multi30k" if (folder / "multi30k" / "train.cs").is_file() else None


@pytest.mark.shared_data
@pytest.mark.skipif(data_folder() is None, reason="no real text: set FAIRSEQ_COMPRESS_DATA")
def test_real_text_with_spaces_is_cleaned_by_what_separates_words() -> None:
    folder = data_folder()
    assert folder is not None
    raw = zip(read_lines(folder / "train.en"), read_lines(folder / "train.cs"), strict=True)
    whole = [[line.replace("\u200b", "") for line in pair] for pair in raw]  # it is there twice, behind a space
    lines = [tuple(" ".join(unicodedata.normalize("NFC", line).split()) for line in pair) for pair in whole]
    kept, seen = [], set()
    for number, pair in enumerate(lines, start=1):
        short, long = sorted(len(line.split()) for line in pair)
        if short and long <= 40 and not (long - short > 5 and long > 1.5 * short) and pair not in seen:
            seen.add(pair)
            kept.append((number, *pair))
    cleaner = PairCleaner(CleaningRules(max_words=40, max_ratio=1.5))
    pairs = cleaner.select(read_pairs([folder / "train.en"], [folder / "train.cs"]))
    assert [(pair.line_number, pair.source, pair.target) for pair in pairs] == kept
    assert 0 < len(kept) < len(lines)
