"""Normalizing and filtering parallel text, line by line.

Memory: a 16-byte digest of each kept pair, to find duplicates, which makes 0.1 GB a million pairs in a Python set.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import NamedTuple

from fairseq_compress.corpus.normalization import normalize_line
from fairseq_compress.corpus.words import count_words
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.options import check, option
from fairseq_compress.work.files import PathLike, atomic_write, check_distinct, check_parallel, progress, read_lines

# Short lines vary more: "Ano." against "Yes, that is so." is no sign of a bad match. The help of --max-ratio tells it.
RATIO_ALLOWANCE_WORDS = 5

DROP_REASONS = ("empty", "too_short", "too_long", "ratio", "identical", "duplicate")


@dataclass(frozen=True)
class CleaningRules:
    """Options of filtering; words are counted by :func:`count_words` in the normalized line."""

    min_words: int = option(1, "drop pairs with fewer words on a side", range="[1, inf)")
    max_words: int = option(250, "drop pairs with more words on a side")
    max_ratio: float = option(
        3.0, "drop pairs with a greater ratio of words, if the difference is over 5 words", range="[1, inf)"
    )
    deduplicate: bool = option(True, "keep only the first of equal pairs")
    drop_identical: bool = option(False, "drop pairs with equal sides (names, numbers, untranslated text)")

    def __post_init__(self) -> None:
        wrong = f"--max-words: must be at least --min-words ({self.min_words}), got {self.max_words}"
        check(self, [wrong] if self.max_words < self.min_words else [])


@dataclass
class CleaningReport:
    """Counts of pairs. ``read == kept + sum(dropped.values())``; ``identical`` counts among the kept ones."""

    read: int = 0
    kept: int = 0
    identical: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DROP_REASONS, 0))

    def summary(self) -> str:
        """One line for people."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.dropped.items() if count)
        return f"read {self.read} pairs, kept {self.kept}" + (f", dropped {reasons}" if reasons else "")


class Pair(NamedTuple):
    """A normalized pair and its origin."""

    source_path: PathLike
    target_path: PathLike
    line_number: int  # from 1
    source: str
    target: str


class SeenPairs:
    """Finds repeated pairs by digests of 16 bytes: two of 10^9 pairs collide with probability 1.5e-21."""

    def __init__(self) -> None:
        self._digests: set[bytes] = set()

    def before(self, source: str, target: str) -> bool:
        """Whether the pair was seen before; adds it."""
        digest = blake2b(f"{source}\n{target}".encode(), digest_size=16).digest()  # no line holds a line feed
        seen = digest in self._digests
        self._digests.add(digest)
        return seen


class PairCleaner:
    """Filters pairs and counts.

    Args:
        drop: False for validation and test sets: every pair stays, and one over ``rules.max_words`` is an error.
    """

    def __init__(self, rules: CleaningRules, *, drop: bool = True) -> None:
        self.rules = rules
        self.drop = drop
        self.report = CleaningReport()
        self._seen = SeenPairs()

    def select(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        """Yield the pairs that stay."""
        for pair in pairs:
            self.report.read += 1
            if not self.drop:
                self._check_length(pair)
            elif reason := self.drop_reason(pair.source, pair.target):
                self.report.dropped[reason] += 1
                continue
            self.report.kept += 1
            self.report.identical += pair.source == pair.target
            yield pair

    def drop_reason(self, source: str, target: str) -> str | None:
        """The first of :data:`DROP_REASONS` that applies to the pair."""
        rules = self.rules
        shorter, longer = sorted((count_words(source), count_words(target)))
        if shorter == 0:
            return "empty"
        if shorter < rules.min_words:
            return "too_short"
        if longer > rules.max_words:
            return "too_long"
        if longer - shorter > RATIO_ALLOWANCE_WORDS and longer > rules.max_ratio * shorter:
            return "ratio"
        if rules.drop_identical and source == target:
            return "identical"
        if rules.deduplicate and self._seen.before(source, target):
            return "duplicate"
        return None

    def _check_length(self, pair: Pair) -> None:
        for path, line in ((pair.source_path, pair.source), (pair.target_path, pair.target)):
            if (words := count_words(line)) > self.rules.max_words:
                raise DataError(
                    f"{os.fspath(path)}, line {pair.line_number}: {words} words, over --max-words "
                    f"{self.rules.max_words}; without filtering no line is dropped: raise the limit or split the line"
                )


def read_pairs(sources: Sequence[PathLike], targets: Sequence[PathLike]) -> Iterator[Pair]:
    """Yield the normalized pairs of parallel files."""
    for source_path, target_path in zip(sources, targets, strict=True):
        lines = zip(read_lines(source_path), read_lines(target_path), strict=True)
        for number, (source, target) in enumerate(lines, start=1):
            yield Pair(source_path, target_path, number, normalize_line(source), normalize_line(target))


def clean_parallel(
    sources: Sequence[PathLike], targets: Sequence[PathLike],
    source_output: PathLike, target_output: PathLike, report_output: PathLike, cleaner: PairCleaner,
) -> CleaningReport:  # fmt: skip
    """Clean the pairs of several files into one pair of files and write the counts as JSON."""
    if len(sources) != len(targets):
        raise ConfigError(f"--source and --target: need equally many files, got {len(sources)} and {len(targets)}")
    check_distinct([*sources, *targets], [source_output, target_output, report_output])
    total = sum(check_parallel(source, target) for source, target in zip(sources, targets, strict=True))
    with (
        atomic_write(source_output) as source_stream,
        atomic_write(target_output) as target_stream,
        atomic_write(report_output) as report_stream,
    ):
        for pair in cleaner.select(progress(read_pairs(sources, targets), total, "prepare")):
            source_stream.write(pair.source + "\n")
            target_stream.write(pair.target + "\n")
        report = cleaner.report
        if report.kept == 0:
            raise DataError(f"no pair is left of {', '.join(os.fspath(path) for path in sources)}: {report.summary()}")
        facts = {**asdict(report), "filtered": cleaner.drop, "rules": asdict(cleaner.rules)}
        report_stream.write(json.dumps(facts, indent=2) + "\n")
    return report
