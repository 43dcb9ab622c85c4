"""The sentencepiece vocabulary and its fairseq dictionary."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairseq_compress.corpus.vocabulary import (
    MAX_LINE_BYTES,
    LineCounts,
    VocabularySettings,
    build_vocabulary,
    cut_line,
    dictionary_lines,
    list_pieces,
    sample,
    train_model,
)
from fairseq_compress.errors import ConfigError, DataError

LINES = [f"Muž {word} vidí <pad> psa a{word} <s> </s> <unk> #fairseq:overwrite <0x41>" for word in "abcdefghij"] * 5


def test_the_same_text_gives_the_same_bytes() -> None:
    settings = VocabularySettings(size=330)
    assert train_model(LINES, settings) == train_model(iter(LINES), settings)


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_symbols_then_bytes_then_pieces(model_type: str) -> None:
    pieces = [piece for piece, _ in list_pieces(train_model(LINES, VocabularySettings(288, model_type)))]
    assert len(pieces) == 288
    assert pieces[:3] == ["<unk>", "<s>", "</s>"]
    assert pieces[3:259] == [f"<0x{byte:02X}>" for byte in range(256)]
    assert {"▁", "ž"} <= {character for piece in pieces[259:] for character in piece}


def test_fairseq_reads_the_dictionary_in_the_order_of_the_pieces(tmp_path: Path) -> None:
    from fairseq.data import Dictionary

    (tmp_path / "text").write_text("\n".join(LINES))
    entries = build_vocabulary([tmp_path / "text"], str(tmp_path / "v"), VocabularySettings(size=330))
    dictionary = Dictionary.load(str(tmp_path / "v.dict.txt"))
    pieces = [piece for piece, _ in list_pieces((tmp_path / "v.model").read_bytes())]
    assert entries == 327
    assert dictionary.symbols == ["<s>", "<pad>", "</s>", "<unk>", *pieces[3:]]
    assert len(dictionary) == entries + 4
    vocab = (tmp_path / "v.vocab").read_text().splitlines()
    assert [line.split("\t")[0] for line in vocab] == pieces


@pytest.mark.parametrize("piece", ["<pad>", "</s>", "a b", "", "a\u2028"])
def test_pieces_that_fairseq_would_misread_are_refused(piece: str) -> None:
    with pytest.raises(DataError, match="cannot hold"):
        list(dictionary_lines(["ok", piece]))


def test_too_large_tells_the_largest_size_and_that_size_works() -> None:
    with pytest.raises(ConfigError, match=r"--vocab-size: 5000 .* largest possible is \d+") as caught:
        train_model(LINES, VocabularySettings(size=5000))
    largest = int(str(caught.value).rsplit(" ", 1)[1])
    assert len(list_pieces(train_model(LINES, VocabularySettings(size=largest)))) == largest
    with pytest.raises(ConfigError, match=f"largest possible is {largest}"):
        train_model(LINES, VocabularySettings(size=largest + 1))


def test_too_small_tells_the_smallest_size_and_that_size_works() -> None:
    with pytest.raises(ConfigError, match=r"--vocab-size: 200 is too small.* at least \d+") as caught:
        train_model(LINES, VocabularySettings(size=200))
    smallest = int(str(caught.value).rsplit(" ", 1)[1])
    assert len(list_pieces(train_model(LINES, VocabularySettings(size=smallest)))) == smallest


def test_no_text_and_bad_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="all lines are empty"):
        train_model(["", ""], VocabularySettings(size=300))
    (tmp_path / "bad").write_bytes(b"ok\n\xe9\n")
    with pytest.raises(DataError, match="bad, line 2: not valid UTF-8"):
        build_vocabulary([tmp_path / "bad"], str(tmp_path / "v"), VocabularySettings(size=300))
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]


def test_long_lines_are_trained_on_as_if_they_were_whole() -> None:
    long, settings = " ".join(LINES * 30), VocabularySettings(size=330)
    assert len(long.encode()) > MAX_LINE_BYTES
    counts = LineCounts()
    assert train_model([long], settings, counts) == train_model(LINES * 30, settings)
    assert (counts.read, counts.cut) == (1, 1)
    assert counts.summary() == "1 lines read, 1 longer than 65,536 bytes (cut into parts)"


def test_a_long_line_without_spaces_is_trained_on() -> None:
    counts = LineCounts()
    pieces = list_pieces(train_model(["天地玄黃宇宙洪荒" * 20_000], VocabularySettings(size=280), counts))
    assert counts.cut == 1
    assert {"天", "荒"} <= {piece for piece, _ in pieces}


def test_lines_with_a_reserved_character_are_trained_on_without_it() -> None:
    counts, settings = LineCounts(), VocabularySettings(size=330)
    marked = [line.replace(" vidí ", " \u2585 vidí\u2585") for line in LINES]
    assert train_model(marked, settings, counts) == train_model(LINES, settings)
    assert counts.summary() == "50 lines read, 50 with U+2585, which sentencepiece reserves (trained on without it)"


def test_empty_lines_are_counted() -> None:
    counts = LineCounts()
    train_model(["", *LINES, " "], VocabularySettings(size=330), counts)
    assert counts.summary() == "52 lines read, 2 empty (left out)"
    counts = LineCounts()
    train_model(LINES, VocabularySettings(size=330), counts)
    assert (counts.read, counts.summary()) == (50, "")


@given(st.text(st.sampled_from("aé天👨  "), max_size=60), st.integers(4, 12))
def test_a_cut_line_has_its_words_in_parts_that_fit(line: str, limit: int) -> None:
    parts = list(cut_line(line, limit))
    assert all(len(part.encode()) <= limit for part in parts)
    assert "".join(parts).replace(" ", "") == line.replace(" ", "")
    if all(len(word.encode()) < limit for word in line.split()):
        assert [word for part in parts for word in part.split()] == line.split()


def test_all_bad_settings_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"--vocab-size.*--model-type.*--character-coverage.*--input-sentence-size"):
        VocabularySettings(size=0, model_type="char", character_coverage=1.5, input_sentence_size=-1)


def test_the_sample_depends_on_the_seed_and_is_uniform() -> None:
    lines = [str(number) for number in range(10)]
    assert sample(lines, 20, seed=1) == lines
    assert sample(lines, 4, seed=1) == sample(iter(lines), 4, seed=1) != sample(lines, 4, seed=2)
    counts = dict.fromkeys(lines, 0)
    for seed in range(2000):
        for line in sample(lines, 4, seed):
            counts[line] += 1
    assert all(700 < count < 900 for count in counts.values())  # 800 expected, standard deviation 22


def test_a_sample_of_the_text_is_enough_to_train() -> None:
    settings = VocabularySettings(size=300, input_sentence_size=7, seed=3)
    assert train_model(LINES, settings) == train_model(sample(LINES, 7, 3), VocabularySettings(size=300))
