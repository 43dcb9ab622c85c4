"""Segmentations as values: what is checked, their identity, and the options that make them."""

import re
import sys

import pytest

from fairseq_compress.cli.common import SegmentationOptions
from fairseq_compress.corpus.segmentation import SEGMENTERS
from fairseq_compress.corpus.segmentation.choice import Segmentation
from fairseq_compress.errors import ConfigError, MissingPackageError
from fairseq_compress.options import all_problems
from fairseq_compress.work.files import file_sha256


@pytest.fixture
def codes(tmp_path):
    (tmp_path / "codes").write_text("t h 3\n")
    return tmp_path / "codes"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "wordpiece"}, "--segmentation: must be one of sentencepiece, subword-nmt, fastbpe, none, got 'wo"),
        ({"kind": "none", "source": "a"}, "--segmentation: none takes no file, got a"),
        ({"kind": "fastbpe"}, "--bpe-codes: must be given with --segmentation fastbpe"),
        ({}, "--sentencepiece-model: must be given with --segmentation sentencepiece"),
        ({"source": "a", "tokenizer": "penn"}, "--tokenizer: must be one of none, moses, got 'penn'"),
    ],
)
def test_wrong_values(arguments, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        Segmentation(**arguments)


def test_identity(codes):
    """That of older versions for sentencepiece alone, and another for everything that changes the subwords."""
    digest = file_sha256(codes)
    assert Segmentation(codes).identity() == digest
    assert Segmentation(codes, codes).identity() == f"{digest},{digest}"
    assert Segmentation(codes).metadata() == {"sentencepiece_model": digest}
    assert Segmentation(codes, codes).metadata() == {
        "sentencepiece_model": digest,
        "target_sentencepiece_model": digest,
    }
    others = [Segmentation(codes, kind=kind) for kind in ("subword-nmt", "fastbpe")]
    others += [Segmentation(codes, tokenizer="moses", no_escape=flag) for flag in (True, False)]
    assert len({each.identity() for each in [*others, Segmentation(codes), Segmentation(kind="none")]}) == 6
    assert all(list(each.metadata()) == ["segmentation"] for each in others)


def test_a_language_is_required_for_moses(codes):
    segmentation = Segmentation(codes, kind="fastbpe", tokenizer="moses")
    with pytest.raises(ConfigError, match="--tokenizer moses: requires the target language, it is not known"):
        segmentation.open(("en", None))
    segmenter = segmentation.open(("eng_Latn", "fr"))
    assert list(segmenter.encode(['Don\'t "it".'])) == ["D@@ o@@ n &@@ a@@ p@@ o@@ s@@ ;@@ t &@@ q@@ u@@ o@@ t@@ ; i@@ "
                                                       "t &@@ q@@ u@@ o@@ t@@ ; ."]  # fmt: skip
    assert list(segmenter.target.encode(["l'eau"])) == ["l@@ &@@ a@@ p@@ o@@ s@@ ; e@@ a@@ u"]
    assert list(segmenter.decode(["l@@ &apos; e@@ au ."])) == ["l'eau."]
    assert list(segmenter.target.decode(segmenter.target.encode(["l'eau « a »"]))) == ["l'eau « a »"]


def test_a_tokenizer_that_is_not_installed(codes, monkeypatch):
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    monkeypatch.delitem(sys.modules, "fairseq_compress.corpus.segmentation.moses", raising=False)
    with pytest.raises(MissingPackageError, match="requires the package sacremoses, which is not installed"):
        Segmentation(codes, kind="fastbpe", tokenizer="moses").open(("en", "fr"))


def test_options():
    def given(**values):
        options = SegmentationOptions(**values)
        assert list(all_problems(options)) == []
        return options.given()

    assert given() is None
    assert given(sentencepiece_model="m") == Segmentation("m")
    assert given(source_sentencepiece_model="a", target_sentencepiece_model="b") == Segmentation("a", "b")
    assert given(sentencepiece_model="m", target_sentencepiece_model="b") == Segmentation("m", "b")
    assert given(segmentation="none") == Segmentation(kind="none")
    assert given(segmentation="fastbpe", bpe_codes="c", tokenizer="moses", moses_no_escape=True) == Segmentation(
        "c", kind="fastbpe", tokenizer="moses", no_escape=True
    )


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"bpe_codes": "c"}, "--bpe-codes: requires --segmentation subword-nmt or fastbpe, got sentencepiece"),
        ({"segmentation": "fastbpe", "sentencepiece_model": "m"},
         "--sentencepiece-model: requires --segmentation sentencepiece, got fastbpe"),
        ({"segmentation": "none", "bpe_codes": "c"}, "--bpe-codes: requires --segmentation subword-nmt or fastbpe"),
        ({"segmentation": "fastbpe"}, "--bpe-codes: must be given with --segmentation fastbpe, or one for each side"),
        ({"segmentation": "fastbpe", "source_bpe_codes": "c"}, "--target-bpe-codes: must be given too, or --bpe-codes"),
        ({"tokenizer": "moses"}, "--sentencepiece-model: must be given with --tokenizer moses"),
        ({"moses_no_escape": True, "sentencepiece_model": "m"}, "--moses-no-escape: requires --tokenizer moses, got"),
        ({"segmentation": "bpe"}, "--segmentation: must be one of sentencepiece, subword-nmt, fastbpe, none, got"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit(values, problem):
    (found,) = all_problems(SegmentationOptions(**values))
    assert found.startswith(problem)


def test_every_kind_is_complete():
    for name, kind in SEGMENTERS.items():
        assert (kind.file is None) == (name == "none")
        assert kind.module.startswith("fairseq_compress.corpus.segmentation.")
