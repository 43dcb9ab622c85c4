r"""Significance of a difference in BLEU or chrF: a two-sided paired bootstrap test, and Holm's correction of many.

Sentences are drawn with replacement, the same for both systems (Koehn 2004, W04-3250). With
:math:`d_b = \mathrm{score}_b(\mathrm{system}) - \mathrm{score}_b(\mathrm{baseline})` of the resamples b = 1..B and the
difference d of the whole test set, the distribution under "no difference" is that of :math:`d_b` shifted to mean 0
(Noreen 1989; Riezler and Maxwell 2005, W05-0908, figure 2, here with two sides):

.. math:: p = \frac{1 + \#\{b : |d_b - \bar d| \ge |d|\}}{B + 1}

sacreBLEU 2.6 shifts :math:`|d_b|` instead, which loses one side: its p is about half, and of equal systems 12% differ
"significantly" at 0.05. The resamples here are sacreBLEU's, of the same seed: 12345, or ``SACREBLEU_SEED``.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from sacrebleu.metrics.base import Metric

from fairseq_compress.errors import ConfigError

# The least p is 1 / (B + 1), and Holm's correction multiplies it by the number of tests in a table.
RESAMPLES = 10_000
LEVEL = 0.05
METHOD = "paired bootstrap, two-sided, shifted to mean 0"
_COUNTS_AT_ONCE = 1 << 22
_TAIL = 40  # of the resamples on either side of a 95% interval


class Comparison(NamedTuple):
    """A system against a baseline, by one metric."""

    baseline_score: float
    difference: float  # system minus baseline
    p_value: float
    mean: float  # of the system's score over the resamples
    confidence_95: float  # half the width of its 95% interval
    baseline_mean: float
    baseline_confidence_95: float
    signature: str  # sacreBLEU's, with the number of resamples and the seed


def compare(
    system: Sequence[str], baseline: Sequence[str], references: Sequence[str], metric: Metric,
    resamples: int = RESAMPLES,
) -> Comparison:  # fmt: skip
    """Test the difference of two translations of one text, from the metric's sufficient statistics of each sentence."""
    seed = _seed()
    statistics = [np.array(metric._extract_corpus_statistics(text, [references])) for text in (system, baseline)]

    def score(totals: np.ndarray) -> float:
        # Python's own numbers: the formula of a metric takes a third of the time with them.
        return float(metric._compute_score_from_stats(totals.tolist()).score)

    own, other = (score(sentences.sum(axis=0)) for sentences in statistics)
    own_scores, other_scores = resampled_scores(statistics, score, resamples, seed)
    signature = metric.get_signature()
    signature.update("seed", str(seed).lower())
    signature.update("bs", resamples)
    return Comparison(
        other, own - other, bootstrap_p_value(own_scores - other_scores, own - other),
        *_interval(own_scores), *_interval(other_scores), signature.format(),
    )  # fmt: skip


def resampled_scores(
    statistics: Sequence[np.ndarray], score: Callable[[np.ndarray], float], resamples: int, seed: int | None
) -> list[np.ndarray]:
    """Scores of B resamples of N sentences for each system, the same sentences for every system.

    Args:
        statistics: of each system, N x K numbers, summed over the sentences of a resample.
        score: a function of K sums.
        seed: None: not reproducible.
    """
    found: list[list[float]] = [[] for _ in statistics]
    for counts in _draws(len(statistics[0]), resamples, np.random.default_rng(seed)):
        for scores, sentences in zip(found, statistics, strict=True):
            scores += [score(totals) for totals in counts @ sentences.astype(np.float64)]
    return [np.array(scores) for scores in found]


def bootstrap_p_value(differences: np.ndarray, observed: float) -> float:
    """p of the module's equation, from the differences of the resamples; 1 for an observed difference of 0."""
    shifted = np.abs(differences - differences.mean())
    return float((1 + np.count_nonzero(shifted >= abs(observed))) / (len(differences) + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    r"""Holm's step-down adjusted p values (1979), in the order given: the family-wise error rate stays at the level.

    Of the m values in ascending order: :math:`\tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1)\, p_{(j)})`.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def _draws(sentences: int, resamples: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each sentence is in each resample, a block of resamples at a time."""
    rows = max(1, _COUNTS_AT_ONCE // sentences)
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = generator.choice(sentences, size=(count, sentences), replace=True)
        places = drawn + sentences * np.arange(count)[:, None]
        yield np.bincount(places.ravel(), minlength=count * sentences).reshape(count, sentences).astype(np.float64)


def _interval(scores: np.ndarray) -> tuple[float, float]:
    """Mean, and half the width between the 2.5% and 97.5% points, as sacreBLEU takes them."""
    ordered, tail = np.sort(scores), len(scores) // _TAIL
    return float(ordered.mean()), float((ordered[len(scores) - tail - 1] - ordered[tail]) / 2)


def _seed() -> int | None:
    value = os.environ.get("SACREBLEU_SEED", "12345")
    if value.lower() == "none":
        return None
    try:
        return int(value)
    except ValueError:
        raise ConfigError(f"SACREBLEU_SEED: must be a whole number or none, got {value!r}") from None
