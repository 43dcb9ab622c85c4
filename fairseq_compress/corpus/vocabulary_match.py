"""Does a fairseq dictionary belong to a sentencepiece model? Another model's pieces would be read as other words.

A dictionary belongs to a model if all of this holds:

1. Every entry is a piece of the model, or text that the model does not know, which ``spm_encode`` writes as it is and
   which is rare. fairseq's special entries, ``madeupword0000``, language tags and symbols in brackets do not count.
2. If all entries have one count, the dictionary was written from a vocabulary, as ``train-vocabulary`` does: it has all
   pieces of the model, in their order.
3. Else fairseq-preprocess counted it in encoded text, in which some pieces of the model may not occur. But the last
   merges of a byte-pair encoding are not all missing where those before them are not: that is the dictionary of a
   smaller model of the same text, whose pieces the larger one has too. It is refused if chance would do that less than
   once in a million times.

Two models, of the source and of the target, may share one dictionary: then every entry belongs to one of them, and
neither has all entries by itself.
"""

import re
from collections.abc import Sequence
from math import log
from typing import NamedTuple

from fairseq_compress.corpus.segmentation import Segmenter

BYTE = re.compile("<0x[0-9A-F]{2}>")
NOT_TEXT = re.compile(
    r"madeupword\d+|<(?!0x[0-9A-F]{2}>)[^<>\s]+>|>>\S+<<|\[\w+\]|__\w+__|LANG_TOK_\w+|[a-z]{2,3}_[A-Z][A-Za-z]{1,3}"
)
MOST_UNKNOWN = 0.1  # of the counts; with the usual coverage of characters it is 0.0005
CHANCE = 1e-6


class Entries(NamedTuple):
    """A dictionary without fairseq's special entries."""

    symbols: Sequence[str]
    counts: Sequence[int]


def mismatch(entries: Entries, model: Segmenter) -> str | None:
    """What proves that a dictionary does not belong to a model, as half a sentence about the model, or None."""
    if problem := _foreign(entries, [model]):
        return problem
    symbols, pieces = _text(entries.symbols), _text(model.entries())
    if len(set(entries.counts)) == 1 and symbols != pieces:
        return _difference(symbols, pieces)
    if missing := _missing_merges(model, set(symbols)):
        return f"it has {missing:,} more merges than the model that encoded the dictionary's text"
    return None


def joint_mismatch(entries: Entries, source: Segmenter, target: Segmenter) -> str | None:
    """The same for two models that share a dictionary."""
    if problem := _foreign(entries, [source, target]):
        return problem
    alone = [model.path for model in (source, target) if _foreign(entries, [model]) is None]
    return f"all entries are pieces of {alone[0]} by itself" if len(alone) == 1 else None


def _text(symbols: Sequence[str]) -> list[str]:
    return [symbol for symbol in symbols if not NOT_TEXT.fullmatch(symbol)]


def _foreign(entries: Entries, models: Sequence[Segmenter]) -> str | None:
    """What tells of entries that are no pieces of the models."""
    known = {piece for model in models for piece in model.entries()}
    others = [
        (symbol, count)
        for symbol, count in zip(entries.symbols, entries.counts, strict=True)
        if symbol not in known and not NOT_TEXT.fullmatch(symbol)
    ]
    unknown = [
        count
        for symbol, count in others
        if not BYTE.fullmatch(symbol) and any(model.is_unknown(symbol) for model in models)
    ]
    if len(unknown) == len(others) and sum(unknown) <= MOST_UNKNOWN * sum(entries.counts):
        return None
    return (
        f"{len(others):,} of the dictionary's {len(entries.symbols):,} entries are no pieces, such as {others[0][0]!r}"
    )


def _difference(symbols: list[str], pieces: list[str]) -> str:
    """How a dictionary of pieces alone differs from all of them."""
    listed = set(symbols)
    if missing := [piece for piece in pieces if piece not in listed]:
        return f"the dictionary lacks {len(missing):,} of its {len(pieces):,} pieces, such as {missing[0]!r}"
    place = next(place for place, (one, other) in enumerate(zip(symbols, pieces, strict=False)) if one != other)
    return f"it has the pieces in another order: piece {place + 1} is {pieces[place]!r}, the entry {symbols[place]!r}"


def _missing_merges(model: Segmenter, symbols: set[str]) -> int:
    """How many of the last merges of known characters a dictionary lacks, if that is no chance; else 0."""
    characters = {character for symbol in symbols for character in symbol}
    has = [merge in symbols for merge in model.merges() if characters.issuperset(merge)]
    missing = next((count for count, found in enumerate(reversed(has)) if found), len(has))
    before = has[-2 * missing : -missing] if missing else []
    share_missing = (before.count(False) + 1) / (len(before) + 2)
    return missing if missing * log(share_missing) < log(CHANCE) else 0
