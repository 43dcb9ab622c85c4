"""Scores of a reverse model for every hypothesis of an n-best file: the job of ``fairseq-compress kd-data score``."""

import os
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from fairseq_compress.corpus.nbest import NBestManifest, read_nbest, read_with_source
from fairseq_compress.corpus.nbest_pieces import encode_lists
from fairseq_compress.corpus.nbest_scores import ScoresManifest, format_scores
from fairseq_compress.corpus.segmentation.segmenter import Segmenter
from fairseq_compress.corpus.vocabulary_match import MOST_UNKNOWN_WORDS, warn_of_unknown
from fairseq_compress.errors import DataError
from fairseq_compress.jobs.forced_scores import UNSCORED, Record, device_of, record_scores
from fairseq_compress.options import check, option
from fairseq_compress.teachers.dictionaries import word_ids
from fairseq_compress.teachers.loading import LoadedModels
from fairseq_compress.work.files import HashedStream, PathLike, atomic_write
from fairseq_compress.work.manifest import sidecar_path
from fairseq_compress.work.sharded import Job
from fairseq_compress.work.windows import WINDOW, Batch, in_order, iterate_batches
from fairseq_compress.work.work_folder import work_folder


@dataclass(frozen=True)
class ForcedOptions:
    """Options that determine batches and rounding."""

    precision: str = option("float32", "of the weights", choices=("float32", "bfloat16"))
    max_tokens: int = option(4000, "of a batch, padding counted, on the longer side", range="[1, inf)")
    max_sentences: int | None = option(None, "of a batch", range="[1, inf)")
    window: int = option(WINDOW, "hypotheses that are sorted by length at a time", range="[1, inf)")
    sentencepiece_model: str | None = None  # Segmentation.identity()

    def __post_init__(self) -> None:
        check(self)


class ScoredCounts(NamedTuple):
    """Counts of the output."""

    records: int
    unscored: int


class ReverseScoresJob(Job[Batch[Record], ScoredCounts]):
    """Score an n-best file.

    Args:
        models: reverse model or ensemble, from the language of the hypotheses to that of the source.
        segmenter: segments both texts; None if they are subwords already.
    """

    name, items = "score-nbest", "hypotheses"

    def __init__(
        self, output: PathLike, nbest: PathLike, source: PathLike, models: LoadedModels, options: ForcedOptions,
        segmenter: Segmenter | None = None,
    ) -> None:  # fmt: skip
        self.output, self.nbest, self.source = output, nbest, source
        self.models, self.options, self.segmenter = models, options, segmenter
        self._longest = models.max_source_positions, models.max_target_positions
        self._words, self._unknown = np.zeros(2, np.int64), np.zeros(2, np.int64)  # of hypotheses, of sources

    @cached_property
    def metadata(self) -> Mapping[str, Any]:
        sidecar = NBestManifest.of(self.nbest)
        inputs = {"nbest_sha256": sidecar.sha256, "nbest_source_sha256": sidecar.source_sha256}
        device = {"device": device_of(self.models).type}
        return {"work": "score-nbest 1", **inputs, **self.models.facts, **asdict(self.options), **device}

    def is_up_to_date(self) -> bool:
        return ScoresManifest.matches(self.output, self.metadata)

    def units(self) -> Iterator[Batch[Record]]:
        """Batches of hypotheses. The n-best file and the source are verified on the way."""
        options = self.options
        return iterate_batches(self._records(), _length, options.max_tokens, options.max_sentences, options.window)

    def _records(self) -> Iterator[Record]:
        sources = None if self.segmenter is None else self.segmenter.target  # hypotheses are the model's source
        lists = read_with_source(self.nbest, self.source)
        for nbest, line, texts in encode_lists(lists, sources, self.segmenter):
            source = word_ids(line, self.models.target)
            for text in texts:
                ids = word_ids(text, self.models.source)
                fits = len(ids) <= self._longest[0] and len(source) <= self._longest[1]
                yield Record(ids, source, nbest.translated and fits)

    def size(self, unit: Batch[Record]) -> int:
        return len(unit.items)

    def inspect(self, unit: Batch[Record]) -> None:
        unknown = self.models.source.unk(), self.models.target.unk()
        for record in unit.items:
            sides = record.hypothesis, record.source
            self._words += [len(side) - 1 for side in sides]
            self._unknown += [np.count_nonzero(side == unk) for side, unk in zip(sides, unknown, strict=True)]

    def finish_survey(self, first_process: bool) -> None:
        counts = zip((self.nbest, self.source), self._words.tolist(), self._unknown.tolist(), strict=True)
        for path, words, unknown in counts:
            if unknown > MOST_UNKNOWN_WORDS * words:
                raise DataError(
                    f"{os.fspath(path)}: {unknown:,} of {words:,} words are not in the model's dictionary; it needs "
                    "the pieces that it was trained on: --sentencepiece-model segments text"
                )
            if first_process:
                warn_of_unknown(os.fspath(path), unknown, words)

    def compute(self, unit: Batch[Record]) -> bytes:
        return array("d", record_scores(self.models, unit.items)).tobytes()

    def join(self, results: Iterator[tuple[int, bytes]]) -> ScoredCounts:
        """Write the scores in the order of the n-best file, and the sidecar."""
        folder, records, unscored = work_folder(self.output), 0, 0
        with atomic_write(self.output, "wb") as stream:
            hashed, scores = HashedStream(stream), in_order(self._scores(results), folder, "hypothesis")
            for nbest in read_nbest(self.nbest):
                of_list = [next(scores) for _ in nbest.hypotheses]
                hashed.write(format_scores(nbest, of_list))
                records, unscored = records + len(of_list), unscored + of_list.count(UNSCORED)
            if next(scores, None) is not None:
                raise DataError(f"{folder}: holds more scores than the n-best file has hypotheses")
        counts: dict[str, Any] = {"records": records, "sha256": hashed.sha256, "facts": dict(self.metadata)}
        ScoresManifest(**counts, nbest_sha256=self.metadata["nbest_sha256"]).write(sidecar_path(self.output))
        return ScoredCounts(records, unscored)

    def _scores(self, results: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, int, float]]:
        for batch, (unit, payload) in zip(self.units(), results, strict=True):
            scores = array("d", payload)
            if len(scores) != len(batch.items):
                raise DataError(
                    f"{work_folder(self.output)}: unit {unit} must have {len(batch.items)} scores, has {len(scores)}"
                )
            yield from zip([unit] * len(scores), batch.indices, scores, strict=True)


def _length(record: Record) -> int:
    return max(len(record.hypothesis), len(record.source)) if record.scorable else 0
