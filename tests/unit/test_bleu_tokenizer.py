"""BLEU's tokenizer follows the target language, in every form of its code; what is missing is said."""

from pathlib import Path

import pytest
from sacrebleu.metrics import BLEU

from fairseq_compress.corpus import bleu_tokenizer as module
from fairseq_compress.corpus.bleu_tokenizer import bleu_tokenizer


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> set[str]:
    """The tokenizers that can be had; at first none that needs a package or a download."""
    names: set[str] = set()
    monkeypatch.setattr(module, "_works", lambda name: name == "zh" or name in names)
    monkeypatch.setattr(module, "SACREBLEU_DIR", str(tmp_path))
    return names


CHINESE = "zh ZH zh_CN zh-tw zh-Hant zh_Hant_TW zho_Hans zho cmn yue_Hant lzh und_Hani"
JAPANESE = "ja ja_XX ja-JP jpn_Jpan jpn"
KOREAN = "ko ko_KR kor_Hang kor_Kore"
UNSPACED = "th th_TH tha_Thai lo lao_Laoo km khm_Khmr my my_MM mya_Mymr bo bod_Tibt shn_Mymr"
SPACED = "en en_XX eng_Latn cs cs-CZ sr_Cyrl de hi_IN ar_AR vi zho_Latn jpn-Latn nan_Latn_TW"


def test_codes_of_every_form(installed: set[str]) -> None:
    installed |= {"ja-mecab", "ko-mecab"}
    for codes, name in ((CHINESE, "zh"), (JAPANESE, "ja-mecab"), (KOREAN, "ko-mecab"), (SPACED, "13a")):
        for code in codes.split():
            assert bleu_tokenizer(code) == (name, None), code
    assert bleu_tokenizer(None) == ("13a", None)
    for code in UNSPACED.split():
        name, caution = bleu_tokenizer(code)
        assert name == "char", code
        assert caution is not None
        assert f"BLEU of {code}: characters for words, as it has no spaces between words" in caution
        assert "\n" not in caution


def test_codes_that_sacrebleu_knows_have_its_own_default(installed: set[str]) -> None:
    installed |= {"ja-mecab", "ko-mecab"}
    for code in ("zh", "ja", "ko"):
        assert bleu_tokenizer(code).name == BLEU._TOKENIZER_MAP[code]
    for code in ("en", "cs", "de"):
        assert bleu_tokenizer(code).name == BLEU.TOKENIZER_DEFAULT


@pytest.mark.parametrize("code", ["ja", "kor_Hang"])
def test_without_the_package_subwords_or_characters(installed: set[str], code: str, tmp_path: Path) -> None:
    name, caution = bleu_tokenizer(code)
    assert name == "char"
    assert "needs pip install 'sacrebleu[" in str(caution)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "flores200sacrebleuspm").touch()
    assert bleu_tokenizer(code).name == bleu_tokenizer("th").name == "flores200"
    assert "subwords of flores200 for words" in str(bleu_tokenizer(code).caution)


def test_a_tokenizer_that_cannot_be_made_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (RuntimeError, ImportError, AssertionError):
        monkeypatch.setattr(module, "BLEU", lambda tokenize, error=error: (_ for _ in ()).throw(error()))
        assert bleu_tokenizer("ja").name in ("char", "flores200")


def test_names_that_are_no_codes_are_scored_as_spaced_text() -> None:
    for code in ("", "z", "tgt", "chinese simplified", "12", "de_informal"):
        assert bleu_tokenizer(code) == ("13a", None)


def test_near_equal_chinese_has_a_high_bleu() -> None:
    hypotheses = ["今天北京的天气非常好，我们想出去。", "她昨天下午在商店买了三本书。"]
    references = [["今天北京的天气很好，我们想出去。", "她昨天下午在街角的商店买了三本书。"]]
    scores = [BLEU(tokenize=bleu_tokenizer(code).name).corpus_score(hypotheses, references) for code in (None, "zh_CN")]
    assert scores[0].score < 10
    assert scores[1].score > 50
