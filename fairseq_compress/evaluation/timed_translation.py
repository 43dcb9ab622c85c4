"""Text through a model of any runtime, and a sample of it several times again, for the speed.

What is timed is the model alone, subwords to subwords (:mod:`fairseq_compress.evaluation.timing`).
"""

import time
from collections.abc import Sequence

from fairseq_compress import runtimes
from fairseq_compress.decoding.hypothesis import Hypothesis
from fairseq_compress.decoding.search_model import SubwordTranslator
from fairseq_compress.evaluation.timing import SAMPLE_SENTENCES, Timings, evenly
from fairseq_compress.runtimes.opened import RuntimeOptions
from fairseq_compress.work.files import PathLike


class Stopwatch:
    """A model that adds up the seconds of its calls."""

    def __init__(self, model: SubwordTranslator) -> None:
        self._model, self.longest, self.seconds = model, model.longest, 0.0

    def translate(self, sentences: list[list[str]]) -> list[list[Hypothesis[list[str]]]]:
        begin = time.perf_counter()
        found = self._model.translate(sentences)
        self.seconds += time.perf_counter() - begin
        return found


def translate_and_time(
    path: PathLike, lines: Sequence[str], runs: int, options: RuntimeOptions | None = None
) -> tuple[list[str], Timings]:
    """Translate all lines, and then ``runs`` times a sample of at most :data:`SAMPLE_SENTENCES`.

    Args:
        path, options: as of :func:`fairseq_compress.runtimes.open`.
    """
    opened = runtimes.open(path, options)

    def translate(some: Sequence[str]) -> tuple[list[str], float]:
        watch = Stopwatch(opened.translator)
        found = [each.hypotheses[0].text for each in opened.translate(map(str.encode, some), translator=watch)]
        return found, watch.seconds

    translated, _ = translate(lines)
    timed = evenly(sorted(lines, key=len), SAMPLE_SENTENCES)
    return translated, Timings(len(timed), [translate(timed)[1] for _ in range(runs)])
