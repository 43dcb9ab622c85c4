r"""How likely a reverse model finds the source of each hypothesis of an n-best file.

For a hypothesis y of the source x, tokens x_1 ... x_n with the end of the sentence as the last one:

    score(x | y) = 1/n · Σ_i log p(x_i | x_1 ... x_{i-1}, y)      in nats

A translation that left something out, or is of something else, gives its source a low score (dual conditional
cross-entropy filtering, Junczys-Dowmunt 2018, arXiv:1809.00197, uses the same quantity; Firefox's students drop the
worst 5%). What is computed is what ``fairseq-generate --score-reference`` prints, times log 2.
"""

import hashlib
import math
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from fairseq import utils
from fairseq.data.language_pair_dataset import collate
from torch import Tensor
from torch.nn import functional

from fairseq_compress.corpus.files import PathLike, atomic_write, file_sha256
from fairseq_compress.corpus.nbest import NBestList, read_nbest, read_sidecar, read_with_source
from fairseq_compress.corpus.nbest_scores import format_scores, read_scores_sidecar, write_scores_sidecar
from fairseq_compress.corpus.segmentation import Segmenter
from fairseq_compress.corpus.sharded_work import ShardedWork
from fairseq_compress.corpus.windows import WINDOW, Batch, iterate_batches
from fairseq_compress.corpus.work_progress import WorkProgress
from fairseq_compress.errors import DataError
from fairseq_compress.functional.outputs import Projected, compute_dtype, shape_of
from fairseq_compress.models.student_output import student_output
from fairseq_compress.teachers.loading import LoadedModels
from fairseq_compress.teachers.word_ids import word_ids

LISTS_AT_ONCE = 1024  # through the segmenter
LOGITS_AT_ONCE = 1 << 22  # 16 MB in float32
UNSCORED = -math.inf  # untranslated, or too long for the model


@dataclass(frozen=True)
class ForcedOptions:
    """What decides batches and rounding, beside the model."""

    precision: str = "float32"
    max_tokens: int = 4000  # of a batch, padding counted, the longer side
    max_sentences: int | None = None
    window: int = WINDOW
    sentencepiece_model: str | None = None  # SHA-256 of the model of the segmenter


class Record(NamedTuple):
    """A hypothesis as the reverse model's source, and its source as that model's target: ids with EOS."""

    hypothesis: np.ndarray
    source: np.ndarray
    scorable: bool


class ScoredCounts(NamedTuple):
    """What was written."""

    records: int
    unscored: int


def record_scores(models: LoadedModels, records: list[Record]) -> list[float]:
    """The score of each record of a batch, in its order; :data:`UNSCORED` for one that cannot be scored."""
    scores = [UNSCORED] * len(records)
    samples = [
        {"id": place, "source": torch.from_numpy(record.hypothesis), "target": torch.from_numpy(record.source)}
        for place, record in enumerate(records)
        if record.scorable
    ]
    if samples:
        batch = collate(samples, models.source.pad(), models.source.eos(), left_pad_source=True, left_pad_target=False)
        device = _device(models)
        batch = utils.move_to_cuda(batch, device) if device.type == "cuda" else batch
        for place, score in zip(batch["id"].tolist(), _sentence_scores(models, batch).tolist(), strict=True):
            scores[place] = score
    return scores


def _sentence_scores(models: LoadedModels, batch: Mapping[str, Any]) -> Tensor:
    """(B,): the mean log-probability of the target tokens, under the mean of the models' probabilities."""
    target: Tensor = batch["target"]
    with torch.no_grad():
        outputs = [student_output(model, batch["net_input"]) for model in models.models]
    members = torch.stack([target_log_probabilities(output, target.flatten()) for output in outputs])
    tokens = (torch.logsumexp(members, dim=0) - math.log(len(members))).view_as(target)
    real = target.ne(models.target.pad())
    return tokens.masked_fill(~real, 0.0).sum(dim=1, dtype=torch.float64) / real.sum(dim=1)


def target_log_probabilities(output: Tensor | Projected, target: Tensor) -> Tensor:
    """log softmax(z)_y of each row, (N,); only some rows of logits exist at a time."""
    compute, (rows, vocabulary) = compute_dtype(output), shape_of(output)
    found = torch.empty(rows, dtype=compute, device=target.device)
    step = max(1, LOGITS_AT_ONCE // vocabulary)
    for start in range(0, rows, step):
        piece = slice(start, start + step)
        if isinstance(output, Projected):
            weight = output.weight.to(output.hidden.dtype)
            logits = functional.linear(output.hidden[piece], weight, output.bias).to(compute)
        else:
            logits = output[piece].to(compute)
        chosen = logits.gather(1, target[piece, None]).squeeze(1)
        found[piece] = chosen - torch.logsumexp(logits, dim=1)
    return found


def _device(models: LoadedModels) -> torch.device:
    device: torch.device = next(models.models[0].parameters()).device
    return device


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
        device = {"device": _device(self.models).type}
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
            texts = [[line, *(found.text for found in nbest.hypotheses)] for nbest, line in part]
            if self.segmenter is not None:
                pieces = self.segmenter.encode(chain.from_iterable(texts))
                texts = [list(islice(pieces, len(of_list))) for of_list in texts]
            yield from ((nbest, of_list) for (nbest, _), of_list in zip(part, texts, strict=True))


def _length(record: Record) -> int:
    return max(len(record.hypothesis), len(record.source)) if record.scorable else 0


def finished(run: ScoringRun, output: PathLike) -> bool:
    """Whether ``output`` holds the scores of this very run already."""
    try:
        sidecar = read_scores_sidecar(output)
        return bool(sidecar["facts"] == run.facts() and sidecar["sha256"] == file_sha256(output))
    except DataError:
        return False


def write_share(work: ShardedWork, run: ScoringRun) -> None:
    """Score this process's batches; what is in its log already is not scored again."""
    total = resumed = 0
    for batch in run.batches():  # verifies the inputs before the first score
        total += len(batch.items) if work.mine(batch.unit) else 0
        resumed += len(batch.items) if work.has(batch.unit) else 0
    units, share = 0, f"score-nbest {work.rank}/{work.world_size}"
    progress = WorkProgress(total, share, resumed=resumed, unit="hypotheses")
    for batch in run.batches():
        units = batch.unit + 1
        if work.mine(batch.unit) and not work.has(batch.unit):
            work.write(batch.unit, array("d", record_scores(run.models, batch.items)).tobytes())
            progress.add(len(batch.items))
    progress.close()
    work.finish(units)


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
