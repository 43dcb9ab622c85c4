"""Translations out of the log of ``fairseq-generate`` or ``fairseq-interactive``, which come in order of length.

A translation is a line ``D-<id>\t<score>\t<text>``, where the id is the number of the source line from 0 and
the score is the log-probability, divided by the length, in base 2. Other lines may stand between.

The text is what fairseq printed. Let it print pieces (no ``--bpe``, no ``--remove-bpe``) and join them with
``fairseq-compress decode``: fairseq joins them as strings, which leaves rare characters as ``<0xC5><0x99>``.
"""

import math
import os
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fairseq_compress.corpus.cleaning import squeeze_whitespace
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.work.files import PathLike, atomic_write, check_distinct, check_not_empty, progress, read_lines

HYPOTHESIS = re.compile(r"D-(\d+)\t([^\t]+)\t(.*)", re.DOTALL)  # the text may hold tabs
HYPOTHESIS_START = re.compile(r"D-\d+(\t|$)")


class Hypothesis(NamedTuple):
    """One translation."""

    score: str  # as it is printed in the log, so that nothing is rounded
    text: str  # one line


def collect_hypotheses(logs: Sequence[PathLike], expected: int) -> list[Hypothesis]:
    """The translations of all the logs (shards of one set, or one log) in source order.

    Args:
        expected: number of source lines; each id from 0 to ``expected - 1`` must occur exactly once.

    Raises:
        ConfigError: ``expected`` is not positive.
        DataError: a log is missing, empty or not UTF-8, a D- line is damaged, or an id is missing,
            repeated or too large.
    """
    if expected < 1:
        raise ConfigError(f"--expected-lines: must be positive, got {expected}")
    found: dict[int, Hypothesis] = {}
    for log in logs:
        total = check_not_empty(log)
        for number, line in enumerate(progress(read_lines(log), total, "collect"), start=1):
            if HYPOTHESIS_START.match(line):
                place = f"{os.fspath(log)}, line {number}"
                index, hypothesis = _parse(line, place)
                if index >= expected:
                    raise DataError(f"{place}: id {index} is over the last one, {expected - 1} of {expected} lines")
                if index in found:
                    raise DataError(f"{place}: id {index} is there twice; one translation a line is needed (--nbest 1)")
                found[index] = hypothesis
    if len(found) != expected:
        missing = next(index for index in range(expected) if index not in found)
        names = ", ".join(os.fspath(log) for log in logs)
        raise DataError(f"{names}: {len(found)} translations of {expected} lines; the first missing id is {missing}")
    return [found[index] for index in range(expected)]


def write_hypotheses(hypotheses: Iterable[Hypothesis], output: PathLike, scores: PathLike | None = None) -> None:
    """Write the texts, one a line, and the scores, one a line, when a file for them is named."""
    hypotheses = list(hypotheses)
    if scores is not None:
        check_distinct([output], [scores])
        with atomic_write(scores) as stream:
            stream.writelines(f"{hypothesis.score}\n" for hypothesis in hypotheses)
    with atomic_write(output) as stream:
        stream.writelines(f"{hypothesis.text}\n" for hypothesis in hypotheses)


def _parse(line: str, place: str) -> tuple[int, Hypothesis]:
    match = HYPOTHESIS.fullmatch(line)
    if match is None:
        raise DataError(f"{place}: a D- line needs an id, a score and a text with tabs between, got {line[:80]!r}")
    index, score, text = match.groups()
    try:
        finite = math.isfinite(float(score))
    except ValueError:
        finite = False
    if not finite:
        raise DataError(f"{place}: the score of id {index} is no finite number, got {score[:80]!r}")
    return int(index), Hypothesis(score, squeeze_whitespace(text))
