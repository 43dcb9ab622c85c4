"""Files of text to files of subwords, line by line, and back."""

import os
from collections.abc import Callable, Iterable, Iterator

from fairseq_compress.corpus.segmentation.segmenter import Segmenter
from fairseq_compress.errors import DataError
from fairseq_compress.work.files import PathLike, atomic_write, check_distinct, check_not_empty, progress, read_lines


def encode_file(segmenter: Segmenter, source: PathLike, output: PathLike) -> int:
    """Write the subwords of each line of a text file, and return the number of lines."""
    return _convert(segmenter.encode, segmenter, source, output, "encode")


def decode_file(segmenter: Segmenter, source: PathLike, output: PathLike) -> int:
    """Write the text of each line of subwords of a file, and return the number of lines."""
    return _convert(segmenter.decode, segmenter, source, output, "decode")


def _convert(
    function: Callable[[Iterable[str]], Iterator[str]], segmenter: Segmenter, source: PathLike, output: PathLike,
    name: str,
) -> int:  # fmt: skip
    check_distinct([source, *filter(None, [segmenter.path, segmenter.target.path])], [output])
    total = check_not_empty(source)
    written = 0
    with atomic_write(output) as stream:
        for line in function(progress(read_lines(source), total, name)):
            stream.write(line + "\n")
            written += 1
        if written != total:
            raise DataError(f"{os.fspath(source)} changed while it was read: {total} lines, then {written}")
    return written
