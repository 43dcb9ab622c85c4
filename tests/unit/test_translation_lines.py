"""Raw text through a model: order, odd lines, bounded memory."""

import pytest

from fairseq_compress.corpus.normalization import normalize_line
from fairseq_compress.decoding import translation_lines
from fairseq_compress.decoding.hypothesis import Hypothesis
from fairseq_compress.decoding.search_options import LineOptions, SearchOptions
from fairseq_compress.decoding.translation_lines import translate_lines
from fairseq_compress.errors import ConfigError, DataError


class Words:
    """In place of a sentencepiece model: words, each the start of a word."""

    clean = staticmethod(normalize_line)

    def encode(self, lines):
        for line in lines:
            yield " ".join(f"▁{word}" for word in line.split())

    def decode(self, lines):
        for line in lines:
            yield line.replace(" ", "").replace("▁", " ").strip()


class Upper:
    """A model that writes capitals, and less of it for worse hypotheses."""

    longest = 50

    def __init__(self):
        self.calls = []

    def translate(self, sentences):
        assert all(sentences)
        self.calls.append(len(sentences))
        return [
            [Hypothesis(-rank - 1.0, [piece.upper() for piece in pieces[rank:]]) for rank in range(3)]
            for pieces in sentences
        ]


def run(lines, model=None, **options):
    reports = []
    found = translate_lines(iter(lines), model or Upper(), Words(), LineOptions(**options), reports.append)
    return list(found), reports


def texts(found):
    return [each.hypotheses[0].text for each in found]


def test_order_and_empty_lines():
    found, reports = run([b"", b"a b", b"   ", "č d".encode(), b""])
    assert texts(found) == ["", "A B", "", "Č D", ""]
    assert found[0].hypotheses == [(0.0, "")]
    assert reports == []


def test_what_is_not_utf8_is_reported_and_stays_in_place():
    found, reports = run([b"a", b"b \xff c", b"d"])
    assert texts(found) == ["A", "", "D"]
    assert [each.raw for each in found] == [None, b"b \xff c", None]
    assert reports == ["line 2: not UTF-8 at byte 3; it is left as it is"]


def test_memory_is_bounded_and_reading_is_lazy():
    model, read = Upper(), []

    def lines():
        for number in range(35):
            read.append(number)
            yield b"a" if number % 2 else b""

    found = translate_lines(lines(), model, Words(), LineOptions(), lambda message: None, lines_at_once=10)
    next(found)
    assert len(read) == 10
    assert len(list(found)) == 34
    assert model.calls == [5, 5, 5, 2]


def test_long_lines_are_split_and_joined():
    line = " ".join(f"w{number}" for number in range(25)).encode()
    found, _ = run([b"x", line, b"y"], longest=10)
    assert texts(found) == ["X", line.decode().upper(), "Y"]
    assert found[1].hypotheses[0][0] == -1.0


def test_the_model_s_own_limit_counts_too():
    line = b" ".join([b"w"] * 60)
    assert texts(run([line], longest=1000)[0]) == [line.decode().upper()]


def test_long_lines_can_be_refused():
    with pytest.raises(DataError, match=r"line 2: 3 subwords, at most 2 are taken; --long-lines split cuts them"):
        run([b"a", b"b c d"], longest=2, long_lines="refuse")


def test_nbest_of_whole_and_split_lines():
    found, _ = run([b"a b c d", b"a b c d e f g h"], nbest=2, longest=4)
    assert found[0].hypotheses == [(-1.0, "A B C D"), (-2.0, "B C D")]
    assert found[1].hypotheses == [(-1.0, "A B C D E F G H"), (-2.0, "B C D F G H")]


class Copy:
    """A model that copies."""

    longest = 1000

    def translate(self, sentences):
        return [[Hypothesis(-1.0, pieces)] for pieces in sentences]


class Characters(Words):
    """In place of a sentencepiece model: characters, with a mark before each word."""

    def encode(self, lines):
        for line in lines:
            yield " ".join("".join(f"▁{word}" for word in line.split()))


@pytest.mark.parametrize(
    "line",
    [
        'He paid 37.4 euro at 12:30. "I saw him." She went to www.example.org, or wrote to user@example.org today.',
        "私は日本人です。「はい。」と言った。2019年3月に東京でコンピューターを買いました。",
        "一封邮件user@example.org和一个地址http://例子.测试/路径/很长的路径",
        "x" * 50,
    ],
)
@pytest.mark.parametrize("limit", [1, 7, 20, 33])
def test_a_model_that_copies_gives_the_line_back(line, limit):
    assert texts(run([line.encode()], Copy(), longest=limit)[0]) == [line]
    found = translate_lines([line.encode()], Copy(), Characters(), LineOptions(longest=limit), print)
    assert texts(found) == [line]


@pytest.mark.parametrize(
    ("source", "target", "line", "expected"),
    [
        ("ja", "en", "犬。猫。", "犬。 猫。"),
        ("ja", "zh-Hans", "犬。猫。", "犬。猫。"),
        ("zh", "ja", "犬。 猫。", "犬。 猫。"),
        ("en", "zh_CN", "Dog. Cat.", "Dog.Cat."),
        ("en", "th", "Dog. Cat.", "Dog. Cat."),
        ("eng_Latn", "ces_Latn", "Dog. Cat.", "Dog. Cat."),
        (None, None, "犬。猫。", "犬。猫。"),
        ("zh", "en", "abcdefghi", "abcdefghi"),
    ],
)
def test_white_space_between_parts_is_that_of_the_target_language(source, target, line, expected):
    options = LineOptions(longest=5, source_lang=source, target_lang=target)
    assert texts(translate_lines([line.encode()], Copy(), Characters(), options, print)) == [
        expected if len(line) > 4 else line
    ]


def test_a_pause_ends_a_batch():
    model = Upper()
    lines = [b"a", None, None, b"b", b"c", None, b"", b"d \xff"]
    reports = []
    found = list(translate_lines(lines, model, Words(), LineOptions(), reports.append))
    assert texts(found) == ["A", "B", "C", "", ""]
    assert model.calls == [1, 2]
    assert reports == ["line 5: not UTF-8 at byte 3; it is left as it is"]


def test_batches_are_bounded_by_bytes(monkeypatch):
    monkeypatch.setattr(translation_lines, "BYTES_AT_ONCE", 10)
    model = Upper()
    assert texts(run([b"a" * 4, b"b" * 4, b"c" * 4, b"d" * 30, b"e"], model)[0]) == [
        "AAAA", "BBBB", "CCCC", "D" * 30, "E"
    ]  # fmt: skip
    assert model.calls == [2, 1, 1, 1]


def test_options_out_of_range():
    with pytest.raises(ConfigError, match=r"--nbest: must be in \[1, inf\), got 0"):
        LineOptions(nbest=0)
    with pytest.raises(ConfigError, match=r"--longest: must be in \[1, inf\), got 0"):
        LineOptions(longest=0)
    with pytest.raises(ConfigError, match=r"--beam.*--lenpen.*--max-len-a.*--max-len-b"):
        SearchOptions(0, float("nan"), -1, 0)
