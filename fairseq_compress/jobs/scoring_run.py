"""One pass of a reverse model over an n-best file, shared by processes, resumable at the batch."""

import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from fairseq_compress.corpus.nbest import NBestList, read_nbest, read_sidecar, read_with_source
from fairseq_compress.corpus.nbest_scores import format_scores, read_scores_sidecar, write_scores_sidecar
from fairseq_compress.corpus.segmentation import Segmenter
from fairseq_compress.corpus.vocabulary_match import MOST_UNKNOWN_WORDS
from fairseq_compress.errors import DataError
from fairseq_compress.jobs.forced_scores import UNSCORED, Record, device_of, record_scores
from fairseq_compress.teachers.loading import LoadedModels
from fairseq_compress.teachers.word_ids import warn_of_unknown, word_ids
from fairseq_compress.work.files import PathLike, atomic_write, file_sha256
from fairseq_compress.work.progress import write_units
from fairseq_compress.work.sharded import Shard, ShardedWork
from fairseq_compress.work.windows import WINDOW, Batch, iterate_batches

LISTS_AT_ONCE = 1024  # through the segmenter


@dataclass(frozen=True)
class ForcedOptions:
    """What decides batches and rounding, beside the model."""

    precision: str = "float32"
    max_tokens: int = 4000  # of a batch, padding counted, the longer side
    max_sentences: int | None = None
    window: int = WINDOW
    sentencepiece_model: str | None = None  # SHA-256 of the model of the segmenter, or of both joined by a comma


class ScoredCounts(NamedTuple):
    """What was written."""

    records: int
    unscored: int


class ScoringRun:
    """One pass over an n-best file, shared by processes.

    Args:
        nbest: the n-best file.
        source: the text that was translated.
        models: the reverse model or an ensemble, from the language of the hypotheses to that of the source.
        segmenter: cuts both texts into the models' pieces; None if they are pieces already.
    """

    def __init__(
        self,
        nbest: PathLike,
        source: PathLike,
        models: LoadedModels,
        options: ForcedOptions,
        segmenter: Segmenter | None = None,
    ) -> None:
        self.nbest, self.source, self.models, self.options = nbest, source, models, options
        self.segmenter = segmenter
        self.longest = models.max_source_positions, models.max_target_positions

    def facts(self) -> dict[str, Any]:
        """Everything that decides the output's bytes."""
        sidecar = read_sidecar(self.nbest)
        inputs = {f"nbest_{key}": sidecar[key] for key in ("sha256", "source_sha256")}
        device = {"device": device_of(self.models).type}
        return {"work": "score-nbest 1", **inputs, **self.models.facts, **asdict(self.options), **device}

    def batches(self) -> Iterator[Batch[Record]]:
        """The units of work. The n-best file and the source are verified on the way.

        Raises:
            DataError: as :func:`read_with_source`.
        """
        options = self.options
        return iterate_batches(self._records(), _length, options.max_tokens, options.max_sentences, options.window)

    def _records(self) -> Iterator[Record]:
        for nbest, (line, *hypotheses) in self._pieces():
            source = word_ids(line, self.models.target)
            for hypothesis in hypotheses:
                ids = word_ids(hypothesis, self.models.source)
                fits = len(ids) <= self.longest[0] and len(source) <= self.longest[1]
                yield Record(ids, source, nbest.translated and fits)

    def _pieces(self) -> Iterator[tuple[NBestList, list[str]]]:
        """Each list with the pieces of its source and of its hypotheses."""
        lists = read_with_source(self.nbest, self.source)
        while part := list(islice(lists, LISTS_AT_ONCE)):
            lines: Iterable[str] = [line for _, line in part]
            texts: Iterable[str] = [found.text for nbest, _ in part for found in nbest.hypotheses]
            if self.segmenter is not None:  # the model translates hypotheses into the source
                lines, texts = self.segmenter.target.encode(lines), self.segmenter.encode(texts)
            hypotheses = iter(texts)
            for (nbest, _), line in zip(part, lines, strict=True):
                yield nbest, [line, *islice(hypotheses, len(nbest.hypotheses))]


def _length(record: Record) -> int:
    return max(len(record.hypothesis), len(record.source)) if record.scorable else 0


def finished(run: ScoringRun, output: PathLike) -> bool:
    """Whether ``output`` holds the scores of this very run already."""
    try:
        sidecar = read_scores_sidecar(output)
        return bool(sidecar["facts"] == run.facts() and sidecar["sha256"] == file_sha256(output))
    except DataError:
        return False


def survey(run: ScoringRun, shard: Shard) -> int:
    """Read all inputs before anything is scored, and return the number of hypotheses of this process.

    Raises:
        DataError: an input is damaged, they do not belong together, or most words are unknown to the model.
    """
    own, words, unknown = 0, np.zeros(2, np.int64), np.zeros(2, np.int64)  # of hypotheses, of sources
    dictionaries = run.models.source, run.models.target
    for batch in run.batches():
        own += len(batch.items) if batch.unit % shard.world_size == shard.rank else 0
        for record in batch.items:
            sides = (record.hypothesis, record.source)
            words += [len(side) - 1 for side in sides]
            unknown += [
                np.count_nonzero(side == entries.unk()) for side, entries in zip(sides, dictionaries, strict=True)
            ]
    for path, of_text, of_unknown in zip((run.nbest, run.source), words.tolist(), unknown.tolist(), strict=True):
        if of_unknown > MOST_UNKNOWN_WORDS * of_text:
            raise DataError(
                f"{os.fspath(path)}: {of_unknown:,} of {of_text:,} words are not in the model's dictionary; it needs "
                "the pieces that it was trained on: --sentencepiece-model cuts text"
            )
        if shard.rank == 0:
            warn_of_unknown(os.fspath(path), of_unknown, of_text)
    return own


def write_share(work: ShardedWork, run: ScoringRun, own: int) -> None:
    """Score this process's batches; what is in its log already is not scored again."""
    write_units(
        work, run.batches(), lambda batch: array("d", record_scores(run.models, batch.items)).tobytes(), own,
        "score-nbest", "hypotheses",
    )  # fmt: skip


def join_shares(work: ShardedWork, run: ScoringRun, output: PathLike) -> ScoredCounts:
    """Put the scores of all shares in the order of the n-best file, and write the sidecar.

    Raises:
        DataError: a share is missing, cut, altered or from another run, or an input changed.
    """
    digest, counts = hashlib.sha256(), [0, 0]
    facts = run.facts()
    with atomic_write(output, "wb") as stream:
        scores = _in_order(work, run)
        for nbest in read_nbest(run.nbest):
            of_list = [next(scores) for _ in nbest.hypotheses]
            data = format_scores(nbest, of_list).encode()
            digest.update(data)
            stream.write(data)
            counts[0] += len(of_list)
            counts[1] += of_list.count(UNSCORED)
        if next(scores, None) is not None:
            raise DataError(f"{work.folder}: holds more scores than the n-best file has hypotheses")
    write_scores_sidecar(output, counts[0], digest.hexdigest(), facts["nbest_sha256"], facts)
    return ScoredCounts(*counts)


def _in_order(work: ShardedWork, run: ScoringRun) -> Iterator[float]:
    """All scores in the order of the n-best file; in memory are those of one window."""
    pending: dict[int, float] = {}
    following = 0
    for batch, (unit, payload) in zip(run.batches(), work.payloads(), strict=True):
        scores = array("d", payload)
        if len(scores) != len(batch.items):
            raise DataError(f"{work.folder}: unit {unit} must have {len(batch.items)} scores, has {len(scores)}")
        pending.update(zip(batch.indices, scores, strict=True))
        while following in pending:
            yield pending.pop(following)
            following += 1
