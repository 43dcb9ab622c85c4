"""Timings of the same work, several times over: what the speeds of checkpoints and exported models have in common.

One timing says little: the first batches wait for memory and threads. What is timed of both is the search alone, pieces
or ids in, pieces or ids out, without loading, segmentation and printing, of a sample that is even over the lengths.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from fairseq_compress.errors import ConfigError

Item = TypeVar("Item")

SAMPLE_SENTENCES = 500
LEAST_TIMINGS = 3


class Timings(NamedTuple):
    """Of translating the same sentences several times."""

    sentences: int
    seconds: list[float]

    def lines(self) -> list[str]:
        """What the verbs print at the end, and the pipeline reads."""
        return [f"# sentences: {self.sentences}", f"# seconds: {' '.join(f'{value:.4f}' for value in self.seconds)}"]


def check_timings(option: str, count: int) -> None:
    """Refuse fewer than :data:`LEAST_TIMINGS`."""
    if count < LEAST_TIMINGS:
        raise ConfigError(f"{option}: must be at least {LEAST_TIMINGS} timings, got {count}")


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """``count`` (2 at least) of the items, from the first to the last, with equal steps between them; or all."""
    if count >= len(items):
        return list(items)
    return [items[place * (len(items) - 1) // (count - 1)] for place in range(count)]
