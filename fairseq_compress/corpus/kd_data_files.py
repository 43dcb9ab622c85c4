"""Selection of training data from an n-best file, as streams, and a report.

Memory: a 16-byte digest of each kept pair (0.1 GB per million pairs), unless duplicates stay; with a reverse model
8 bytes per pair, and on the disk of the output a temporary copy of the n-best file.
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
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple

import numpy as np

from fairseq_compress.corpus.bleu_tokenizer import bleu_tokenizer
from fairseq_compress.corpus.cleaning import SeenPairs
from fairseq_compress.corpus.kd_data import Candidates, Choice, Chooser
from fairseq_compress.corpus.kd_data_report import SelectionReport
from fairseq_compress.corpus.nbest import NBestList, NBestManifest, NBestWriter, read_with_source, source_checksum
from fairseq_compress.corpus.nbest_scores import ScoreReader, ScoresManifest
from fairseq_compress.corpus.segmentation import SEGMENTERS
from fairseq_compress.corpus.segmentation.choice import Segmentation
from fairseq_compress.corpus.selection_rules import SelectionRules
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.work.files import (
    HashedStream,
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

Chosen = tuple[Candidates, Choice]


class Inputs(NamedTuple):
    """Input files."""

    nbest: PathLike
    source: PathLike
    reference: PathLike | None = None
    segmentation: Segmentation | None = None
    """Of hypotheses in subwords, which are joined."""
    reverse_scores: PathLike | None = None

    def paths(self) -> list[PathLike]:
        """All of them."""
        files = [path for path in (self.nbest, self.source, self.reference, self.reverse_scores) if path is not None]
        return files + ([] if self.segmentation is None else self.segmentation.paths())


class Outputs(NamedTuple):
    """Output files."""

    source: PathLike
    target: PathLike
    nbest: PathLike | None = None
    report: PathLike | None = None


def select_corpus(inputs: Inputs, outputs: Outputs, rules: SelectionRules, processes: int = 1) -> SelectionReport:
    """Choose by ``rules`` and write all outputs, or none. Without a target language, that of the n-best file counts."""
    _check_inputs(inputs, rules)
    written = [path for path in outputs if path is not None]
    if outputs.nbest is not None:
        written.append(sidecar_path(outputs.nbest))
    check_distinct(inputs.paths(), written)
    manifest = NBestManifest.of(inputs.nbest)
    if inputs.segmentation is not None and (
        manifest.facts.get("sentencepiece_model") or manifest.facts.get("segmentation")
    ):
        option = SEGMENTERS[inputs.segmentation.kind].option
        raise ConfigError(f"{option}: joins subwords, and {os.fspath(inputs.nbest)} is text already")
    if inputs.reference is not None:
        check_parallel(inputs.source, inputs.reference)
    if rules.target_lang is None:
        rules = replace(rules, target_lang=manifest.facts.get("target_lang"))
    report, chooser = SelectionReport(rules), Chooser(rules, inputs.segmentation)
    if rules.metric == "bleu":
        report.caution = bleu_tokenizer(rules.target_lang).caution
    pairs = ordered_map(chooser, progress(_candidates(inputs), manifest.sentences, "select"), processes)
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


def _candidates(inputs: Inputs) -> Iterator[Candidates]:
    scores = None if inputs.reverse_scores is None else ScoreReader(inputs.reverse_scores, inputs.nbest)
    references = None if inputs.reference is None else read_lines(inputs.reference)
    for nbest, source in read_with_source(inputs.nbest, inputs.source):
        reference = None if references is None else next(references, None)
        yield Candidates(nbest, source, reference, None if scores is None else scores.take(nbest))
    if scores is not None:
        scores.finish()


def _first_of_equal(pairs: Iterable[Chosen], report: SelectionReport) -> Iterator[Chosen]:
    """Drop empty selections and repeated pairs."""
    seen = SeenPairs()
    for item, choice in pairs:
        reason = choice.reason
        if reason is None and not report.rules.keep_duplicates and seen.before(item.source, choice.key):
            reason = "duplicate"
        if reason is not None:
            report.drop(reason, item, choice)
        else:
            yield item, choice


def _without_worst(
    chosen: Iterable[Chosen], fraction: float, folder: Path, report: SelectionReport
) -> Iterator[Chosen]:
    """Drop the pairs whose source the reverse model finds least likely: known when all were read."""
    scores = array("d")
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=folder) as spool:
        for item, choice in chosen:
            assert item.reverse is not None
            scores.append(item.reverse[choice.picked[0]])
            pickle.dump((item, choice), spool)
        worst = worst_scores(scores, fraction)
        if worst.any():
            report.reverse_threshold = float(np.max(np.asarray(scores)[worst]))
        spool.seek(0)
        for is_worst in worst:
            item, choice = pickle.load(spool)  # what this process wrote, in a file without a name
            if is_worst:
                report.drop("worst_reverse_score", item, choice)
            else:
                yield item, choice


def _write(
    chosen: Iterable[Chosen], inputs: Inputs, outputs: Outputs, report: SelectionReport, written: Sequence[PathLike]
) -> None:
    with ExitStack() as stack:
        source, target = (
            HashedStream(stack.enter_context(atomic_write(path, "wb"))) for path in (outputs.source, outputs.target)
        )
        lists = None if outputs.nbest is None else NBestWriter(stack.enter_context(atomic_write(outputs.nbest, "wb")))
        for index, (item, choice) in enumerate(chosen):
            entries = [item.nbest.hypotheses[place] for place in choice.picked]
            source.write(f"{item.source}\n")
            target.write(f"{entries[0].text}\n")
            if lists is not None:
                lists.write(NBestList(index, source_checksum(item.source), entries))
            report.keep(item, choice)
        if report.kept == 0:
            raise DataError(f"{os.fspath(inputs.nbest)}: no pair is left of {report.sources:,}: {report.dropped}")
        digests = {"source_sha256": source.sha256, "target_sha256": target.sha256}
        content = report.as_json(_input_checksums(inputs) | digests)
        if outputs.report is not None:
            text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
            stack.enter_context(atomic_write(outputs.report)).write(text)
        for path in written:  # a kill between two renames must not leave a new source next to an old target
            if os.path.isfile(path):
                Path(os.path.realpath(path)).unlink()
    if outputs.nbest is not None and lists is not None:
        lists.write_sidecar(outputs.nbest, source.sha256, {key: content[key] for key in ("rules", "files")})


def _input_checksums(inputs: Inputs) -> dict[str, str]:
    """SHA-256 of the inputs; those with a sidecar were verified while they were read."""
    found = {"nbest_input_sha256": NBestManifest.of(inputs.nbest).sha256}
    if inputs.reference is not None:
        found["reference_sha256"] = file_sha256(inputs.reference)
    if inputs.segmentation is not None:
        found["decode_model_sha256"] = inputs.segmentation.identity()
    if inputs.reverse_scores is not None:
        found["reverse_scores_sha256"] = ScoresManifest.of(inputs.reverse_scores).sha256
    return found
