"""Links between the tokens of sentence pairs, in the format of Pharaoh: ``I-J`` for source token I, target token J."""

import os
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from fairseq_compress.errors import DataError
from fairseq_compress.work.files import PathLike

Ints = NDArray[np.int64]


def read_links(lines: Iterable[str], lengths: Iterable[tuple[int, int]], path: PathLike) -> Iterator[Ints]:
    """Yield the links (L, 2) of each line; numbers are from 0.

    Args:
        lengths: tokens of source and target of each sentence pair.
        path: of the lines, for messages.
    """
    for number, (line, sizes) in enumerate(zip(lines, lengths, strict=True), start=1):
        words = line.split()
        try:
            pairs = [(int(i), int(j)) for i, j in (word.split("-") for word in words)]
            links = np.array(pairs, np.int64).reshape(-1, 2)
        except (ValueError, OverflowError):
            wrong = next((word for word in words if not _is_link(word)), line)
            raise DataError(f"{os.fspath(path)}, line {number}: links must be as in 0-1, got {wrong[:40]!r}") from None
        if (links >= sizes).any():
            i, j = links[(links >= sizes).any(axis=1)][0]
            raise DataError(
                f"{os.fspath(path)}, line {number}: links must be in [0, {sizes[0]}) and [0, {sizes[1]}), the numbers "
                f"of subwords, got {i}-{j}"
            )
        yield links


def _is_link(word: str) -> bool:
    parts = word.split("-")
    return len(parts) == 2 and all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts)
