"""Byte-pair encoding by a file of merges (Sennrich et al. 2016, arXiv:1508.07909), as subword-nmt and fastBPE apply it.

A word is the list of its characters, the last one marked by ``</w>``. Of all pairs of neighbours the one that comes
first in the file is merged, everywhere in the word from left to right, until no pair is in the file. All subwords but
the last of a word are written with ``@@``.

The merges are applied here, and not by these packages: subword-nmt ends the process when a file is damaged, and takes
quadratic time for a long word; fastBPE has no wheels, and needs a compiler. The tests compare with both.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from heapq import heapify, heappop, heappush

from fairseq_compress.corpus.segmentation.segmenter import Segmenter, Tokenizer
from fairseq_compress.errors import DataError
from fairseq_compress.work.files import PathLike, read_lines

END_OF_WORD = "</w>"
SEPARATOR = "@@"
REMEMBERED_WORDS = 1 << 16
LONGEST_REMEMBERED = 64  # characters

Pair = tuple[str, str]
Ranks = Mapping[Pair, int]
"""The place of each merge in the file."""


def merged(symbols: Sequence[str], ranks: Ranks) -> list[str]:
    """The symbols of a word after all merges, in O(n log n) for n symbols.

    Symbols are a doubly linked list, its pairs a heap of (rank, place of the left one). Pairs of one rank are merged
    together, from left to right, before a pair that a merge made counts.
    """
    parts: list[str | None] = list(symbols)  # None: merged into the one before it
    size = len(parts)
    behind, before = list(range(1, size + 1)), list(range(-1, size - 1))
    heap = [(rank, at) for at in range(size - 1) if (rank := ranks.get((symbols[at], symbols[at + 1]))) is not None]
    heapify(heap)
    while heap:
        rank = heap[0][0]
        changed = []
        while heap and heap[0][0] == rank:
            _, left = heappop(heap)
            if _rank(parts, behind, left, ranks) != rank:  # another merge took one of the two
                continue
            right = behind[left]
            parts[left] = f"{parts[left]}{parts[right]}"
            parts[right] = None
            behind[left] = after = behind[right]
            if after < size:
                before[after] = left
            changed.append(left)
        for at in changed:
            for left in (before[at], at):
                if left >= 0 and (found := _rank(parts, behind, left, ranks)) is not None:
                    heappush(heap, (found, left))
    return [part for part in parts if part is not None]


def _rank(parts: Sequence[str | None], behind: Sequence[int], left: int, ranks: Ranks) -> int | None:
    """The rank of the pair whose left symbol is at a place; None if there is none."""
    one, right = parts[left], behind[left]
    other = parts[right] if right < len(parts) else None
    return None if one is None or other is None else ranks.get((one, other))


class BytePairs(Segmenter):
    """Byte-pair encoding; a kind of it says how its file is read.

    Args:
        path: the merges, the most frequent first.
        apart: ``</w>`` is a symbol of its own (version 0.1 of subword-nmt's files), not a mark of the last character.
    """

    strays = 0.01

    def __init__(self, path: PathLike, pairs: Iterable[Pair], tokenizer: Tokenizer | None, apart: bool = False) -> None:
        super().__init__(path, tokenizer)
        self._ranks: dict[Pair, int] = {}
        for rank, pair in enumerate(pairs):
            self._ranks.setdefault(pair, rank)
        if not self._ranks:
            raise DataError(f"{self.path}: must have merges, has none")
        self._apart = apart
        self._remembered = lru_cache(REMEMBERED_WORDS)(self._subwords)

    def split(self, lines: Iterable[str]) -> Iterator[str]:
        for line in lines:
            yield " ".join(self._word(word) for word in line.split(" ") if word)

    def join(self, subwords: Sequence[str]) -> str:
        return (" ".join(subwords) + " ").replace(SEPARATOR + " ", "").rstrip()

    def entries(self) -> list[str]:
        symbols = {symbol for one, other in self._ranks for symbol in (one, other, one + other)}
        found = {spelling for symbol in symbols for spelling in self._spellings(symbol)}
        return sorted(found | {form for each in self._characters for form in (each, each + SEPARATOR)})

    def merges(self) -> list[str]:
        return [self._spellings(one + other)[0] for one, other in self._ranks if one + other != END_OF_WORD]

    def is_unknown(self, subword: str) -> bool:
        text = subword.removesuffix(SEPARATOR) or subword
        return len(text) == 1 and text not in self._characters

    def makes(self, subword: str) -> bool:
        return len(subword) == 1  # a word that cannot be merged

    def _word(self, word: str) -> str:
        return self._remembered(word) if len(word) <= LONGEST_REMEMBERED else self._subwords(word)

    def _subwords(self, word: str) -> str:
        if len(word) == 1:
            return word
        symbols, last = word[:-1], word[-1]
        end = [last, END_OF_WORD] if self._apart else [last + END_OF_WORD]
        found = merged([*symbols, *end], self._ranks)
        found[-1] = found[-1].removesuffix(END_OF_WORD)
        return (SEPARATOR + " ").join(filter(None, found))

    def _spellings(self, symbol: str) -> list[str]:
        """A symbol as subwords of a dictionary: at the end of a word, or before it, or both."""
        if symbol.endswith(END_OF_WORD):
            return [symbol.removesuffix(END_OF_WORD)] if symbol != END_OF_WORD else []
        return [symbol + SEPARATOR, symbol] if self._apart else [symbol + SEPARATOR]

    @cached_property
    def _characters(self) -> frozenset[str]:
        texts = (symbol.removesuffix(END_OF_WORD) for pair in self._ranks for symbol in pair)
        return frozenset(character for text in texts for character in text)


def read_merges(path: PathLike, lines: Iterable[tuple[int, str]], fields: int, example: str) -> Iterator[Pair]:
    """The pairs of numbered lines of ``fields`` fields; an empty last line does not count.

    Args:
        example: a line, for messages.
    """
    blank: int | None = None
    for number, line in lines:
        parts = line.strip("\r\n ").split(" ")
        if parts == [""]:
            blank = blank or number
            continue
        if len(parts) != fields or not all(parts) or blank is not None:
            where, got = (blank, "") if blank is not None else (number, line[:60])
            raise DataError(f"{path}, line {where}: must be a merge such as {example!r}, got {got!r}")
        yield parts[0], parts[1]


def numbered(path: PathLike) -> Iterator[tuple[int, str]]:
    """The lines of a file of merges with their numbers."""
    return enumerate(read_lines(path), start=1)
