"""A corpus of any length as a sequence of batches: cut into windows, sorted by length inside each window.

Sorting makes batches of equal lengths, so there is little padding; windows keep memory and the time to the first batch
constant. The batches depend on the lengths and the limits only, never on the number of processes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from fairseq_compress.errors import ConfigError, DataError

Item = TypeVar("Item")
WINDOW = 65_536  # sentences; 7 MB at 100 bytes each, and almost no padding after sorting


class Batch(NamedTuple, Generic[Item]):
    """One unit of work."""

    unit: int
    """Number of the batch in the corpus, from 0."""
    indices: list[int]
    """Numbers of its items in the corpus, longest item first."""
    items: list[Item]


def cut_batches(lengths: Sequence[int], max_tokens: int, max_sentences: int | None = None) -> list[list[int]]:
    """Sort by length and cut into batches.

    Args:
        lengths: of each sentence, in tokens.
        max_tokens: of a batch, padding counted: sentences times the longest. A longer sentence is a batch alone.
        max_sentences: of a batch; None for no limit.

    Returns:
        for each batch the indices into ``lengths``, longest first; the sort is stable.
    """
    check_limits(max_tokens, max_sentences)
    batches: list[list[int]] = []
    room = 0  # more sentences that fit into the last batch
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if room == 0:
            batches.append([])
            room = max(1, max_tokens // max(1, lengths[index]))  # the first of a batch is its longest
            room = room if max_sentences is None else min(room, max_sentences)
        batches[-1].append(index)
        room -= 1
    return batches


def iterate_batches(
    items: Iterable[Item],
    length: Callable[[Item], int],
    max_tokens: int,
    max_sentences: int | None = None,
    window: int = WINDOW,
) -> Iterator[Batch[Item]]:
    """Yield the batches of all windows of ``items`` in order, with one window at a time in memory."""
    check_limits(max_tokens, max_sentences, window)
    remaining = iter(items)
    first = unit = 0
    while part := list(islice(remaining, window)):
        for batch in cut_batches([length(item) for item in part], max_tokens, max_sentences):
            yield Batch(unit, [first + index for index in batch], [part[index] for index in batch])
            unit += 1
        first += len(part)


def in_order(results: Iterable[tuple[int, int, Item]], folder: Path, kind: str) -> Iterator[Item]:
    """The results of batches in the order of the corpus; those of one window wait in memory.

    Args:
        results: (unit, index in the corpus, result) in order of the units.
        folder, kind: origin of the results and kind of the indices, for messages.
    """
    waiting: dict[int, Item] = {}
    expected = 0
    for unit, index, result in results:
        if index < expected or index in waiting:
            raise DataError(f"{folder}: unit {unit} has {kind} {index + 1} a second time")
        waiting[index] = result
        while expected in waiting:
            yield waiting.pop(expected)
            expected += 1
    if waiting:
        raise DataError(f"{folder}: {kind} {expected + 1} is in no unit")


def groups(
    items: Iterable[Item | None], size: Callable[[Item], int], most_items: int, most_size: int
) -> Iterator[list[Item]]:
    """Yield groups of at most ``most_items`` and ``most_size``; a larger item is a group alone, None ends a group."""
    group: list[Item] = []
    total = 0
    for item in items:
        if group and (item is None or total + size(item) > most_size):
            yield group
            group, total = [], 0
        if item is None:
            continue
        group.append(item)
        total += size(item)
        if len(group) == most_items:
            yield group
            group, total = [], 0
    if group:
        yield group


def check_limits(max_tokens: int, max_sentences: int | None = None, window: int = WINDOW) -> None:
    """Raise a ConfigError that names the options that are below 1."""
    limits = {"--max-tokens": max_tokens, "--max-sentences": max_sentences, "--window": window}
    wrong = [
        f"{name}: must be at least 1, got {value}" for name, value in limits.items() if value is not None and value < 1
    ]
    if wrong:
        raise ConfigError("; ".join(wrong))
