"""Normalization of a line of text, before it is segmented."""

import unicodedata

from fairseq_compress.corpus.invisible import drop_invisible
from fairseq_compress.patterns import lazy_pattern

ODD_WHITESPACE = lazy_pattern(r"[\s\x00-\x1f\x7f-\x9f]+")
PIECE_SPACE = "\u2581"  # sentencepiece's mark for a space


def squeeze_whitespace(text: str) -> str:
    """Replace every run of whitespace, control characters and line separators by one space, and strip."""
    if text.isprintable():  # a space is its only white space
        return " ".join(text.split())
    return ODD_WHITESPACE.sub(" ", text).strip(" ")


def normalize_line(text: str) -> str:
    """Unicode NFC, whitespace and U+2581 squeezed, invisible characters dropped. Idempotent.

    Case, quotes and punctuation stay, and the invisible characters that a script needs, see
    :mod:`fairseq_compress.corpus.invisible`. Applied to every text before sentencepiece segments it.
    """
    line = unicodedata.normalize("NFC", text.replace(PIECE_SPACE, " "))
    while (visible := unicodedata.normalize("NFC", drop_invisible(line))) != line:  # what is dropped may part marks
        line = visible
    return squeeze_whitespace(line)
