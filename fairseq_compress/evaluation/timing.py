"""The speed of a model: several timings of the search alone, without loading, segmentation and printing.

One timing says little, as the first batches wait for memory and threads. Timed is a sample of all sentence lengths.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from fairseq_compress import runtimes
from fairseq_compress.errors import ConfigError
from fairseq_compress.work.files import PathLike

if TYPE_CHECKING:
    from fairseq_compress.decoding.hypothesis import Hypothesis
    from fairseq_compress.decoding.search_model import SubwordTranslator
    from fairseq_compress.runtimes.options import RuntimeOptions

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


class Stopwatch:
    """A model that adds up the seconds of its calls."""

    def __init__(self, model: "SubwordTranslator") -> None:
        self._model, self.longest, self.seconds = model, model.longest, 0.0

    def translate(self, sentences: list[list[str]]) -> "list[list[Hypothesis[list[str]]]]":
        begin = time.perf_counter()
        found = self._model.translate(sentences)
        self.seconds += time.perf_counter() - begin
        return found


def translate_and_time(
    path: PathLike, lines: Sequence[str], runs: int, options: "RuntimeOptions | None" = None
) -> tuple[list[str], Timings]:
    """Translate all lines with a model of any runtime, and ``runs`` times at most :data:`SAMPLE_SENTENCES` of them."""
    opened = runtimes.open(path, options)

    def translate(some: Sequence[str]) -> tuple[list[str], float]:
        watch = Stopwatch(opened.translator)
        found = [each.hypotheses[0].text for each in opened.translate(map(str.encode, some), translator=watch)]
        return found, watch.seconds

    translated, _ = translate(lines)
    timed = evenly(sorted(lines, key=len), SAMPLE_SENTENCES)
    return translated, Timings(len(timed), [translate(timed)[1] for _ in range(runs)])
