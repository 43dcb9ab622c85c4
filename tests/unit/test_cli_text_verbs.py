"""The verbs on text, called as the command does, one after the other as the pipeline uses them."""

import json
from pathlib import Path

import pytest

from fairseq_compress.cli.main import main

ENGLISH = ["The dog runs .", "A man sees a woman .", "", "The dog runs .", "Two dogs"]
CZECH = ["Pes běží .", "Muž vidí ženu .", "x", "Pes běží .", "Dva psi " * 10]


def call(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "raw.en").write_text("\n".join(ENGLISH))
    (tmp_path / "raw.cs").write_text("\n".join(CZECH))
    return tmp_path


def prepare(folder: Path, *options: object) -> int:
    texts = ("--source", folder / "raw.en", "--target", folder / "raw.cs")
    return call("prepare", "--source-lang=en", "--target-lang=cs", *texts, "--output", folder / "clean", *options)


def test_prepare_filters(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(folder) == 0
    assert (folder / "clean.en").read_text().splitlines() == ENGLISH[:2]
    assert (folder / "clean.cs").read_text().splitlines() == CZECH[:2]
    assert json.loads((folder / "clean.report.json").read_text())["kept"] == 2
    assert "read 5 pairs, kept 2, dropped 1 empty, 1 ratio, 1 duplicate" in capsys.readouterr().err


def test_prepare_options(folder: Path) -> None:
    options = ("--no-deduplicate", "--max-ratio", 11, "--report", folder / "counts.json")
    assert prepare(folder, *options) == 0
    assert json.loads((folder / "counts.json").read_text())["kept"] == 4
    assert prepare(folder, "--min-words", 4, "--max-words", 4) == 1
    assert prepare(folder, "--min-words", 3, "--max-words", 4) == 0
    assert (folder / "clean.en").read_text().splitlines() == ENGLISH[:1]


def test_prepare_without_filter_keeps_every_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(folder, "--no-filter") == 0
    assert (folder / "clean.en").read_text() == "\n".join(ENGLISH) + "\n"
    assert prepare(folder, "--no-filter", "--max-words", 19) == 1
    assert "raw.cs, line 5: 20 words, over --max-words 19" in capsys.readouterr().err


def test_vocabulary_encode_generate_collect_decode(folder: Path) -> None:
    prepare(folder)
    prefix = folder / "v"
    inputs = ("--input", folder / "clean.en", folder / "clean.cs")
    assert call("train-vocabulary", *inputs, "--vocab-size", 290, "--output", prefix) == 0
    assert len((folder / "v.dict.txt").read_text().splitlines()) == 287
    encode = ("--sentencepiece-model", f"{prefix}.model", "--input", folder / "raw.cs", "--output", folder / "cs.sp")
    assert call("encode", *encode) == 0
    pieces = (folder / "cs.sp").read_text().splitlines()
    log = [f"D-{index}\t-0.{index}\t{line}" for index, line in enumerate(pieces)]
    (folder / "log").write_text("\n".join(["some log line", *reversed(log)]))
    outputs = ("--output", folder / "h.sp", "--scores", folder / "h.scores")
    assert call("kd-data", "collect", "--input", folder / "log", "--source", folder / "raw.en", *outputs) == 0
    assert (folder / "h.scores").read_text().split() == ["-0.0", "-0.1", "-0.2", "-0.3", "-0.4"]
    decode = ("--sentencepiece-model", f"{prefix}.model", "--input", folder / "h.sp", "--output", folder / "h")
    assert call("decode", *decode) == 0
    assert (folder / "h").read_text().splitlines() == [line.strip() for line in CZECH]


def test_what_a_vocabulary_was_not_trained_on_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "text").write_text("\n".join(["slovo " * 12_000, "▅ slovo", "", "\u200e"]))
    assert call("train-vocabulary", "--input", folder / "text", "--vocab-size", 266, "--output", folder / "v") == 0
    assert capsys.readouterr().err.splitlines() == [
        f"{folder}/v.dict.txt: 263 entries (fairseq adds 4 symbols)",
        f"{folder}/v: 4 lines read, 2 empty (left out), 1 longer than 65,536 bytes (cut into parts), "
        "1 with U+2585, which sentencepiece reserves (trained on without it)",
    ]


def test_sampled_vocabulary(folder: Path) -> None:
    options = ("--input", folder / "raw.cs", "--vocab-size", 275, "--input-sentence-size", 2, "--seed", 4)
    assert call("train-vocabulary", *options, "--output", folder / "1") == 0
    assert call("train-vocabulary", *options, "--output", folder / "2") == 0
    assert (folder / "1.model").read_bytes() == (folder / "2.model").read_bytes()
