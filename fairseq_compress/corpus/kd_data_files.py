"""Selecting training data out of an n-best file: streams in, streams out, and a report.

Memory: a 16-byte digest of each kept pair (0.1 GB a million pairs), unless duplicates stay; with a reverse model
8 bytes a pair, and on the disk of the output a temporary copy of the n-best file.
"""

import json
import math
import os
import pickle
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from hashlib import blake2b, sha256
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, NamedTuple

import numpy as np

from fairseq_compress.corpus.bleu_tokenizer import bleu_tokenizer
from fairseq_compress.corpus.kd_data import Choice, Chooser, SelectionRules, Task
from fairseq_compress.corpus.kd_data_report import SelectionReport
from fairseq_compress.corpus.nbest import (
    NBestEntry,
    NBestList,
    NBestManifest,
    NBestWriter,
    read_with_source,
    source_checksum,
)
from fairseq_compress.corpus.nbest_scores import ScoreReader, ScoresManifest
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.work.files import (
    PathLike,
    atomic_write,
    check_distinct,
    check_parallel,
    file_sha256,
    progress,
    read_lines,
)
from fairseq_compress.work.manifest import sidecar_path
from fairseq_compress.work.ordered_map import ordered_map

Chosen = tuple[Task, Choice]


class Inputs(NamedTuple):
    """Files that are read."""

    nbest: PathLike
    source: PathLike
    reference: PathLike | None = None
    decode_model: PathLike | None = None
    reverse_scores: PathLike | None = None


class Outputs(NamedTuple):
    """Files that are written."""

    source: PathLike
    target: PathLike
    nbest: PathLike | None = None
    report: PathLike | None = None


def select_corpus(inputs: Inputs, outputs: Outputs, rules: SelectionRules, processes: int = 1) -> SelectionReport:
    """Choose by ``rules`` and write all outputs, or none. Where they name no target language, the n-best file's counts.

    Raises:
        ConfigError: an input is missing that the rules need, or is there without use; an output is also an input.
        DataError: an input is missing or damaged, inputs do not belong together, or no pair is left.
    """
    _check_inputs(inputs, rules)
    written = [path for path in outputs if path is not None]
    if outputs.nbest is not None:
        written.append(sidecar_path(outputs.nbest))
    check_distinct([path for path in inputs if path is not None], written)
    manifest = NBestManifest.of(inputs.nbest)
    if inputs.decode_model is not None and manifest.facts.get("sentencepiece_model"):
        raise ConfigError(f"--decode-model: joins pieces, and {os.fspath(inputs.nbest)} is text already")
    if inputs.reference is not None:
        check_parallel(inputs.source, inputs.reference)
    if rules.target_lang is None:
        rules = replace(rules, target_lang=manifest.facts.get("target_lang"))
    report, chooser = SelectionReport(rules), Chooser(rules, inputs.decode_model)
    if rules.metric == "bleu":
        report.caution = bleu_tokenizer(rules.target_lang).caution
    pairs = ordered_map(chooser, progress(_tasks(inputs), manifest.sentences, "select"), processes)
    chosen = _first_of_equal(pairs, report)
    if rules.drop_worst > 0:
        chosen = _without_worst(chosen, rules.drop_worst, Path(outputs.source).absolute().parent, report)
    report.signature = chooser.signature
    _write(chosen, inputs, outputs, report, written)
    return report


def worst_scores(scores: Sequence[float], fraction: float) -> np.ndarray:
    """Which of N scores are the ``floor(fraction * N)`` lowest, as N booleans; of equal ones the first stay."""
    values = np.asarray(scores, dtype=np.float64)
    count = math.floor(Fraction(str(fraction)) * len(values))  # 0.29 * 100 is 28.999... in floating point
    if count == 0:
        return np.zeros(len(values), dtype=bool)
    threshold = np.partition(values, count - 1)[count - 1]
    worst = values < threshold
    equal = np.flatnonzero(values == threshold)
    worst[equal[len(equal) - (count - np.count_nonzero(worst)) :]] = True
    return worst


def _check_inputs(inputs: Inputs, rules: SelectionRules) -> None:
    needs = (
        ("--reference", inputs.reference is not None, rules.mode == "interpolate", "--mode interpolate"),
        ("--reverse-scores", inputs.reverse_scores is not None, rules.drop_worst > 0, "--drop-worst above 0"),
    )
    for option, given, needed, rule in needs:
        if given != needed:
            raise ConfigError(f"{option}: is required by {rule}, got none" if needed else f"{option}: requires {rule}")


def _tasks(inputs: Inputs) -> Iterator[Task]:
    scores = None if inputs.reverse_scores is None else ScoreReader(inputs.reverse_scores, inputs.nbest)
    references = None if inputs.reference is None else read_lines(inputs.reference)
    for nbest, source in read_with_source(inputs.nbest, inputs.source):
        reference = None if references is None else next(references, None)
        yield Task(nbest, source, reference, None if scores is None else scores.take(nbest))
    if scores is not None:
        scores.finish()


def _first_of_equal(pairs: Iterable[Chosen], report: SelectionReport) -> Iterator[Chosen]:
    """Leave out what has a reason, and pairs that were there before."""
    seen: set[bytes] = set()
    for task, choice in pairs:
        reason = choice.reason
        if reason is None and not report.rules.keep_duplicates:
            # As in cleaning: no line holds a line feed, and 128 bits do not collide.
            digest = blake2b(f"{task.source}\n{choice.key}".encode(), digest_size=16).digest()
            reason = "duplicate" if digest in seen else None
            seen.add(digest)
        if reason is not None:
            report.drop(reason, task, choice)
        else:
            yield task, choice


def _without_worst(
    chosen: Iterable[Chosen], fraction: float, folder: Path, report: SelectionReport
) -> Iterator[Chosen]:
    """Leave out the pairs whose source the reverse model finds least likely: known when all were read."""
    scores = array("d")
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=folder) as spool:
        for task, choice in chosen:
            scores.append(_reverse_score(task, choice))
            pickle.dump((task, choice), spool)
        worst = worst_scores(scores, fraction)
        if worst.any():
            report.reverse_threshold = float(np.max(np.asarray(scores)[worst]))
        spool.seek(0)
        for is_worst in worst:
            task, choice = pickle.load(spool)  # what this process wrote, in a file without a name
            if is_worst:
                report.drop("worst_reverse_score", task, choice)
            else:
                yield task, choice


def _reverse_score(task: Task, choice: Choice) -> float:
    if task.reverse is None:
        raise ConfigError("--reverse-scores: needed with --drop-worst above 0, got none")
    return task.reverse[choice.picked[0]]


def _write(
    chosen: Iterable[Chosen], inputs: Inputs, outputs: Outputs, report: SelectionReport, written: Sequence[PathLike]
) -> None:
    with ExitStack() as stack:

        def open_output(path: PathLike) -> IO[bytes]:
            return stack.enter_context(atomic_write(path, "wb"))

        source, target = _Lines(open_output(outputs.source)), _Lines(open_output(outputs.target))
        writer = None if outputs.nbest is None else NBestWriter(open_output(outputs.nbest))
        for index, (task, choice) in enumerate(chosen):
            hypotheses = [task.nbest.hypotheses[place] for place in choice.picked]
            source.write(task.source)
            target.write(hypotheses[0].text)
            if writer is not None:
                writer.write(_renumbered(index, task.source, hypotheses))
            report.keep(task, choice)
        if report.kept == 0:
            raise DataError(f"{os.fspath(inputs.nbest)}: no pair is left of {report.sources:,}: {report.dropped}")
        facts = {"source_sha256": source.digest.hexdigest(), "target_sha256": target.digest.hexdigest()}
        content = report.as_json(_input_facts(inputs) | facts)
        if outputs.report is not None:
            open_output(outputs.report).write((json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode())
        _remove_old(written)
    if outputs.nbest is not None and writer is not None:
        selection = {key: content[key] for key in ("rules", "files")}
        writer.write_sidecar(outputs.nbest, source.digest.hexdigest(), selection)


class _Lines:
    """Lines of text into a binary stream, and their digest."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.digest = sha256()
        self._stream = stream

    def write(self, line: str) -> None:
        data = f"{line}\n".encode()
        self.digest.update(data)
        self._stream.write(data)


def _renumbered(index: int, source: str, hypotheses: list[NBestEntry]) -> NBestList:
    return NBestList(index, source_checksum(source), hypotheses)


def _input_facts(inputs: Inputs) -> dict[str, str]:
    """SHA-256 of the inputs; of those with a sidecar it was verified while they were read."""
    facts = {"nbest_input_sha256": NBestManifest.of(inputs.nbest).sha256}
    if inputs.reference is not None:
        facts["reference_sha256"] = file_sha256(inputs.reference)
    if inputs.decode_model is not None:
        facts["decode_model_sha256"] = file_sha256(inputs.decode_model)
    if inputs.reverse_scores is not None:
        facts["reverse_scores_sha256"] = ScoresManifest.of(inputs.reverse_scores).sha256
    return facts


def _remove_old(paths: Sequence[PathLike]) -> None:
    """A kill between two renames must not leave a new source beside an old target."""
    for path in paths:
        real = Path(os.path.realpath(path))
        if real.is_file():
            real.unlink()
