"""Byte-pair encoding by a file of fastBPE: two symbols and their count a line."""

from fairseq_compress.corpus.segmentation.byte_pairs import BytePairs, numbered, read_merges
from fairseq_compress.corpus.segmentation.segmenter import Tokenizer
from fairseq_compress.work.files import PathLike


class FastBpe(BytePairs):
    """As ``fast applybpe``, without a vocabulary."""

    def __init__(self, path: PathLike, tokenizer: Tokenizer | None = None) -> None:
        super().__init__(path, read_merges(path, numbered(path), 3, "t h 5271"), tokenizer)
