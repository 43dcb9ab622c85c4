"""Whether a fairseq dictionary belongs to a segmentation: a sentencepiece model, or the merges of a byte-pair encoding.

A dictionary belongs to a model if all of this holds:

1. Every entry is a subword of the model, or text that the model does not know, which it leaves as it is and which is
   rare. fairseq's special entries, ``madeupword0000``, language tags and symbols in brackets do not count. The subwords
   of a byte-pair encoding are its merges and the characters in them, with ``@@`` before the end of a word, and all
   words of one character; 1% of the entries may be others, as fairseq also cuts at white space inside of words.
2. If all entries have one count, the dictionary was written from a sentencepiece model, as ``train-vocabulary`` does:
   it has all pieces of the model, in any order.
3. Else fairseq-preprocess counted it in encoded text, in which some pieces of the model may not occur. If only the last
   merges of a byte-pair encoding are missing, the dictionary is that of a smaller model of the same text: it is refused
   if the probability of that is under one in a million. ``--thresholdsrc`` and ``--nwordssrc`` leave out the rarest
   pieces, often the last merges. So merges before them count as missing where they are hardly more frequent than the
   rarest entry. If that has the count 1, no threshold left out a piece, and a cut by number, which keeps those of one
   count in alphabetical order, none that sorts before the last such entry: such merges count as present.

Two models, of the source and of the target, may share one dictionary: then every entry belongs to one of them, and
neither has all entries by itself.
"""

import logging
import re
from collections.abc import Sequence
from math import log
from typing import NamedTuple

from fairseq_compress.corpus.segmentation.segmenter import Segmenter
from fairseq_compress.corpus.segmentation.words import Words

logger = logging.getLogger(__name__)

BYTE = re.compile("<0x[0-9A-F]{2}>")
NOT_TEXT = re.compile(
    r"madeupword\d+|<(?!0x[0-9A-F]{2}>)[^<>\s]+>|>>\S+<<|\[\w+\]|__\w+__|LANG_TOK_\w+|[a-z]{2,3}_[A-Z][A-Za-z]{1,3}"
)
# Unknown shares. With the usual coverage of characters 0.0005 of a text is unknown to its own model.
MOST_UNKNOWN_COUNTS = 0.1  # of the counts of a dictionary; more are of another model
MOST_UNKNOWN_WORDS = 0.5  # of the words of a text; more are text for a model of pieces, or pieces of another model
MANY_UNKNOWN_WORDS = 0.05  # from here on there is a warning
CHANCE = 1e-6
RARE = 2  # times the count of the rarest entry
WINDOW = 20  # merges before the missing ones: few, as their counts must be nearly the same


class Entries(NamedTuple):
    """A dictionary without fairseq's special entries."""

    symbols: Sequence[str]
    counts: Sequence[int]


def mismatch(entries: Entries, model: Segmenter) -> str | None:
    """Why a dictionary does not belong to a model, as half a sentence about the model, or None.

    Without a segmentation any dictionary will do.
    """
    if isinstance(model, Words):
        return None
    if problem := _foreign(entries, [model]):
        return problem
    listed, pieces = set(entries.symbols), [piece for piece in model.vocabulary() if not NOT_TEXT.fullmatch(piece)]
    if len(set(entries.counts)) == 1 and (absent := [piece for piece in pieces if piece not in listed]):
        return f"the dictionary lacks {len(absent):,} of its {len(pieces):,} pieces, such as {absent[0]!r}"
    if missing := _missing_merges(model, entries):
        return f"it has {missing:,} more merges than the model that encoded the dictionary's text"
    return None


def joint_mismatch(entries: Entries, source: Segmenter, target: Segmenter) -> str | None:
    """The same for two models that share a dictionary."""
    if problem := _foreign(entries, [source, target]):
        return problem
    alone = [model.path for model in (source, target) if _foreign(entries, [model]) is None]
    return f"all entries are {source.noun} of {alone[0]} by itself" if len(alone) == 1 else None


def _foreign(entries: Entries, models: Sequence[Segmenter]) -> str | None:
    """A message about entries that are not subwords of the models, or None."""
    known = {piece for model in models for piece in model.entries()}
    others = [
        (symbol, count)
        for symbol, count in zip(entries.symbols, entries.counts, strict=True)
        if symbol not in known and not NOT_TEXT.fullmatch(symbol) and not any(each.makes(symbol) for each in models)
    ]
    unknown = [
        count
        for symbol, count in others
        if not BYTE.fullmatch(symbol) and any(model.is_unknown(symbol) for model in models)
    ]
    strays = max(model.strays for model in models) * len(entries.symbols)
    if len(others) - len(unknown) <= strays and sum(unknown) <= MOST_UNKNOWN_COUNTS * sum(entries.counts):
        return None
    return (
        f"{len(others):,} of the dictionary's {len(entries.symbols):,} entries are no {models[0].noun}, "
        f"such as {others[0][0]!r}"
    )


def _missing_merges(model: Segmenter, entries: Entries) -> int:
    """How many of the last merges of known characters a dictionary lacks, if that is no chance; else 0."""
    counts = {symbol: count for symbol, count in zip(*entries, strict=True) if not NOT_TEXT.fullmatch(symbol)}
    characters = {character for symbol in counts for character in symbol}
    merges = [merge for merge in model.merges() if characters.issuperset(merge)]
    rarest = min(filter(None, counts.values()), default=0)
    once = [symbol for symbol, count in counts.items() if count == 1]
    certain = [merge for merge in merges if merge <= once[-1]] if once and once == sorted(once) else []
    of_all, of_certain = ([counts.get(merge, 0) for merge in some] for some in (merges, certain))
    return _missing_at_end(of_all, RARE * rarest, WINDOW) or _missing_at_end(of_certain, 0, len(certain))


def _missing_at_end(counts: Sequence[int], rare: int, window: int) -> int:
    """How many of the last counts are 0, if that is no chance where those before them are not rare; else 0."""
    missing = next((place for place, count in enumerate(reversed(counts)) if count), len(counts))
    compared = min(missing, window)
    before = counts[: len(counts) - missing][-compared:] if compared else []
    share_rare = (sum(count <= rare for count in before) + 1) / (len(before) + 2)
    return missing if compared * log(share_rare) < log(CHANCE) else 0


ESCAPED = ("&quot;", "&apos;")


def tokenizer_caution(entries: Entries, escapes: bool) -> str | None:
    """Why the text of a dictionary was not tokenized as text will be, as a sentence, or None.

    Args:
        escapes: Moses tokenization with escapes; False: text is escaped nowhere.
    """
    found = [symbol for symbol in entries.symbols if symbol.startswith(ESCAPED)]
    if found and not escapes:
        return f"it has {found[0]!r}: its text was tokenized by Moses, with escapes (--tokenizer moses)"
    plain = [symbol for symbol in entries.symbols if symbol.startswith(('"', "'"))]
    if escapes and plain and not found:
        return f"it has {plain[0]!r}, not {ESCAPED[0]} or {ESCAPED[1]}: its text has no escapes (--moses-no-escape)"
    return None


def warn_of_unknown(text: str, unknown: int, words: int) -> None:
    """Warn if many words of a text are unknown: it was not segmented by the model."""
    if unknown > MANY_UNKNOWN_WORDS * words:
        logger.warning(
            "%s: %.1f%% of its %s words are unknown to the model (<unk>): it must be encoded into the pieces that the "
            "model was trained on (fairseq-compress encode, or --sentencepiece-model where the verb has it)",
            text, 100 * unknown / words, f"{words:,}",
        )  # fmt: skip
