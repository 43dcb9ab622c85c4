"""Scores of one translation against its reference, and the JSON record of one system.

BLEU (Papineni et al. 2002) and chrF2 (Popović 2015, character 6-grams, beta 2) as sacreBLEU (Post 2018,
arXiv:1804.08771) computes them on detokenized text, each with its full signature, without which scores cannot be
compared. The tokenizer of BLEU follows the target language (:mod:`fairseq_compress.corpus.bleu_tokenizer`).
"""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.metrics.base import Metric

from fairseq_compress.corpus.bleu_tokenizer import DEFAULT, Tokenizer, bleu_tokenizer
from fairseq_compress.corpus.words import count_words
from fairseq_compress.errors import ConfigError
from fairseq_compress.evaluation import significance
from fairseq_compress.evaluation.timing import check_timings
from fairseq_compress.languages import base_language, check_language, unspaced_share
from fairseq_compress.work.files import PathLike, atomic_write, check_parallel, file_sha256, read_lines

UNDETERMINED = "und"  # ISO 639-2, of a language that was not given
# A subword of SentencePiece, of BPE, or a byte of SentencePiece's byte fallback. In text they come once in many lines.
SUBWORD = re.compile(r"\u2581|@@(?=\s|$)|<0x[0-9A-F]{2}>")
TOLERATED_LINES = 0.01
MOST_LETTERS = 0.5


def score_files(
    hypothesis: PathLike, reference: PathLike, source: PathLike | None = None, target_lang: str | None = None
) -> dict[str, Any]:
    """Corpus scores of a detokenized translation with one reference, one sentence a line.

    Returns:
        ``bleu`` (cased), ``bleu_lowercase`` and ``chrf2``, each with ``score`` (0 to 100) and ``signature``, BLEU also
        with ``precisions`` (percent, n-grams of 1 to 4), ``brevity_penalty`` and lengths in tokens; ``lines``;
        ``files`` with name and SHA-256 of each; ``cautions``, warnings of one line each.
    """
    check_parallel(hypothesis, reference)
    files = {"hypothesis": hypothesis, "reference": reference}
    if source is not None:
        check_parallel(source, reference)
        files["source"] = source
    hypotheses, references = list(read_lines(hypothesis)), list(read_lines(reference))
    tokenizer = bleu_tokenizer(target_lang)
    return {
        "bleu": _score(BLEU(tokenize=tokenizer.name), hypotheses, references),
        "bleu_lowercase": _score(BLEU(tokenize=tokenizer.name, lowercase=True), hypotheses, references),
        "chrf2": _score(CHRF(), hypotheses, references),
        "lines": {
            "hypothesis": len(hypotheses),
            "reference": len(references),
            "empty_hypotheses": sum(not line.strip() for line in hypotheses),
        },
        "files": {kind: {"name": Path(path).name, "sha256": file_sha256(path)} for kind, path in files.items()},
        "cautions": score_cautions(hypotheses, references, tokenizer),
    }


def score_cautions(hypotheses: Sequence[str], references: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    """Warnings about a BLEU score: text that was not decoded, or a tokenizer that does not split the script."""
    found = [tokenizer.caution] if tokenizer.caution is not None else []
    for name, lines in (("hypothesis", hypotheses), ("reference", references)):
        filled = [line for line in lines if line.strip()]
        share = sum(bool(SUBWORD.search(line)) for line in filled) / max(1, len(filled))
        if share > TOLERATED_LINES:
            found.append(
                f"{share:.0%} of the lines of the {name} are subword pieces, not text: a BLEU of pieces cannot be "
                "compared with one of words; decode them first (fairseq-compress decode)"
            )
    share = unspaced_share(" ".join(references))
    if tokenizer.name == DEFAULT and share > MOST_LETTERS:
        found.append(
            f"{share:.0%} of the letters of the reference are of a script without spaces between words, of which the "
            f"tokenizer {DEFAULT} makes one word a sentence: give the language with --target-lang"
        )
    return found


def tokenized_bleu(hypothesis: PathLike, reference: PathLike, language: str) -> dict[str, Any]:
    """Cased BLEU of Moses-tokenized text (no escapes, no aggressive dash splitting), to compare with older papers."""
    from sacremoses import MosesTokenizer

    check_parallel(hypothesis, reference)
    moses = MosesTokenizer(lang=base_language(language))
    output, expected = (
        [moses.tokenize(line, escape=False, return_str=True) for line in read_lines(path)]
        for path in (hypothesis, reference)
    )
    metric = BLEU(tokenize="none", force=True)  # force: sacreBLEU warns of tokenized text
    score = _score(metric, output, expected)
    return {"score": score["score"], "signature": score["signature"], "tokenizer": f"sacremoses:{language}"}


def paired_bootstrap(
    hypothesis: PathLike, baseline: PathLike, reference: PathLike, target_lang: str | None = None
) -> dict[str, Any]:
    """The test of :mod:`fairseq_compress.evaluation.significance` of a system against a baseline, cased BLEU and chrF2.

    Returns:
        ``baseline`` with name and SHA-256, and for each metric a ``significance.Comparison`` as a dictionary.
    """
    check_parallel(hypothesis, reference)
    check_parallel(baseline, reference)
    system, other, references = (list(read_lines(path)) for path in (hypothesis, baseline, reference))
    metrics: dict[str, Metric] = {"bleu": BLEU(tokenize=bleu_tokenizer(target_lang).name), "chrf2": CHRF()}
    test: dict[str, Any] = {"baseline": {"name": Path(baseline).name, "sha256": file_sha256(baseline)}}
    for name, metric in metrics.items():
        found = significance.compare(system, other, references, metric)
        test[name] = found._asdict() | {"method": significance.METHOD}
    return test


def translation_speed(
    hypothesis: PathLike, seconds: Sequence[float], sentences: int | None = None
) -> dict[str, float | list[float]]:
    """Median, minimum and maximum speed of several timings, in sentences and (median) detokenized words a second."""
    check_timings("--translation-seconds", len(seconds))
    for value in seconds:
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"--translation-seconds: must be finite numbers above 0, got {value}")
    words = [count_words(line) for line in read_lines(hypothesis)]
    timed = len(words) if sentences is None else sentences
    if not 1 <= timed <= len(words):
        raise ConfigError(f"--timed-sentences: must be in [1, {len(words)}], the lines of the hypothesis, got {timed}")
    rates = [timed / value for value in seconds]
    return {
        "timings": list(seconds), "timed_sentences": timed, "sentences_per_second": median(rates),
        "sentences_per_second_range": [min(rates), max(rates)],
        "words_per_second": median(rates) * sum(words) / len(words),
    }  # fmt: skip


def system_record(
    hypothesis: PathLike, reference: PathLike, source_lang: str | None = None, target_lang: str | None = None, *,
    name: str | None = None, source: PathLike | None = None, baseline: PathLike | None = None,
    checkpoint: PathLike | None = None, cost_tokens: int | None = None,
    translation_seconds: Sequence[float] | None = None, timed_sentences: int | None = None,
    facts: Mapping[str, str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The record of one system, written by ``fairseq-compress score`` and read by ``report``.

    ``checkpoint`` and ``speed`` are None where they were not measured. Only ``checkpoint`` loads torch.

    Args:
        cost_tokens: N, adds the multiply-adds of ``checkpoint`` for decoding a sentence of N tokens into N, beam 1.
    """
    for option, language in (("--source-lang", source_lang), ("--target-lang", target_lang)):
        if language is not None:
            check_language(option, language)
    if cost_tokens is not None and checkpoint is None:
        raise ConfigError(f"--cost-tokens: must be given with --checkpoint, got {cost_tokens} alone")
    if timed_sentences is not None and translation_seconds is None:
        raise ConfigError(f"--timed-sentences: requires --translation-seconds, got {timed_sentences} alone")
    timed = translation_seconds
    record = {
        "name": name or Path(hypothesis).stem,
        "direction": f"{source_lang or UNDETERMINED}-{target_lang or UNDETERMINED}",
        "source_lang": source_lang,
        "target_lang": target_lang,
        **score_files(hypothesis, reference, source, target_lang),
        "checkpoint": None if checkpoint is None else _checkpoint(checkpoint, cost_tokens),
        "speed": None if timed is None else translation_speed(hypothesis, timed, timed_sentences),
        "facts": dict(facts or {}),
    }
    if baseline is not None:
        record["paired_bootstrap"] = paired_bootstrap(hypothesis, baseline, reference, target_lang)
    return record


def write_record(record: Mapping[str, Any], path: PathLike) -> None:
    """Write a record as JSON."""
    with atomic_write(path) as file:
        json.dump(record, file, ensure_ascii=False, indent=2)
        file.write("\n")


def parse_facts(settings: Sequence[str]) -> dict[str, str]:
    """``["seed=1", "role=teacher"]`` as a dictionary; values stay text."""
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


def _checkpoint(path: PathLike, cost_tokens: int | None) -> dict[str, Any]:
    # Loads torch, which a score without a checkpoint does not need; and fairseq, if costs are wanted.
    from fairseq_compress.evaluation.sizes import checkpoint_facts

    found = {"name": Path(path).name, **checkpoint_facts(path)}
    if cost_tokens is not None:
        if os.path.isdir(path):
            raise ConfigError(f"--cost-tokens: requires a checkpoint, {path} is a directory")
        from fairseq_compress.evaluation.model_cost import decoding_cost

        found |= {"cost_tokens": cost_tokens, "multiply_adds": decoding_cost(path, cost_tokens)}
    return found
