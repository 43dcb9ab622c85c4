r"""Translations from the log of ``fairseq-generate`` or ``fairseq-interactive``, whose order is that of length.

A translation is a line ``D-<id>\t<score>\t<text>``, where the id is the number of the source line from 0 and the score
is the length-normalized log-probability in base 2. Print pieces (no ``--bpe``, no ``--remove-bpe``) and join them with
``fairseq-compress decode``: fairseq joins them as strings, which leaves rare characters as ``<0xC5><0x99>``.
"""

import math
import os
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fairseq_compress.corpus.normalization import squeeze_whitespace
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.work.files import PathLike, atomic_write, check_distinct, check_not_empty, progress, read_lines

TRANSLATION = re.compile(r"D-(\d+)\t([^\t]+)\t(.*)", re.DOTALL)  # the text may hold tabs
START = re.compile(r"D-\d+(\t|$)")


class LoggedTranslation(NamedTuple):
    """One translation, with the score as printed."""

    score: str
    text: str


def collect_hypotheses(logs: Sequence[PathLike], expected: int) -> list[LoggedTranslation]:
    """The translations of all logs (shards of one set, or one log) in source order.

    Args:
        expected: number of source lines; each id from 0 to ``expected - 1`` must occur exactly once.
    """
    if expected < 1:
        raise ConfigError(f"--expected-lines: must be positive, got {expected}")
    found: dict[int, LoggedTranslation] = {}
    for log in logs:
        total = check_not_empty(log)
        for number, line in enumerate(progress(read_lines(log), total, "collect"), start=1):
            if START.match(line):
                place = f"{os.fspath(log)}, line {number}"
                index, translation = _parse(line, place)
                if index >= expected:
                    raise DataError(f"{place}: id {index} is over the last one, {expected - 1} of {expected} lines")
                if index in found:
                    raise DataError(f"{place}: id {index} is there twice; one translation a line is needed (--nbest 1)")
                found[index] = translation
    if len(found) != expected:
        missing = next(index for index in range(expected) if index not in found)
        names = ", ".join(os.fspath(log) for log in logs)
        raise DataError(f"{names}: {len(found)} translations of {expected} lines; the first missing id is {missing}")
    return [found[index] for index in range(expected)]


def write_hypotheses(
    translations: Iterable[LoggedTranslation], output: PathLike, scores: PathLike | None = None
) -> None:
    """Write the texts, one per line, and the scores, one per line, if a file for them is named."""
    translations = list(translations)
    if scores is not None:
        check_distinct([output], [scores])
        with atomic_write(scores) as stream:
            stream.writelines(f"{each.score}\n" for each in translations)
    with atomic_write(output) as stream:
        stream.writelines(f"{each.text}\n" for each in translations)


def _parse(line: str, place: str) -> tuple[int, LoggedTranslation]:
    match = TRANSLATION.fullmatch(line)
    if match is None:
        raise DataError(f"{place}: a D- line needs an id, a score and a text with tabs between, got {line[:80]!r}")
    index, score, text = match.groups()
    try:
        finite = math.isfinite(float(score))
    except ValueError:
        finite = False
    if not finite:
        raise DataError(f"{place}: the score of id {index} is no finite number, got {score[:80]!r}")
    return int(index), LoggedTranslation(score, squeeze_whitespace(text))
