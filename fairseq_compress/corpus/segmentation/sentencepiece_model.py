"""Text to subword pieces and back, with a trained sentencepiece model."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import sentencepiece

from fairseq_compress.corpus.normalization import PIECE_SPACE, normalize_line
from fairseq_compress.corpus.segmentation.segmenter import Segmenter, Tokenizer
from fairseq_compress.errors import DataError
from fairseq_compress.work.files import PathLike
from fairseq_compress.work.windows import groups

Segment = Callable[[str], Sequence[str]]
"""A piece of one vocabulary -> the pieces of another for its text."""

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
# A protobuf message may come in parts, whose last value counts. This part of a sentencepiece ModelProto is its
# normalizer_spec (3) with add_dummy_prefix (3) and remove_extra_whitespaces (4) false.
_NO_PREFIX = b"\x1a\x04\x18\x00\x20\x00"
BATCH_LINES = 4096  # one call into sentencepiece, which spreads it over the cores
BATCH_CHARACTERS = 1 << 19  # whose pieces take some 20 MB


def open_model(model: PathLike, options: bytes = b"") -> sentencepiece.SentencePieceProcessor:
    """A sentencepiece model; ``options``: part of a serialized ModelProto, which overrides the file."""
    processor = sentencepiece.SentencePieceProcessor()
    try:
        with open(model, "rb") as stream:
            processor.LoadFromSerializedProto(stream.read() + options)
    except OSError as error:
        raise DataError(f"cannot read {os.fspath(model)}: {error.strerror}") from error
    except RuntimeError as error:
        raise DataError(f"{os.fspath(model)} is not a sentencepiece model") from error
    return processor


class SentencePiece(Segmenter):
    """A sentencepiece model.

    ``decode(encode(x))`` is ``x`` normalized: by :func:`normalize_line`, then by the rules inside the model.
    """

    noun = "pieces"

    def __init__(self, path: PathLike, tokenizer: Tokenizer | None = None) -> None:
        super().__init__(path, tokenizer)
        self._processor = open_model(path)

    def clean(self, line: str) -> str:
        return normalize_line(line)

    def split(self, lines: Iterable[str]) -> Iterator[str]:
        for batch in groups(lines, len, BATCH_LINES, BATCH_CHARACTERS):
            for pieces in self._processor.encode(batch, out_type=str):
                yield " ".join(pieces)

    def join(self, subwords: Sequence[str]) -> str:
        """A model may produce any bytes: broken UTF-8 becomes U+FFFD, and a line feed is left to be squeezed."""
        # Line by line: sentencepiece takes a batch that starts with an empty list for one single line.
        text: str = self._processor.decode(list(subwords))
        return text

    def entries(self) -> list[str]:
        """All pieces of text, bytes included."""
        return [self._processor.id_to_piece(index) for index in self._text_ids()]

    def vocabulary(self) -> list[str]:
        return self.entries()

    def merges(self) -> list[str]:
        """None of a unigram model."""
        model = self._processor
        scores = [(index, model.get_score(index)) for index in self._text_ids() if not model.is_byte(index)]
        if not all(score == int(score) for _, score in scores):  # log-probabilities of a unigram model
            return []
        pieces = (model.id_to_piece(index) for index, _ in scores)
        return [piece for piece in pieces if len(piece) > 1]

    def is_unknown(self, subword: str) -> bool:
        ids = self._processor.encode(subword.replace(PIECE_SPACE, " "), out_type=int)
        space = self._processor.piece_to_id(PIECE_SPACE)
        others = [index for index in ids if index != space]
        return bool(others) and all(map(self._processor.is_unknown, others))

    def _text_ids(self) -> list[int]:
        model = self._processor
        return [index for index in range(len(model)) if not (model.is_control(index) or model.is_unknown(index))]


def piece_segmenter(model: PathLike) -> Segment:
    """A function that segments the text of a piece of another vocabulary by a sentencepiece model.

    The model runs without ``add_dummy_prefix`` and ``remove_extra_whitespaces``: ``▁play`` is segmented as the start of
    a word, ``ing`` as the inside of one, and ``▁`` is unchanged, as are the byte pieces ``<0x00>`` to ``<0xFF>``.
    """
    processor = open_model(model, _NO_PREFIX)

    def segment(piece: str) -> Sequence[str]:
        if _BYTE.fullmatch(piece):
            return [piece]
        pieces: list[str] = processor.encode(piece, out_type=str)
        return pieces

    return segment
