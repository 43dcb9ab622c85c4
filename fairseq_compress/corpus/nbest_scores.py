"""Reverse scores of the records of an n-best file, bound to that file by its SHA-256.

One record per line, in the order of the n-best file: ``index<TAB>score``, in nats.
"""

import hashlib
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from fairseq_compress.corpus.nbest import NBestList, NBestManifest
from fairseq_compress.errors import DataError
from fairseq_compress.work.files import PathLike, read_lines
from fairseq_compress.work.manifest import Sidecar, count

RECORD = re.compile(r"(0|[1-9]\d*)\t(-?\d+\.\d{6}|-inf)")


@dataclass(frozen=True, kw_only=True)
class ScoresManifest(Sidecar, name="n-best scores"):
    """``FILE.json`` of a file of scores."""

    records: int = count()
    nbest_sha256: str


def format_scores(nbest: NBestList, scores: Sequence[float]) -> str:
    """The lines of one list, each with its line feed; ``-inf`` for a hypothesis that cannot be scored."""
    if len(scores) != len(nbest.hypotheses):
        raise DataError(f"list {nbest.index}: {len(nbest.hypotheses)} hypotheses, {len(scores)} scores")
    if any(math.isnan(score) or score == math.inf for score in scores):
        raise DataError(f"list {nbest.index}: a score must be a finite number or -inf, got {scores}")
    return "".join(f"{nbest.index}\t{score:.6f}\n" for score in scores)


class ScoreReader:
    """Reads the scores of one list after the other and verifies that they belong to ``nbest``."""

    def __init__(self, path: PathLike, nbest: PathLike) -> None:
        self.path = os.fspath(path)
        self._sidecar = ScoresManifest.of(path)
        if (found := NBestManifest.of(nbest).sha256) != (expected := self._sidecar.nbest_sha256):
            raise DataError(
                f"{self.path} holds the scores of another n-best file than {os.fspath(nbest)}: "
                f"of the one with SHA-256 {expected}, this one has {found}"
            )
        self._digest = hashlib.sha256()
        self._lines = read_lines(path, self._digest)
        self._records = 0

    def take(self, nbest: NBestList) -> list[float]:
        """One score per hypothesis of the next list."""
        return [self._next(nbest.index) for _ in nbest.hypotheses]

    def finish(self) -> None:
        """Check that every score was read."""
        if next(self._lines, None) is not None:
            raise DataError(f"{self.path}, line {self._records + 1}: more scores than records")
        self._sidecar.check(self.path, {"records": self._records, "sha256": self._digest.hexdigest()})

    def _next(self, index: int) -> float:
        self._records += 1
        place = f"{self.path}, line {self._records}"
        line = next(self._lines, None)
        if line is None:
            raise DataError(f"{place}: missing, a score of list {index} must be next")
        match = RECORD.fullmatch(line)
        if match is None:
            raise DataError(f"{place}: a record is index and score with a tab between, got {line[:80]!r}")
        if int(match[1]) != index:
            raise DataError(f"{place}: a score of list {index} must be next, got one of list {match[1]}")
        return float(match[2])
