"""Words of two vocabularies: the same ones, and nothing between them."""

from pathlib import Path

import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fairseq_compress.corpus.normalization import normalize_line
from fairseq_compress.corpus.word_segmentation import DualSegmenter, WordSegmenter
from fairseq_compress.errors import DataError
from tests.helpers.dual_corpus import (
    LANGUAGES,
    RARE,
    WORDS,
    make_lines,
    make_vocabularies,
    spell,
    train_model,
    write_text,
)

TEXT = [line for language in LANGUAGES for line in make_lines(language, 150, seed=7)]
PLAIN = [" ".join(WORDS["en"])] * 3
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
sentences = st.lists(st.sampled_from([*RARE, *WORDS["en"], *WORDS["cs"], ",", "."])).map(" ".join)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    write_text(folder / "text", {"en": TEXT})
    teacher, student = make_vocabularies(folder, [folder / "text.en"])
    return Path(teacher.model), Path(student.model)


@pytest.fixture(scope="module")
def segmenter(models: tuple[Path, Path]) -> DualSegmenter:
    return DualSegmenter(*models)


def pairs_of(segmenter: DualSegmenter, lines: list[str]) -> list[list[tuple[str, str]]]:
    return list(segmenter.pairs(lines, "text"))


@settings(deadline=None)
@given(lines=st.lists(any_text | sentences, max_size=3))
@example(lines=["", "a", " \u2581 ", "¨x ﬁ™", "</s> <unk> <s>", "<0x41> 😀<0x0A>"])
def test_words_are_those_of_the_normalized_line(
    models: tuple[Path, Path], segmenter: DualSegmenter, lines: list[str]
) -> None:
    rules = sentencepiece.SentencePieceProcessor(model_file=str(models[0]))
    for line, pairs in zip(lines, pairs_of(segmenter, lines), strict=True):
        expected = rules.normalize(normalize_line(line)).split("▁")[1:]
        for side, vocabulary in enumerate((segmenter.teacher, segmenter.student)):
            words = [pair[side] for pair in pairs]
            assert all(word.startswith("▁") for word in words)
            assert [vocabulary.spelling(word).decode() for word in words] == expected
            assert list(vocabulary.encode([line])) == [" ".join(words)]


def test_made_up_text(segmenter: DualSegmenter) -> None:
    lines = [*TEXT, *make_lines("cs", 100, seed=99)]
    found = pairs_of(segmenter, lines)
    for line, pairs in zip(lines, found, strict=True):
        text = line.replace("ﬁ", "fi").replace("…", "...").replace("№", "No")
        assert [spell(pair[0].split())[1:] for pair in pairs] == text.split()
        assert [spell(pair[1].split())[1:] for pair in pairs] == text.split()
    assert any(len(one.split()) < len(other.split()) for pairs in found for one, other in pairs)
    assert any("<0xF0>" in other and "<0xF0>" not in one for pairs in found for one, other in pairs)


def test_punctuation_belongs_to_its_word(segmenter: DualSegmenter) -> None:
    (pairs,) = pairs_of(segmenter, ["Pes,  kočka\u00a0a „kůň“ – don't!"])
    words = [segmenter.student.spelling(pair[1]).decode() for pair in pairs]
    assert words == ["Pes,", "kočka", "a", "„kůň“", "–", "don't!"]


def test_unknown_characters_of_a_model_without_bytes(tmp_path: Path) -> None:
    options = {"vocab_size": 60, "character_coverage": 0.98}
    model = train_model(tmp_path / "v.model", WORDS["en"] * 5, **options)
    segmenter = DualSegmenter(model, model)
    (pairs,) = pairs_of(segmenter, ["man 猫猫x 😀 <0x41>"])
    assert [segmenter.teacher.spelling(one).decode() for one, _ in pairs] == ["man", "猫猫x", "😀", "<0x41>"]


def test_entries_are_all_but_the_control_symbols(segmenter: DualSegmenter) -> None:
    entries = segmenter.student.entries()
    assert len(entries) == 400 - 3
    assert sum(piece.startswith("<0x") and len(piece) == 6 for piece in entries) == 256


CROSSING = {"split_by_whitespace": False}, {"treat_whitespace_as_suffix": True}


@pytest.mark.parametrize("options", CROSSING, ids=str)
def test_pieces_that_do_not_keep_to_words_are_refused(tmp_path: Path, options: dict[str, bool]) -> None:
    model = train_model(tmp_path / "v.model", TEXT, vocab_size=300, **options)
    with pytest.raises(DataError, match=r"v\.model: ▁ may only begin a piece .*, got \d+ others, such as '.+▁"):
        WordSegmenter(model)


DIFFERENT = [
    ({"normalization_rule_name": "identity"}, r"got '.*' and '.*¨.*'"),
    ({"normalization_rule_name": "nmt_nfkc_cf"}, r"got '.*A.*' and '.*a.*'"),
    ({"add_dummy_prefix": False}, r"got '▁.*' and '[^▁].*'"),
    ({"remove_extra_whitespaces": False}, r"got '.*' and '.*▁▁.*'"),
]


@pytest.mark.parametrize(("options", "message"), DIFFERENT, ids=lambda value: str(value)[:40])
def test_other_normalizers_are_refused(tmp_path: Path, options: dict[str, object], message: str) -> None:
    usual = train_model(tmp_path / "t.model", PLAIN, normalization_rule_name="nmt_nfkc")
    other = train_model(tmp_path / "s.model", PLAIN, **({"normalization_rule_name": "nmt_nfkc"} | options))
    with pytest.raises(DataError, match=rf"t\.model and .*s\.model: must normalize text alike, {message}"):
        DualSegmenter(usual, other)
    DualSegmenter(other, other)


SPELLED, COUNTED = "0061 0062\t0063", "0061 0062\t0061 0062 0020 0061 0062"  # ab is read as c, or as ab ab


@pytest.mark.parametrize(
    ("rule", "line", "message"),
    [
        (SPELLED, "x xab c", r"text, line 2, word 2: both models must spell it alike, .* has '▁x a b', .* '▁x c'"),
        (COUNTED, "x c ab", r"text, line 2: both models must find the same words, .* finds 3, .* 4"),
    ],
)
def test_a_line_that_the_models_read_differently_is_named(tmp_path: Path, rule: str, line: str, message: str) -> None:
    """Rules of several characters are not among what is tried before."""
    (tmp_path / "rules.tsv").write_text(f"{rule}\n")
    text = ["x a b c"] * 5
    usual = train_model(tmp_path / "t.model", text, vocab_size=12, normalization_rule_name="identity")
    other = train_model(tmp_path / "s.model", text, vocab_size=12, normalization_rule_tsv=str(tmp_path / "rules.tsv"))
    with pytest.raises(DataError, match=message):
        pairs_of(DualSegmenter(usual, other), ["x a b c", line])


def test_no_model(tmp_path: Path, models: tuple[Path, Path]) -> None:
    with pytest.raises(DataError, match=r"cannot read .*none\.model"):
        DualSegmenter(models[0], tmp_path / "none.model")
