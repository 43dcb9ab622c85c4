"""Text to subwords and back: the kinds of segmentation, and the tokenizers that go before them.

A new kind is a file with a :class:`segmenter.Segmenter` and an entry in :data:`SEGMENTERS`; what it needs is imported
when it is opened.
"""

from typing import NamedTuple


class SegmenterKind(NamedTuple):
    """Where a segmenter is, and its file."""

    module: str
    """Has the segmenter as ``name``, made from its file and a tokenizer."""
    name: str
    file: str | None
    """In a model directory; None: the kind needs no file."""
    option: str
    """Of a verb, for messages."""


_HERE = "fairseq_compress.corpus.segmentation"
SEGMENTERS = {
    "sentencepiece": SegmenterKind(
        f"{_HERE}.sentencepiece_model", "SentencePiece", "sentencepiece.model", "--sentencepiece-model"
    ),
    "subword-nmt": SegmenterKind(f"{_HERE}.subword_nmt", "SubwordNmt", "bpe.codes", "--bpe-codes"),
    "fastbpe": SegmenterKind(f"{_HERE}.fastbpe", "FastBpe", "bpe.codes", "--bpe-codes"),
    "none": SegmenterKind(f"{_HERE}.words", "Words", None, "--segmentation"),
}
TOKENIZERS = ("none", "moses")
