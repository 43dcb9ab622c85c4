"""One more score for each record of an n-best file, as a reverse model gives it, bound to that file by its SHA-256.

One record a line, in the order of the n-best file: ``index<TAB>score``, in nats. ``FILE.json`` beside it names the
SHA-256 of the scores and of the n-best file that they belong to.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fairseq_compress.corpus.nbest import NBestList, check_facts, read_sidecar, sidecar_path
from fairseq_compress.errors import DataError
from fairseq_compress.work.files import PathLike, atomic_write, read_lines

FORMAT = "fairseq-compress n-best scores 1"
RECORD = re.compile(r"(0|[1-9]\d*)\t(-?\d+\.\d{6}|-inf)")
KEYS = ("records", "sha256", "nbest_sha256", "facts")


def format_scores(nbest: NBestList, scores: Sequence[float]) -> str:
    """The lines of one list, each with its line feed; ``-inf`` for a hypothesis that could not be scored.

    Raises:
        DataError: not one score a hypothesis, or a score that is no number.
    """
    if len(scores) != len(nbest.hypotheses):
        raise DataError(f"list {nbest.index}: {len(nbest.hypotheses)} hypotheses, {len(scores)} scores")
    if any(math.isnan(score) or score == math.inf for score in scores):
        raise DataError(f"list {nbest.index}: a score must be a finite number or -inf, got {scores}")
    return "".join(f"{nbest.index}\t{score:.6f}\n" for score in scores)


def write_scores_sidecar(
    path: PathLike, records: int, sha256: str, nbest_sha256: str, facts: Mapping[str, Any]
) -> None:
    """Write ``PATH.json``, after the scores themselves."""
    content = {"format": FORMAT, "records": records, "sha256": sha256, "nbest_sha256": nbest_sha256}
    with atomic_write(sidecar_path(path)) as stream:
        stream.write(json.dumps({**content, "facts": dict(facts)}, ensure_ascii=False, indent=2) + "\n")


def read_scores_sidecar(path: PathLike) -> dict[str, Any]:
    """The facts of a file of scores.

    Raises:
        DataError: they are missing, damaged, or of another format.
    """
    return read_sidecar(path, FORMAT, KEYS)


class ScoreReader:
    """Gives the scores of one list after the other, and verifies on the way that they are the right ones.

    Args:
        path: the scores.
        nbest: the n-best file that they must belong to.

    Raises:
        DataError: they belong to another n-best file; from ``take``: a line is no record, or not of the list that is
            next; from ``finish``: there are too many, or the SHA-256 differs from the sidecar's.
    """

    def __init__(self, path: PathLike, nbest: PathLike) -> None:
        self.path, self.nbest = path, nbest
        self._facts = read_scores_sidecar(path)
        ours, theirs = read_sidecar(nbest)["sha256"], self._facts["nbest_sha256"]
        if ours != theirs:
            raise DataError(
                f"{os.fspath(path)} holds the scores of another n-best file than {os.fspath(nbest)}: "
                f"of the one with SHA-256 {theirs}, this one has {ours}"
            )
        self._digest = hashlib.sha256()
        self._lines = read_lines(path, self._digest)
        self._records = 0

    def take(self, nbest: NBestList) -> list[float]:
        """One score a hypothesis of the next list."""
        return [self._next(nbest.index) for _ in nbest.hypotheses]

    def finish(self) -> None:
        """Every list was taken: so must every score be."""
        if next(self._lines, None) is not None:
            raise DataError(f"{os.fspath(self.path)}, line {self._records + 1}: more scores than records")
        check_facts(self.path, self._facts, {"records": self._records, "sha256": self._digest.hexdigest()})

    def _next(self, index: int) -> float:
        self._records += 1
        place = f"{os.fspath(self.path)}, line {self._records}"
        line = next(self._lines, None)
        if line is None:
            raise DataError(f"{place}: missing, a score of list {index} must be next")
        match = RECORD.fullmatch(line)
        if match is None:
            raise DataError(f"{place}: a record is index and score with a tab between, got {line[:80]!r}")
        if int(match[1]) != index:
            raise DataError(f"{place}: a score of list {index} must be next, got one of list {match[1]}")
        return float(match[2])
