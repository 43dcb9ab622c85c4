"""Text through an exported model, and a sample of it several times again, for the speed.

What is timed is the model alone, pieces to pieces, as of a checkpoint (:mod:`fairseq_compress.evaluation.timing`).
"""

import time
from collections.abc import Sequence

from fairseq_compress.decoding.translation_lines import Hypothesis, PieceTranslator, translate_lines
from fairseq_compress.evaluation.timing import SAMPLE_SENTENCES, Timings, evenly
from fairseq_compress.runtimes.open_model import open_directory
from fairseq_compress.work.files import PathLike


class Stopwatch:
    """A model that adds up the seconds of its calls."""

    def __init__(self, model: PieceTranslator) -> None:
        self._model, self.longest, self.seconds = model, model.longest, 0.0

    def translate(self, sentences: list[list[str]]) -> list[list[Hypothesis]]:
        """See :class:`fairseq_compress.decoding.translation_lines.PieceTranslator`."""
        begin = time.perf_counter()
        found = self._model.translate(sentences)
        self.seconds += time.perf_counter() - begin
        return found


def translate_and_time(directory: PathLike, lines: Sequence[str], runs: int) -> tuple[list[str], Timings]:
    """Translate all lines, and then ``runs`` times a sample of at most :data:`SAMPLE_SENTENCES`.

    Raises:
        DataError: the directory is missing or damaged.
    """
    opened = open_directory(directory)
    options = opened.line_options()

    def translate(some: Sequence[str]) -> tuple[list[str], float]:
        model = Stopwatch(opened.model)
        encoded = (line.encode() for line in some)
        found = list(translate_lines(encoded, model, opened.segmenter, options, lambda message: None))
        return [translation.hypotheses[0][1] for translation in found], model.seconds

    translated, _ = translate(lines)
    timed = evenly(sorted(lines, key=len), SAMPLE_SENTENCES)
    return translated, Timings(len(timed), [translate(timed)[1] for _ in range(runs)])
