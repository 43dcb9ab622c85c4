"""The length of text in words, also of text that puts no spaces between them.

    words(x) = ceil(W + n_1 / 1.5 + n_2 / 3.5)

n_1 counts the logographs of the text x (Han, Yi, ...) and n_2 its letters of kana, bopomofo and the scripts of
South-East Asia, Tibet and Java that write without spaces, without combining marks. W counts the other words, separated
by white space or by characters of these scripts. Text without such characters has the words of ``str.split``.

1.5 and 3.5 are the characters for one word of the English text in the Universal Declaration of Human Rights (1,681
words): 1.40 to 1.67 in the 17 versions in logographs, 2.7 to 4.3 in the 12 in other scripts (Burmese 3.6, Khmer 3.6,
Lao 4.3, Thai 4.2, Tibetan 3.6), and 3.4 to 3.9 kana in the 3 in Japanese, whose logographs count as above.
"""

from fairseq_compress.languages import ABUGIDAS, KANA, LOGOGRAPHS
from fairseq_compress.patterns import lazy_pattern

_LOGOGRAPHS = lazy_pattern(f"[{LOGOGRAPHS}]")
_LETTERS = lazy_pattern(f"[{KANA}{ABUGIDAS}]")
_UNSPACED = lazy_pattern(f"[{LOGOGRAPHS}{KANA}{ABUGIDAS}]+")


def count_words(text: str) -> int:
    """The words of a text; 0 only where it is empty or white space."""
    tokens = text.split()
    if not _UNSPACED.search(text):
        return len(tokens)
    others = sum(_others(token) for token in tokens)
    logographs, letters = (sum(map(str.isalnum, kind.findall(text))) for kind in (_LOGOGRAPHS, _LETTERS))
    return max(1, others - (-(14 * logographs + 6 * letters) // 21))  # 14 / 21 is 1 / 1.5, 6 / 21 is 1 / 3.5


def _others(token: str) -> int:
    parts = _UNSPACED.split(token)
    return 1 if len(parts) == 1 else sum(any(map(str.isalnum, part)) for part in parts)
