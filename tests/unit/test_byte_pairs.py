"""Byte-pair encoding by files of subword-nmt and fastBPE: equal to a loop, and to both packages."""

import io
import random
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fairseq_compress.corpus.segmentation import byte_pairs
from fairseq_compress.corpus.segmentation.byte_pairs import merged
from fairseq_compress.corpus.segmentation.choice import Segmentation
from fairseq_compress.corpus.segmentation.fastbpe import FastBpe
from fairseq_compress.corpus.segmentation.subword_nmt import SubwordNmt
from fairseq_compress.errors import DataError
from tests.helpers.byte_pairs import by_loop, learned, write_codes
from tests.unit.test_corpus_segmentation import data_folder

any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"), max_size=30)
symbols = st.text("abc", min_size=1, max_size=3)
WORDS = ["lower", "lowest", "newer", "wider", "new", "wide", "ňůžky", "aaaa", "漢字", "e\u0301t", "well-known", "x</w>"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Codes by kind, learned from a few words."""
    folder = tmp_path_factory.mktemp("codes")
    lines = [" ".join(WORDS * 3), "low low low newest new wide ůžůž"]
    return {
        "0.2": write_codes(folder / "two", learned(lines, 40)),
        "0.1": write_codes(folder / "one", learned(lines, 40, apart=True), header=""),
        "fastbpe": write_codes(folder / "fast", learned(lines, 40), header="", counts=True),
    }


@given(st.lists(st.tuples(symbols, symbols), max_size=12), st.text("abc", max_size=16))
@example([("a", "a"), ("aa", "a")], "aaaaaaa")
@example([("ab", "c"), ("a", "b"), ("c", "ab")], "abcabcab")
def test_merges_against_a_loop(pairs, word):
    ranks = {pair: rank for rank, pair in reversed(list(enumerate(pairs)))}
    assert merged(word, ranks) == by_loop(word, ranks)


def test_by_hand(tmp_path):
    merges = [("l", "o"), ("lo", "w"), ("e", "r</w>"), ("low", "er</w>")]
    codes = SubwordNmt(write_codes(tmp_path / "codes", merges))
    line = "lower lowest  over o"
    assert list(codes.encode([line, ""])) == ["lower low@@ e@@ s@@ t o@@ v@@ er o", ""]
    assert list(codes.decode(codes.encode([line]))) == ["lower lowest over o"]
    assert codes.merges() == ["lo@@", "low@@", "er", "lower"]
    assert {"lo@@", "low@@", "er", "lower", "r", "e@@", "o", "o@@"} <= set(codes.entries())
    assert not {"lo", "er@@", "lower@@", "x"} & set(codes.entries())
    assert codes.is_unknown("x@@")
    assert not codes.is_unknown("o@@")
    assert not codes.is_unknown("xy")


def test_a_mark_of_its_own(tmp_path):
    """Version 0.1: ``</w>`` is a symbol, so the same merge may be at the end of a word or inside it."""
    merges = [("t", "h"), ("e", "</w>"), ("th", "e</w>"), ("a", "t"), ("at", "</w>")]
    codes = SubwordNmt(write_codes(tmp_path / "codes", merges, header=""))
    assert list(codes.encode(["the then bath at t"])) == ["the th@@ e@@ n b@@ a@@ th at t"]
    assert {"th", "th@@", "the", "at", "at@@"} <= set(codes.entries())


@pytest.mark.parametrize("kind", ["0.1", "0.2"])
def test_subword_nmt_gives_the_same(files, kind):
    apply_bpe = pytest.importorskip("subword_nmt.apply_bpe", reason="requires the package subword-nmt")
    theirs, ours = apply_bpe.BPE(io.StringIO(files[kind].read_text(encoding="utf-8"))), SubwordNmt(files[kind])

    @given(st.one_of(any_text, st.lists(st.sampled_from(WORDS)).map(" ".join), st.text("lowernst </w>")))
    @example("  a  b ")
    @example("a\u00a0b \u2028 \x85 x\t y")
    @example("</w> w></w> lower</w>")
    def check(line):
        assert next(ours.encode([line])).split(" ") == theirs.process_line(line).strip(" ").split(" ")

    check()


def test_fastbpe_gives_the_same(files):
    package = pytest.importorskip("fastBPE", reason="requires the package fastBPE")
    theirs, ours = package.fastBPE(str(files["fastbpe"])), FastBpe(files["fastbpe"])

    @given(st.one_of(any_text.map(lambda text: text.replace("\0", "")), st.lists(st.sampled_from(WORDS)).map(" ".join)))
    def check(line):
        assert next(ours.encode([line])).split() == theirs.apply([line])[0].split()

    check()


def test_fastbpe_reads_the_merges_of_subword_nmt_with_counts(files):
    one, two = FastBpe(files["fastbpe"]), SubwordNmt(files["0.2"])
    lines = [" ".join(WORDS), "lowerer widest"]
    assert list(one.encode(lines)) == list(two.encode(lines))
    assert one.entries() == two.entries()


@pytest.mark.shared_data
@pytest.mark.skipif(data_folder() is None, reason="no real text: set FAIRSEQ_COMPRESS_DATA")
@pytest.mark.parametrize("language", ["en", "cs"])
def test_real_text(tmp_path, language):
    learn_bpe = pytest.importorskip("subword_nmt.learn_bpe", reason="requires the package subword-nmt")
    apply_bpe = pytest.importorskip("subword_nmt.apply_bpe")
    folder = data_folder()
    with open(folder / f"val.{language}", encoding="utf-8") as text, open(tmp_path / "c", "w", encoding="utf-8") as out:
        learn_bpe.learn_bpe(text, out, 1500)
    lines = (folder / f"train.{language}").read_text(encoding="utf-8").split("\n")[:4000]
    theirs, ours = apply_bpe.BPE(io.StringIO((tmp_path / "c").read_text(encoding="utf-8"))), SubwordNmt(tmp_path / "c")
    assert list(ours.encode(lines)) == [" ".join(theirs.process_line(line).split()) for line in lines]
    assert list(ours.decode(ours.encode(lines))) == [" ".join(line.split()) for line in lines]


def test_a_long_word_takes_little_time(tmp_path):
    """A line of half a megabyte without a space: 500 times the length takes little more than 500 times the time."""
    draw = random.Random(1)
    merges = learned(["".join(draw.choices("abcd", k=300))], 60)
    codes = SubwordNmt(write_codes(tmp_path / "codes", merges))
    word = "".join(draw.choices("abcd", k=200_000))
    start = time.process_time()
    (line,) = codes.encode([word])
    assert time.process_time() - start < 20
    assert list(codes.decode([line])) == [word]


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("#version: 0.3\na b\n", SubwordNmt, "must be of the version 0.1 or 0.2 of subword-nmt, got '0.3'"),
        ("#version: two\na b\n", SubwordNmt, "must be of the version"),
        ("#version: 0.2\n", SubwordNmt, "must have merges, has none"),
        ("", FastBpe, "must have merges, has none"),
        ("#version: 0.2\na b\na b 3\n", SubwordNmt, "line 3: must be a merge such as 't h', got 'a b 3'"),
        ("a b 3\na b\n", FastBpe, "line 2: must be a merge such as 't h 5271', got 'a b'"),
        ("a b\n\nc d\n", SubwordNmt, "line 2: must be a merge such as 't h', got ''"),
        ("a  b\n", SubwordNmt, "line 1: must be a merge"),
    ],
)
def test_damaged_files(tmp_path, text, kind, message):
    (tmp_path / "codes").write_text(text)
    with pytest.raises(DataError, match=message):
        kind(tmp_path / "codes")


def test_files_as_other_systems_write_them(tmp_path):
    (tmp_path / "codes").write_bytes(b"#version: 0.2.0\r\na b</w>\r\na b</w>\r\n\r\n")
    assert list(SubwordNmt(tmp_path / "codes").encode(["ab abb"])) == ["ab a@@ b@@ b"]
    with pytest.raises(DataError, match="cannot read"):
        FastBpe(tmp_path / "none")


def test_words_that_are_not_remembered(files, monkeypatch):
    codes = SubwordNmt(files["0.2"])
    known = list(codes.encode(WORDS))
    monkeypatch.setattr(byte_pairs, "LONGEST_REMEMBERED", 0)
    assert list(SubwordNmt(files["0.2"]).encode(WORDS)) == known
    assert list(codes.encode(WORDS)) == known


def test_no_segmentation():
    words = Segmentation(kind="none").open()
    assert list(words.encode([" a  b\u2028c ", ""])) == ["a b c", ""]
    assert list(words.decode(["a@@ b"])) == ["a@@ b"]
