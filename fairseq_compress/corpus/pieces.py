"""Segmentation of single pieces of another vocabulary."""

import re
from collections.abc import Callable, Sequence

from fairseq_compress.corpus.segmentation import open_model
from fairseq_compress.work.files import PathLike

Segment = Callable[[str], Sequence[str]]
"""A piece of one vocabulary -> the pieces of another for its text."""

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
# A protobuf message may come in parts, whose last value counts. This part of a sentencepiece ModelProto is its
# normalizer_spec (3) with add_dummy_prefix (3) and remove_extra_whitespaces (4) false.
_NO_PREFIX = b"\x1a\x04\x18\x00\x20\x00"


def piece_segmenter(model: PathLike) -> Segment:
    """How a sentencepiece model segments the text of a piece of another vocabulary.

    A sentencepiece model puts the word-start mark ▁ before every text that it is given, so ``ing`` would become
    ``▁ing``, or ``▁`` and ``ing``. The mark cannot be cut off again: it may be part of a longer piece. Here the model
    runs without that rule, and without the one that removes spaces at the ends; so ``▁play`` is segmented as the start
    of a word, ``ing`` as the inside of one, and ``▁`` stays itself. All other rules, such as NFKC, are kept.

    The byte pieces ``<0x00>`` to ``<0xFF>`` stand for no text of their own and stay themselves.
    """
    processor = open_model(model, _NO_PREFIX)

    def segment(piece: str) -> Sequence[str]:
        if _BYTE.fullmatch(piece):
            return [piece]
        pieces: list[str] = processor.encode(piece, out_type=str)
        return pieces

    return segment
