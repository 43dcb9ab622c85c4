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
from typing import NamedTuple

from sacrebleu.metrics import BLEU
from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS
from sacrebleu.utils import SACREBLEU_DIR

from fairseq_compress.languages import base_language, is_chinese, is_unspaced, script

DEFAULT, CHARACTERS, SUBWORDS = "13a", "char", "flores200"
_PACKAGES = {"ja-mecab": "sacrebleu[ja]", "ko-mecab": "sacrebleu[ko]"}

# Besides Chinese: scripts of ISO 15924, which count more, and languages.
_TOKENIZERS = {
    "Jpan": "ja-mecab", "Hrkt": "ja-mecab", "Hira": "ja-mecab", "Kana": "ja-mecab", "ja": "ja-mecab",
    "Kore": "ko-mecab", "Hang": "ko-mecab", "ko": "ko-mecab",
}  # fmt: skip


class Tokenizer(NamedTuple):
    """The name of a tokenizer of sacreBLEU."""

    name: str
    caution: str | None = None
    """One line, where it is not the usual tokenizer."""


def bleu_tokenizer(language: str | None) -> Tokenizer:
    """The tokenizer for a language code such as ``zh``, ``zh_CN``, ``zh-Hant`` or ``zho_Hans``; default: 13a."""
    if language is None:
        return Tokenizer(DEFAULT)
    named = script(language)
    wanted = "zh" if is_chinese(language) else _TOKENIZERS.get(named or base_language(language))
    if wanted is None and not is_unspaced(language):
        return Tokenizer(DEFAULT)
    if wanted is not None and _works(wanted):
        return Tokenizer(wanted)
    reason = f"{wanted} needs pip install '{_PACKAGES[wanted]}'" if wanted else "it has no spaces between words"
    if os.path.exists(os.path.join(SACREBLEU_DIR, "models", os.path.basename(SPM_MODELS[SUBWORDS]["url"]))):
        return Tokenizer(SUBWORDS, f"BLEU of {language}: subwords of {SUBWORDS} for words, as {reason}")
    return Tokenizer(
        CHARACTERS,
        f"BLEU of {language}: characters for words, as {reason}; subwords of {SUBWORDS} need its model, which "
        f"'sacrebleu --tokenize {SUBWORDS}' downloads",
    )


def _works(name: str) -> bool:
    if name not in _PACKAGES:
        return True
    try:
        BLEU(tokenize=name)
    except (RuntimeError, ImportError, AssertionError):  # not installed, or another dictionary than sacreBLEU's
        return False
    return True
