"""Text to subword pieces and back, with a trained sentencepiece model."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import sentencepiece

from fairseq_compress.corpus.cleaning import PIECE_SPACE, normalize_line, squeeze_whitespace
from fairseq_compress.errors import DataError
from fairseq_compress.work.files import PathLike, atomic_write, check_distinct, check_not_empty, progress, read_lines
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


class Segmenter:
    """A sentencepiece model, or one of each language: ``model`` encodes and ``target`` decodes.

    ``decode(encode(x))`` is ``x`` normalized: by :func:`normalize_line`, then by the rules inside the model.
    """

    def __init__(self, model: PathLike, target: PathLike | None = None) -> None:
        self.path = os.fspath(model)
        self.target = self if target is None else Segmenter(target)
        self._processor = open_model(model)

    def entries(self) -> list[str]:
        """All pieces of text, bytes included: the entries of a fairseq dictionary."""
        return [self._processor.id_to_piece(index) for index in self._text_ids()]

    def merges(self) -> list[str]:
        """The merges of a byte-pair encoding, in their order; none of a unigram model."""
        model = self._processor
        scores = [(index, model.get_score(index)) for index in self._text_ids() if not model.is_byte(index)]
        if not all(score == int(score) for _, score in scores):  # log-probabilities of a unigram model
            return []
        pieces = (model.id_to_piece(index) for index, _ in scores)
        return [piece for piece in pieces if len(piece) > 1]

    def is_unknown(self, piece: str) -> bool:
        """Whether the text of a piece is unknown to the model, so that encoding leaves it unchanged."""
        ids = self._processor.encode(piece.replace(PIECE_SPACE, " "), out_type=int)
        space = self._processor.piece_to_id(PIECE_SPACE)
        others = [index for index in ids if index != space]
        return bool(others) and all(map(self._processor.is_unknown, others))

    def _text_ids(self) -> list[int]:
        model = self._processor
        return [index for index in range(len(model)) if not (model.is_control(index) or model.is_unknown(index))]

    def encode(self, lines: Iterable[str]) -> Iterator[str]:
        """Yield the pieces of each line, separated by spaces; an empty line stays one."""
        for batch in groups(map(normalize_line, lines), len, BATCH_LINES, BATCH_CHARACTERS):
            for pieces in self._processor.encode(batch, out_type=str):
                yield " ".join(pieces)

    def decode(self, lines: Iterable[str]) -> Iterator[str]:
        """Yield the text of each line of pieces.

        A model may produce any bytes: broken UTF-8 becomes U+FFFD, and a line feed must not break the line.
        """
        for line in lines:
            # Line by line: sentencepiece takes a batch that starts with an empty list for one single line.
            pieces = line.split()
            yield squeeze_whitespace(self.target._processor.decode(pieces)) if pieces else ""


def encode_file(model: PathLike, source: PathLike, output: PathLike) -> int:
    """Write the pieces of each line of a text file, and return the number of lines."""
    return _convert(Segmenter(model).encode, model, source, output, "encode")


def decode_file(model: PathLike, source: PathLike, output: PathLike) -> int:
    """Write the text of each line of pieces of a file, and return the number of lines."""
    return _convert(Segmenter(model).decode, model, source, output, "decode")


def _convert(
    function: Callable[[Iterable[str]], Iterator[str]], model: PathLike, source: PathLike, output: PathLike, name: str
) -> int:
    check_distinct([model, source], [output])
    total = check_not_empty(source)
    written = 0
    with atomic_write(output) as stream:
        for line in function(progress(read_lines(source), total, name)):
            stream.write(line + "\n")
            written += 1
        if written != total:
            raise DataError(f"{os.fspath(source)} changed while it was read: {total} lines, then {written}")
    return written


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
