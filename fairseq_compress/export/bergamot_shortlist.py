"""A lexical shortlist for Marian's vocabularies, whose entries are in another order than fairseq's.

Marian has N first entries for all sentences, in the order of its vocabulary. The entries of a shortlist that are always
there need not be its first ones, so they are the list of ``</s>``, which ends every sentence.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_compress.decoding.shortlist_file import ShortlistFile
from fairseq_compress.runtimes.bergamot.shortlist import serialize_shortlist

FIRST = 2  # </s> and <unk>
END = 0  # </s>


class Order(NamedTuple):
    """Entries of a fairseq dictionary in the order of a vocabulary."""

    rows: NDArray[np.int64]
    """For each piece its entry, or that of ``<unk>``."""
    known: NDArray[np.bool_]
    """Whether the dictionary has it."""


def write_shortlist(folder: Path, pair: str, file: ShortlistFile, source: Order, target: Order) -> str:
    """Write the shortlist in the order of the vocabularies; return its name."""
    always, offsets, entries = file.lists
    numbers = np.full(file.header.target_entries, -1)
    numbers[target.rows[target.known]] = np.flatnonzero(target.known)
    lists = [_sorted(numbers, entries[offsets[row] : offsets[row + 1]]) for row in source.rows.tolist()]
    lists[END] = np.union1d(lists[END], _sorted(numbers, always))
    name = f"lex.{file.header.first}.{file.header.best}.{pair}.s2t.bin"
    (folder / name).write_bytes(serialize_shortlist(FIRST, max(map(len, lists)), lists))
    return name


def _sorted(numbers: NDArray[Any], entries: NDArray[np.int64]) -> NDArray[np.int64]:
    found = numbers[entries]
    return np.sort(found[found >= 0])
