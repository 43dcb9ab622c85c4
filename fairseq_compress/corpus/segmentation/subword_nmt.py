"""Byte-pair encoding by a file of subword-nmt: a line ``#version: 0.2``, then two symbols a line."""

import re
from collections.abc import Iterator
from itertools import chain

from fairseq_compress.corpus.segmentation.byte_pairs import BytePairs, Pair, numbered, read_merges
from fairseq_compress.corpus.segmentation.segmenter import Tokenizer
from fairseq_compress.errors import DataError
from fairseq_compress.work.files import PathLike

VERSIONS = ((0, 1), (0, 2))  # a file without a version has the first


class SubwordNmt(BytePairs):
    """As ``subword-nmt apply-bpe``, without glossaries and vocabulary."""

    def __init__(self, path: PathLike, tokenizer: Tokenizer | None = None) -> None:
        version, pairs = _read(path)
        super().__init__(path, pairs, tokenizer, apart=version == VERSIONS[0])


def _read(path: PathLike) -> tuple[tuple[int, ...], Iterator[Pair]]:
    """The version of a file and its merges."""
    lines = numbered(path)
    number, first = next(lines, (0, ""))
    if first.startswith("#version:"):
        text = first.removeprefix("#version:").strip()
        parts = re.sub(r"(\.0+)*$", "", text).split(".")
        version = tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()
        if version not in VERSIONS:
            raise DataError(f"{path}: must be of the version 0.1 or 0.2 of subword-nmt, got {text!r}")
    else:
        version, lines = VERSIONS[0], chain([(number, first)] if number else [], lines)
    return version, read_merges(path, lines, 2, "t h")
