"""Translations out of a log of fairseq-generate."""

from pathlib import Path

import pytest

from fairseq_compress.corpus.hypotheses import LoggedTranslation, collect_hypotheses, write_hypotheses
from fairseq_compress.errors import ConfigError, DataError

LOG = """2026-01-01 00:00:00 | INFO | fairseq_cli.generate | loading
S-2\tD-1 trap
T-2\tx
H-2\t-0.3125\t▁d va
D-2\t-0.3125\tdva
P-2\t-0.1 -0.2
a log line in between D-0\t-1\tno
S-0\t
D-0\t-1e-05\ttext\twith tabs\tin it
D-1\t-0.25\t
Translated 3 sentences"""


def write_log(folder: Path, text: str, name: str = "g.log") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def test_source_order_with_noise_tabs_and_an_empty_translation(tmp_path: Path) -> None:
    assert collect_hypotheses([write_log(tmp_path, LOG)], 3) == [
        LoggedTranslation("-1e-05", "text with tabs in it"),
        LoggedTranslation("-0.25", ""),
        LoggedTranslation("-0.3125", "dva"),
    ]


def test_shards_join(tmp_path: Path) -> None:
    shards = [write_log(tmp_path, "D-1\t-1\tb\nD-3\t-1\td\n", "1"), write_log(tmp_path, "D-2\t-1\tc\nD-0\t-1\ta", "2")]
    assert [hypothesis.text for hypothesis in collect_hypotheses(shards, 4)] == list("abcd")


def test_pieces_stay_pieces(tmp_path: Path) -> None:
    pieces = "▁p <0xC5> <0x99> es ▁ <0x0A>"
    assert collect_hypotheses([write_log(tmp_path, f"D-0\t-1\t{pieces}")], 1) == [LoggedTranslation("-1", pieces)]


def test_characters_that_end_lines_become_spaces(tmp_path: Path) -> None:
    log = write_log(tmp_path, "D-0\t-1\ta\x85b\u2028c\rd\r\n")
    assert collect_hypotheses([log], 1) == [LoggedTranslation("-1", "a b c d")]


@pytest.mark.parametrize(
    ("log", "expected", "message"),
    [
        (LOG, 5, r"g\.log: 3 translations of 5 lines; the first missing id is 3"),
        (LOG.replace("D-1\t", "X-1\t"), 3, "2 translations of 3 lines; the first missing id is 1"),
        (LOG, 2, r"line 5: id 2 is over the last one, 1 of 2 lines"),
        (LOG + "\nD-0\t-1\tagain", 3, r"line 12: id 0 is there twice.*--nbest 1"),
        ("D-0\t-1", 1, "a D- line needs an id, a score and a text"),
        ("D-0", 1, "a D- line needs an id, a score and a text"),
        ("D-0\tx\ta", 1, "no finite number, got 'x'"),
        ("D-0\tnan\ta", 1, "no finite number, got 'nan'"),
        ("", 1, "is empty"),
    ],
)
def test_an_incomplete_or_damaged_log(tmp_path: Path, log: str, expected: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        collect_hypotheses([write_log(tmp_path, log)], expected)


def test_expected_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--expected-lines: must be positive, got 0"):
        collect_hypotheses([write_log(tmp_path, LOG)], 0)


def test_writing_texts_and_scores(tmp_path: Path) -> None:
    write_hypotheses([LoggedTranslation("-0.5", "a"), LoggedTranslation("-1.25", "")], tmp_path / "o", tmp_path / "s")
    assert (tmp_path / "o").read_text() == "a\n\n"
    assert (tmp_path / "s").read_text() == "-0.5\n-1.25\n"
    with pytest.raises(ConfigError, match="another output"):
        write_hypotheses([], tmp_path / "o", tmp_path / "o")
