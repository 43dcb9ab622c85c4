"""The tokenizer of BLEU for a target language: sacreBLEU's own default (Post 2018, arXiv:1804.08771), for all codes.

====================================  =====================================================================
Chinese                               ``zh``: characters, and 13a for the rest
Japanese, Korean                      ``ja-mecab``, ``ko-mecab``; without these packages as the next row
Thai, Lao, Khmer, Burmese, Tibetan    ``flores200`` (2207.04672) if its model was downloaded, else ``char``
all others                            ``13a``
====================================  =====================================================================

13a separates words at spaces: of text without them it makes one token a sentence, and BLEU is near 0 for good
translations too. Scores of different tokenizers have different signatures of sacreBLEU, and are never compared.
"""

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from sacrebleu.metrics import BLEU
from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS
from sacrebleu.utils import SACREBLEU_DIR

DEFAULT, CHARACTERS, SUBWORDS = "13a", "char", "flores200"
_CHINESE, _JAPANESE, _KOREAN, _UNSPACED = ("zh",), ("ja-mecab",), ("ko-mecab",), ()
_PACKAGES = {"ja-mecab": "sacrebleu[ja]", "ko-mecab": "sacrebleu[ko]"}

# ISO 639-1 and 639-3; a script of ISO 15924 in the code (zho_Latn) counts more.
_LANGUAGES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("zh", "zho", "chi", "cmn", "yue", "wuu", "hak", "gan", "hsn", "nan", "lzh"), _CHINESE),
    **dict.fromkeys(("ja", "jpn"), _JAPANESE),
    **dict.fromkeys(("ko", "kor"), _KOREAN),
    **dict.fromkeys(("th", "tha", "nod", "tts", "lo", "lao", "km", "khm", "my", "mya", "bur", "shn"), _UNSPACED),
    **dict.fromkeys(("bo", "bod", "tib", "dz", "dzo"), _UNSPACED),
}
_SCRIPTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("hans", "hant", "hani", "hanb", "bopo"), _CHINESE),
    **dict.fromkeys(("jpan", "hrkt", "hira", "kana"), _JAPANESE),
    **dict.fromkeys(("kore", "hang"), _KOREAN),
    **dict.fromkeys(("thai", "laoo", "khmr", "mymr", "tibt"), _UNSPACED),
}
# Thai, Lao, Tibetan; Burmese; Khmer; kana; Han with its extensions.
_UNSPACED_LETTERS = re.compile(
    "[\u0e01-\u0fff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_LETTERS = re.compile(r"[^\W\d_]")


class Tokenizer(NamedTuple):
    """What cuts text into the words of BLEU."""

    name: str
    """One of sacreBLEU's."""
    caution: str | None = None
    """One line, where it is not what a reader would expect."""


def bleu_tokenizer(language: str | None) -> Tokenizer:
    """The tokenizer for a target language in codes such as ``zh``, ``zh_CN``, ``zh-Hant``, ``zho_Hans``, ``eng_Latn``.

    Args:
        language: None and what is no known code: 13a.
    """
    if language is None:
        return Tokenizer(DEFAULT)
    wanted = _preferred(language)
    if wanted is None or wanted == _CHINESE:
        return Tokenizer(DEFAULT if wanted is None else wanted[0])
    if wanted and _works(wanted[0]):
        return Tokenizer(wanted[0])
    reason = f"{wanted[0]} needs pip install '{_PACKAGES[wanted[0]]}'" if wanted else "it has no spaces between words"
    if os.path.exists(os.path.join(SACREBLEU_DIR, "models", os.path.basename(SPM_MODELS[SUBWORDS]["url"]))):
        return Tokenizer(SUBWORDS, f"BLEU of {language}: subwords of {SUBWORDS} for words, as {reason}")
    return Tokenizer(
        CHARACTERS,
        f"BLEU of {language}: characters for words, as {reason}; subwords of {SUBWORDS} need its model, which "
        f"'sacrebleu --tokenize {SUBWORDS}' downloads",
    )


def unspaced_share(lines: Iterable[str]) -> float:
    """Of all letters, those of scripts that are written without spaces between words: 0 to 1."""
    letters = unspaced = 0
    for line in lines:
        letters += len(_LETTERS.findall(line))
        unspaced += sum(character.isalpha() for character in _UNSPACED_LETTERS.findall(line))
    return unspaced / max(1, letters)


def _preferred(language: str) -> tuple[str, ...] | None:
    """sacreBLEU's tokenizer of a language; none of its own for what has no spaces; None for 13a."""
    first, *others = re.split(r"[-_.]", language.lower())
    for script in others:
        if len(script) == 4 and script.isalpha():
            return _SCRIPTS.get(script)
    return _LANGUAGES.get(first)


def _works(name: str) -> bool:
    try:
        BLEU(tokenize=name)
    except (RuntimeError, ImportError, AssertionError):  # not installed, or another dictionary than sacreBLEU's
        return False
    return True
