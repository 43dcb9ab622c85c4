"""Text to subword pieces and back, with a trained sentencepiece model."""

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import sentencepiece

from fairseq_compress.corpus.cleaning import normalize_line, squeeze_whitespace
from fairseq_compress.corpus.files import PathLike, atomic_write, check_distinct, check_not_empty, progress, read_lines
from fairseq_compress.errors import DataError

BATCH_LINES = 4096  # one call into sentencepiece, which spreads it over the cores


class Segmenter:
    """A sentencepiece model as two functions on lines.

    ``decode(encode(x))`` is ``x`` normalized: by :func:`normalize_line`, then by the rules inside the model.

    Args:
        model: path of the ``.model`` file.

    Raises:
        DataError: the file is missing or no sentencepiece model.
    """

    def __init__(self, model: PathLike) -> None:
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            with open(model, "rb") as stream:
                self._processor.LoadFromSerializedProto(stream.read())
        except OSError as error:
            raise DataError(f"cannot read {os.fspath(model)}: {error.strerror}") from error
        except RuntimeError as error:
            raise DataError(f"{os.fspath(model)} is not a sentencepiece model") from error

    def pieces(self) -> list[str]:
        """All pieces but the special ones."""
        model = self._processor
        return [
            model.id_to_piece(index)
            for index in range(model.get_piece_size())
            if not (model.is_control(index) or model.is_unknown(index) or model.is_byte(index))
        ]

    def encode(self, lines: Iterable[str]) -> Iterator[str]:
        """Yield the pieces of each line, separated by spaces; an empty line stays one."""
        remaining = iter(lines)
        while batch := [normalize_line(line) for line in islice(remaining, BATCH_LINES)]:
            for pieces in self._processor.encode(batch, out_type=str):
                yield " ".join(pieces)

    def decode(self, lines: Iterable[str]) -> Iterator[str]:
        """Yield the text of each line of pieces.

        A model may produce any bytes: broken UTF-8 becomes U+FFFD, and a line feed must not break the line.
        """
        for line in lines:
            # Line by line: sentencepiece takes a batch that starts with an empty list for one single line.
            pieces = line.split()
            yield squeeze_whitespace(self._processor.decode(pieces)) if pieces else ""


def encode_file(model: PathLike, source: PathLike, output: PathLike) -> int:
    """Write the pieces of each line of a text file, and return the number of lines.

    Raises:
        ConfigError: the output is the input or the model.
        DataError: a file is missing, empty, not UTF-8, or no model. Nothing is written then.
    """
    return _convert(Segmenter(model).encode, model, source, output, "encode")


def decode_file(model: PathLike, source: PathLike, output: PathLike) -> int:
    """Write the text of each line of pieces of a file, and return the number of lines.

    Raises:
        ConfigError, DataError: as :func:`encode_file`.
    """
    return _convert(Segmenter(model).decode, model, source, output, "decode")


def _convert(
    function: Callable[[Iterable[str]], Iterator[str]],
    model: PathLike,
    source: PathLike,
    output: PathLike,
    description: str,
) -> int:
    check_distinct([model, source], [output])
    total = check_not_empty(source)
    written = 0
    with atomic_write(output) as stream:
        for line in function(progress(read_lines(source), total, description)):
            stream.write(line + "\n")
            written += 1
        if written != total:
            raise DataError(f"{os.fspath(source)} changed while it was read: {total} lines, then {written}")
    return written
