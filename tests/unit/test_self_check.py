"""The check of an export: its numbers, BLEU by the target language, and what it says when it proves nothing."""

from pathlib import Path

import pytest

from fairseq_compress.decoding.hypothesis import Hypothesis
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.errors import CheckError
from fairseq_compress.export.options import CheckOptions
from fairseq_compress.export.self_check import SelfCheck
from fairseq_compress.runtimes.opened import OpenedModel

SOURCE = ["a b c d e", "f g h i j", "k l m n o", "p q r s t"]


class Characters:
    """Stands in for a sentencepiece model: the pieces of a text are its words."""

    def encode(self, lines):
        return iter(lines)

    def decode(self, lines):
        return iter(lines)


class Model:
    """Translates by a table of lines."""

    longest = 100

    def __init__(self, outputs: list[str]) -> None:
        self.table = dict(zip(SOURCE, outputs, strict=True))

    def translate(self, sentences):
        return [[Hypothesis(0.0, self.table[" ".join(sentence)].split())] for sentence in sentences]


def check(tmp_path: Path, references: list[str], target_lang: str, before: list[str], after: list[str], **options):
    for name, lines in (("source", SOURCE), ("reference", references)):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    settings = CheckOptions(tmp_path / "source", tmp_path / "reference", **options)
    original, exported = (
        OpenedModel(Model(outputs), SearchOptions(), ("en", target_lang), Characters(), (), {}, {})
        for outputs in (before, after)
    )
    return SelfCheck(original, settings).compare(exported, "int8")


def test_a_good_check_has_no_caution(tmp_path: Path) -> None:
    found = check(tmp_path, SOURCE, "cs", SOURCE, [*SOURCE[:3], "p q r s x"], max_bleu_loss=50)
    assert (found["equal"], found["bleu"]["checkpoint"], found["cautions"]) == (0.75, 100.0, [])
    assert found["bleu"]["difference"] < 0


def test_a_checkpoint_without_bleu_proves_nothing(tmp_path: Path) -> None:
    others = ["今天北京的天气很好。"] * 4
    found = check(tmp_path, others, "cs", SOURCE, SOURCE)
    assert found["bleu"]["difference"] == 0
    (caution,) = found["cautions"]
    assert "the loss of BLEU proves nothing: the checkpoint itself has a BLEU of 0.00" in caution


def test_no_equal_output_is_told(tmp_path: Path) -> None:
    found = check(tmp_path, SOURCE, "cs", SOURCE, [f"{line} x" for line in SOURCE], max_bleu_loss=90)
    (caution,) = found["cautions"]
    assert "of 4 outputs none is equal to the checkpoint's" in caution
    assert "\n" not in caution


def test_bleu_follows_the_target_language(tmp_path: Path) -> None:
    references = ["今天北京的天气很好，我们想出去。", "她昨天下午在商店买了三本书。"] * 2
    near = ["今天北京的天气非常好，我们想出去。", "她昨天下午在商店买了两本书。"] * 2
    found = check(tmp_path, references, "zh_CN", near, near)
    assert "tok:zh" in found["bleu"]["signature"]
    assert found["bleu"]["checkpoint"] > 50
    assert found["cautions"] == []
    # With 13a both have a BLEU near 0, and any export would pass.
    with pytest.raises(CheckError, match=r"loses [3-9]\d\.\d+ BLEU"):
        check(tmp_path, references, "zho_Hans", near, ["今天出去。", "三本书。"] * 2)


def test_the_words_of_other_scripts_are_told(tmp_path: Path) -> None:
    found = check(tmp_path, ["สวัสดีครับ ผมชื่อ"] * 4, "tha_Thai", ["สวัสดีครับ ผมชื่อ"] * 4, ["สวัสดีครับ ผมชื่อ"] * 4)
    assert [caution.startswith("BLEU of tha_Thai: ") for caution in found["cautions"]] == [True]


def test_a_small_text_is_named_where_the_limit_is_passed(tmp_path: Path, monkeypatch) -> None:
    worse = ["x y z", *SOURCE[1:]]
    with pytest.raises(CheckError, match=r"nothing was written; with 4 sentences much of .* give 1,000 or more$"):
        check(tmp_path, SOURCE, "cs", SOURCE, worse)
    monkeypatch.setattr("fairseq_compress.export.self_check.ENOUGH_SENTENCES", 4)
    with pytest.raises(CheckError, match=r"nothing was written$"):
        check(tmp_path, SOURCE, "cs", SOURCE, worse)
