"""Language codes of any form and scripts without spaces between words."""

import unicodedata

import pytest

from fairseq_compress import languages
from fairseq_compress.corpus.bleu_tokenizer import bleu_tokenizer
from fairseq_compress.errors import ConfigError
from fairseq_compress.languages import (
    base_language,
    check_language,
    has_sentence_spaces,
    is_chinese,
    is_unspaced,
    script,
    unspaced_share,
)

CODES = [  # code, language, script, unspaced
    ("en", "en", None, False),
    ("pt_BR", "pt", None, False),
    ("pt-br", "pt", None, False),
    ("zh", "zh", None, True),
    ("zh-Hant", "zh", "Hant", True),
    ("zh_TW", "zh", "Hant", True),
    ("zh_CN", "zh", "Hans", True),
    ("zho_Hans", "zh", "Hans", True),
    ("chi", "zh", None, True),
    ("cmn_Hant", "zh", "Hant", True),
    ("zh_Latn_pinyin", "zh", "Latn", False),
    ("yue_Hant", "yue", "Hant", True),
    ("ja_XX", "ja", None, True),
    ("jpn_Jpan", "ja", "Jpan", True),
    ("kor_Hang", "ko", "Hang", False),
    ("sr_Latn", "sr", "Latn", False),
    ("sr@latin", "sr", "Latn", False),
    ("sr-Cyrl-RS", "sr", "Cyrl", False),
    ("eng_Latn", "en", "Latn", False),
    ("ces", "cs", None, False),
    ("cze", "cs", None, False),
    ("arb_Arab", "ar", "Arab", False),
    ("hsb", "hsb", None, False),
    ("THA", "th", None, True),
    ("bod_Tibt", "bo", "Tibt", True),
    ("dzo", "dz", None, True),
    ("pli_Thai", "pi", "Thai", True),
    ("de_CH_1996", "de", None, False),
    ("iw", "he", None, False),
    ("src", "src", None, False),
]


@pytest.mark.parametrize(("code", "language", "named", "unspaced"), CODES)
def test_codes(code, language, named, unspaced):
    assert check_language("--source-lang", code) == code
    assert (base_language(code), script(code), is_unspaced(code)) == (language, named, unspaced)


@pytest.mark.parametrize("code", ["", "en cs", "en.txt", "../en", "en-", "-en", "en--GB", "čs", "en\n", "@", "en:cs"])
def test_what_is_no_code_is_refused_by_name(code):
    with pytest.raises(ConfigError, match=r"^--target-lang: must be a language code \(.*\), got "):
        check_language("--target-lang", code)


def test_the_share_of_unspaced_letters():
    assert unspaced_share("今天 ok.") == 0.5
    assert unspaced_share("Ano, 12!") == unspaced_share("대한민국") == unspaced_share("") == unspaced_share("。、") == 0
    for text in ("私はリンゴを食べます。", "ｶﾀｶﾅ", "วันนี้อากาศดี", "ສະບາຍດີ", "ជំរាបសួរ", "မင်္ဂလာပါ", "བཀྲ་ཤིས།", "ꆈꌠꁱꂷ"):
        assert unspaced_share(text) == 1, text


def test_the_scripts_are_whole():
    """Every letter whose name begins with one of these scripts counts, and no other letter or digit."""
    scripts = (
        "CJK UNIFIED IDEOGRAPH", "CJK COMPATIBILITY IDEOGRAPH", "IDEOGRAPHIC", "HANGZHOU NUMERAL", "HIRAGANA",
        "KATAKANA", "HALFWIDTH KATAKANA", "BOPOMOFO", "YI SYLLABLE", "TANGUT", "KHITAN SMALL SCRIPT", "NUSHU",
        "THAI", "LAO", "TIBETAN", "MYANMAR", "KHMER", "TAI LE", "NEW TAI LUE", "TAI THAM", "TAI VIET", "BALINESE",
        "JAVANESE", "AHOM", "VERTICAL KANA", "MASU MARK", "VERTICAL IDEOGRAPHIC ITERATION MARK",
        "HENTAIGANA", "OLD CHINESE ITERATION MARK",
    )  # fmt: skip
    wrong = []
    for character in map(chr, range(0x30000)):
        name = unicodedata.name(character, "")  # Python 3.11 has no name for Tangut ideographs
        letter = unicodedata.category(character) in ("Lo", "Lm", "Lu", "Ll", "Lt", "Nd", "Nl")
        if name and letter and name.startswith(scripts) != (unspaced_share(character) == 1):
            wrong.append(f"U+{ord(character):04X} {name}")
    assert wrong == []


def test_all_of_chinese_is_scored_by_characters():
    assert {"zh", "yue", "cdo", "cjy"} <= languages.CHINESE_LANGUAGES <= languages.UNSPACED_LANGUAGES
    for code in (*languages.CHINESE_LANGUAGES, "zho_Hans", "nan_Hant", "cdo-Hani"):
        assert (is_chinese(code), has_sentence_spaces(code), bleu_tokenizer(code)) == (True, False, ("zh", None)), code
    assert not any(map(is_chinese, ("ja", "cdo_Latn", "jpn_Jpan", "en", "th")))


def test_spaces_between_sentences():
    for code in ("en", "zh_Latn", "th", "tha_Thai", "blk", "khb", "tdd", "blt", "bod_Tibt", "jpn-Latn", "ko"):
        assert has_sentence_spaces(code), code
    for code in ("zh", "zh_TW", "ja", "jpn_Jpan", "ii", "cjy"):
        assert not has_sentence_spaces(code), code
