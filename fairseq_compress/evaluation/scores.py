"""Scores of one translation against its reference, and the JSON record of one system.

BLEU (Papineni et al. 2002) and chrF2 (Popović 2015, character 6-grams, beta 2) as sacreBLEU (Post 2018,
arXiv:1804.08771) computes them on detokenized text, each beside its full signature: without that no BLEU
can be compared with another.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.metrics.base import Metric
from sacrebleu.significance import PairedTest

from fairseq_compress.corpus.files import atomic_write, check_parallel, read_lines
from fairseq_compress.errors import ConfigError, DataError

PathLike = str | os.PathLike[str]

HASH_BLOCK_BYTES = 1 << 20
BOOTSTRAP_SAMPLES = 1000


def score_files(hypothesis: PathLike, reference: PathLike, source: PathLike | None = None) -> dict[str, Any]:
    """Corpus scores of a detokenized translation with one reference, one sentence a line.

    Returns:
        ``bleu`` (cased), ``bleu_lowercase`` and ``chrf2``, each with ``score`` (0 to 100) and ``signature``, BLEU also
        with ``precisions`` (percent, n-grams of 1 to 4), ``brevity_penalty`` and lengths in 13a tokens; ``lines``;
        ``files`` with name and SHA-256 of each.

    Raises:
        DataError: a file is missing, empty or not UTF-8, or their line counts differ.
    """
    check_parallel(hypothesis, reference)
    files = {"hypothesis": hypothesis, "reference": reference}
    if source is not None:
        check_parallel(source, reference)
        files["source"] = source
    hypotheses, references = list(read_lines(hypothesis)), list(read_lines(reference))
    return {
        "bleu": _score(BLEU(tokenize="13a"), hypotheses, references),
        "bleu_lowercase": _score(BLEU(tokenize="13a", lowercase=True), hypotheses, references),
        "chrf2": _score(CHRF(), hypotheses, references),
        "lines": {
            "hypothesis": len(hypotheses),
            "reference": len(references),
            "empty_hypotheses": sum(not line.strip() for line in hypotheses),
        },
        "files": {kind: {"name": Path(path).name, "sha256": _sha256(path)} for kind, path in files.items()},
    }


def paired_bootstrap(hypothesis: PathLike, baseline: PathLike, reference: PathLike) -> dict[str, Any]:
    """Paired bootstrap resampling (Koehn 2004) of a system against a baseline, cased BLEU and chrF2.

    1,000 resamples with sacreBLEU's seed (12345, or the environment's ``SACREBLEU_SEED``), which the signature tells.

    Returns:
        for each metric the baseline's score, the p-value of the difference, and the mean and the half width of the
        95 % confidence interval of both systems.

    Raises:
        DataError: as :func:`score_files`.
    """
    check_parallel(hypothesis, reference)
    check_parallel(baseline, reference)
    systems = [("baseline", list(read_lines(baseline))), ("system", list(read_lines(hypothesis)))]
    references = [list(read_lines(reference))]
    metrics: dict[str, Metric] = {"bleu": BLEU(tokenize="13a"), "chrf2": CHRF()}
    test: dict[str, Any] = {"baseline": {"name": Path(baseline).name, "sha256": _sha256(baseline)}}
    for name, metric in metrics.items():
        signature, (other, own) = _paired_test(systems, metric, references)
        # sacreBLEU calls a difference of exactly 0 significant (p = 1/1001); the chance of one at least as large is 1.
        p_value = 1.0 if own.score == other.score else own.p_value
        numbers = {
            "baseline_score": other.score,
            "p_value": p_value,
            "mean": own.mean,
            "confidence_95": own.ci,
            "baseline_mean": other.mean,
            "baseline_confidence_95": other.ci,
        }
        # Some of them are numpy's, which JSON does not know.
        test[name] = {key: float(number) for key, number in numbers.items()} | {"signature": signature}
    return test


def translation_speed(hypothesis: PathLike, seconds: float) -> dict[str, float]:
    """Sentences and words (separated by white space, of the detokenized output) translated in a second.

    Raises:
        ConfigError: ``seconds`` is not a finite number above 0.
        DataError: the hypothesis is missing or not UTF-8.
    """
    if not (math.isfinite(seconds) and seconds > 0):
        raise ConfigError(f"--translation-seconds must be a finite number above 0, got {seconds}")
    counts = [len(line.split()) for line in read_lines(hypothesis)]
    return {
        "translation_seconds": seconds,
        "sentences_per_second": len(counts) / seconds,
        "words_per_second": sum(counts) / seconds,
    }


def system_record(
    hypothesis: PathLike,
    reference: PathLike,
    source_lang: str,
    target_lang: str,
    *,
    name: str | None = None,
    source: PathLike | None = None,
    baseline: PathLike | None = None,
    checkpoint: PathLike | None = None,
    cost_tokens: int | None = None,
    translation_seconds: float | None = None,
    facts: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Everything that is told about one system: what ``fairseq-compress score`` writes and ``report`` reads.

    ``checkpoint`` and ``speed`` are None where they were not measured. Only ``checkpoint`` loads torch.

    Args:
        cost_tokens: N, adds the multiply-adds of ``checkpoint`` for decoding a sentence of N tokens into N, beam 1.

    Raises:
        ConfigError: a language is empty, or the seconds or the tokens are not above 0, or tokens come without a model.
        DataError: as :func:`score_files`.
        CheckpointError: the checkpoint cannot be loaded.
    """
    for option, language in (("--source-lang", source_lang), ("--target-lang", target_lang)):
        if not re.fullmatch(r"[\w-]+", language):
            raise ConfigError(f"{option} must be a language code such as en, got {language!r}")
    if cost_tokens is not None and checkpoint is None:
        raise ConfigError(f"--cost-tokens: must be given with --checkpoint, got {cost_tokens} alone")
    speed = None if translation_seconds is None else translation_speed(hypothesis, translation_seconds)
    record = {
        "name": name or Path(hypothesis).stem,
        "direction": f"{source_lang}-{target_lang}",
        "source_lang": source_lang,
        "target_lang": target_lang,
        **score_files(hypothesis, reference, source),
        "checkpoint": None if checkpoint is None else _checkpoint(checkpoint, cost_tokens),
        "speed": speed,
        "facts": dict(facts or {}),
    }
    if baseline is not None:
        record["paired_bootstrap"] = paired_bootstrap(hypothesis, baseline, reference)
    return record


def write_record(record: Mapping[str, Any], path: PathLike) -> None:
    """Write a record as JSON, atomically."""
    with atomic_write(path) as file:
        json.dump(record, file, ensure_ascii=False, indent=2)
        file.write("\n")


def parse_facts(settings: Sequence[str]) -> dict[str, str]:
    """``["seed=1", "role=teacher"]`` as a dictionary; values stay text.

    Raises:
        ConfigError: a setting is not KEY=VALUE, or a key comes twice.
    """
    facts: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not key.strip() or not equals:
            raise ConfigError(f"--set must be KEY=VALUE, got {setting!r}")
        if key in facts:
            raise ConfigError(f"--set {key} is given twice: {facts[key]!r} and {value!r}")
        facts[key] = value
    return facts


def _score(metric: Metric, hypotheses: list[str], references: list[str]) -> dict[str, Any]:
    score = metric.corpus_score(hypotheses, [references])
    result = {"score": score.score, "signature": metric.get_signature().format()}
    if isinstance(metric, BLEU):
        result |= {
            "precisions": list(score.precisions),
            "brevity_penalty": score.bp,
            "hypothesis_length": score.sys_len,
            "reference_length": score.ref_len,
        }
    return result


def _paired_test(systems: list[Any], metric: Metric, references: list[list[str]]) -> tuple[str, list[Any]]:
    """The signature and the results (sacreBLEU's ``Result``) of all systems, the baseline's first."""
    signatures, results = PairedTest(systems, {"metric": metric}, references, "bs", BOOTSTRAP_SAMPLES)()
    ((label, signature),) = signatures.items()  # sacreBLEU names the metric itself
    return signature.format(), results[label]


def _checkpoint(path: PathLike, cost_tokens: int | None) -> dict[str, Any]:
    # Loads torch, which a score without a checkpoint does not need; and fairseq, if costs are wanted.
    from fairseq_compress.evaluation.sizes import checkpoint_sizes

    found = {"name": Path(path).name, **checkpoint_sizes(path)}
    if cost_tokens is not None:
        from fairseq_compress.evaluation.model_cost import decoding_cost

        found |= {"cost_tokens": cost_tokens, "multiply_adds": decoding_cost(path, cost_tokens)}
    return found


def _sha256(path: PathLike) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(HASH_BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    return digest.hexdigest()
