"""Text through an exported model, and a sample of it several times again, for the speed.

What is timed is raw text to raw text, without loading: segmentation is in it, which ``fairseq-compress generate`` does
not time for a checkpoint.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

from fairseq_compress.corpus.files import PathLike
from fairseq_compress.inference.model_directory import ModelDirectory
from fairseq_compress.inference.open_model import open_model
from fairseq_compress.inference.search_options import SearchOptions
from fairseq_compress.inference.translation_lines import LineOptions, translate_lines

SAMPLE_SENTENCES = 500


class TimedTranslation(NamedTuple):
    """The translation of each line, and the timings of a sample."""

    lines: list[str]
    sentences: int
    """In the sample."""
    seconds: list[float]


def translate_and_time(directory: PathLike, lines: Sequence[str], runs: int) -> TimedTranslation:
    """Translate all lines, then ``runs`` times :func:`sample` of them.

    Raises:
        DataError: the directory is missing or damaged.
    """
    opened = ModelDirectory.open(directory)
    model, segmenter = open_model(opened, SearchOptions(**opened.metadata["search"])), opened.segmenter()
    languages = opened.metadata["languages"]
    options = LineOptions(source_lang=languages["source"], target_lang=languages["target"])

    def translate(some: Sequence[str]) -> list[str]:
        found = translate_lines((line.encode() for line in some), model, segmenter, options, lambda message: None)
        return [translation.hypotheses[0][1] for translation in found]

    translated = translate(lines)
    timed = sample(lines)
    seconds = []
    for _ in range(runs):
        begin = time.perf_counter()
        translate(timed)
        seconds.append(time.perf_counter() - begin)
    return TimedTranslation(translated, len(timed), seconds)


def sample(lines: Sequence[str]) -> list[str]:
    """At most :data:`SAMPLE_SENTENCES` lines, evenly over the lengths."""
    ordered = sorted(lines, key=len)
    if len(ordered) <= SAMPLE_SENTENCES:
        return ordered
    return [ordered[place * (len(ordered) - 1) // (SAMPLE_SENTENCES - 1)] for place in range(SAMPLE_SENTENCES)]
