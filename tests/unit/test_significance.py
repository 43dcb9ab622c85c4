"""Paired bootstrap: sacreBLEU's resamples, false positives of equal systems, p by hand; Holm's correction."""

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import _bootstrap_resample

from fairseq_compress.errors import ConfigError
from fairseq_compress.evaluation import significance
from fairseq_compress.evaluation.significance import LEVEL, bootstrap_p_value, compare, holm, resampled_scores

WORDS = ["dog", "cat", "runs", "sleeps", "here", "there", "now", "again"]


def text(draw: np.random.Generator, lines: int) -> list[str]:
    return [" ".join(draw.choice(WORDS, size=draw.integers(4, 9))) for _ in range(lines)]


def noisy(draw: np.random.Generator, lines: list[str], share: float) -> list[str]:
    """Each word replaced by another one with that probability."""
    return [" ".join(word if draw.random() > share else draw.choice(WORDS) for word in line.split()) for line in lines]


@pytest.mark.parametrize("metric", [BLEU(), CHRF()], ids=["bleu", "chrf2"])
@pytest.mark.parametrize("at_once", [1 << 22, 100])
def test_resamples_and_their_scores_are_sacrebleus(
    monkeypatch: pytest.MonkeyPatch, metric: BLEU | CHRF, at_once: int
) -> None:
    monkeypatch.setattr(significance, "_COUNTS_AT_ONCE", at_once)  # in one block, or in many
    draw = np.random.default_rng(1)
    references = text(draw, 60)
    statistics = metric._extract_corpus_statistics(noisy(draw, references, 0.3), [references])
    _, theirs = _bootstrap_resample(statistics, metric, 50)
    (ours,) = resampled_scores([np.array(statistics)], lambda t: metric._compute_score_from_stats(t).score, 50, 12345)
    np.testing.assert_allclose(ours, [score.score for score in theirs], rtol=1e-5)  # theirs are sums in float32


def test_p_by_hand() -> None:
    differences = np.array([1.0, 2.0, 3.0, 4.0, 5.0])  # shifted: -2 -1 0 1 2
    assert bootstrap_p_value(differences, 0.0) == 1.0
    assert bootstrap_p_value(differences, 1.0) == bootstrap_p_value(differences, -1.0) == 5 / 6
    assert bootstrap_p_value(differences, 1.5) == bootstrap_p_value(-differences, 1.5) == 3 / 6
    assert bootstrap_p_value(differences, 2.0) == 3 / 6  # as extreme counts
    assert bootstrap_p_value(differences, 2.1) == 1 / 6


def sacrebleus_p(differences: np.ndarray, observed: float) -> float:
    """Of version 2.6: the absolute value first, then the shift."""
    sizes = np.abs(differences)
    return float((1 + np.sum(sizes - sizes.mean() > abs(observed))) / (len(differences) + 1))


def test_equal_systems_differ_at_the_level_that_is_told() -> None:
    """Of 1,000 pairs of equally good systems 5% must have p <= 0.05: 33 to 68 with 99% (binomial)."""
    draw, metric = np.random.default_rng(7), BLEU()
    trials, sentences, resamples = 1000, 150, 199

    def score(totals: np.ndarray) -> float:
        return float(metric._compute_score_from_stats(totals.tolist()).score)

    values: list[tuple[float, float]] = []
    for trial in range(trials):
        length = draw.integers(5, 25, size=sentences)
        hard = draw.beta(4, 4, size=sentences)  # a sentence is as hard for both
        systems = [statistics_of(draw, length, hard) for _ in range(2)]
        own, other = resampled_scores(systems, score, resamples, trial)
        observed = score(systems[0].sum(axis=0)) - score(systems[1].sum(axis=0))
        values.append((bootstrap_p_value(own - other, observed), sacrebleus_p(own - other, observed)))
    ours, theirs = (sum(pair[which] <= LEVEL for pair in values) for which in (0, 1))
    assert 33 <= ours <= 68, ours
    assert theirs > 90, theirs  # what this test would have said of the old p
    halves = np.array([p for p, _ in values])
    assert 0.44 < np.mean(halves <= 0.5) < 0.56  # uniform elsewhere too


def statistics_of(draw: np.random.Generator, length: np.ndarray, hard: np.ndarray) -> np.ndarray:
    """BLEU's ten numbers of each sentence: both lengths, matches and totals of 1- to 4-grams."""
    own = np.maximum(4, length + draw.integers(-2, 3, size=len(length)))
    totals = np.stack([own - n for n in range(4)], axis=1)
    matches = np.stack([draw.binomial(totals[:, n], hard ** (1 + n / 2)) for n in range(4)], axis=1)
    return np.concatenate([own[:, None], length[:, None], matches, totals], axis=1)


def test_a_comparison_tells_better_from_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(3)
    references = text(draw, 100)
    good, bad = noisy(draw, references, 0.2), noisy(draw, references, 0.4)
    found = compare(good, bad, references, BLEU(), 999)
    assert found.p_value == 1 / 1000
    assert found.difference == pytest.approx(
        BLEU().corpus_score(good, [references]).score - BLEU().corpus_score(bad, [references]).score, abs=1e-9
    )
    turned = compare(bad, good, references, BLEU(), 999)
    assert (turned.p_value, turned.difference) == (found.p_value, -found.difference)
    assert (turned.mean, turned.baseline_confidence_95) == (found.baseline_mean, found.confidence_95)
    assert "bs:999|seed:12345" in found.signature
    same = compare(good, good, references, CHRF(), 99)
    assert (same.p_value, same.difference) == (1.0, 0.0)
    other = noisy(draw, references, 0.3)
    seen = []
    for seed in ("0", "1", "12345"):
        monkeypatch.setenv("SACREBLEU_SEED", seed)
        seen.append(compare(other, bad, references, BLEU(), 99))
        assert seen[-1] == compare(other, bad, references, BLEU(), 99)
        assert f"seed:{seed}|" in seen[-1].signature
    assert len({each.mean for each in seen}) == 3
    monkeypatch.setenv("SACREBLEU_SEED", "twelve")
    with pytest.raises(ConfigError, match="SACREBLEU_SEED: must be a whole number or none, got 'twelve'"):
        compare(good, bad, references, BLEU(), 9)


def test_holm_by_hand() -> None:
    assert holm([]) == []
    assert holm([0.04]) == [0.04]
    # Ascending 0.01, 0.015, 0.02, 0.5 times 4, 3, 2, 1: 0.04, 0.045, 0.04 (so 0.045), 0.5
    assert holm([0.02, 0.5, 0.01, 0.015]) == pytest.approx([0.045, 0.5, 0.04, 0.045])
    assert holm([0.3, 0.4, 0.5]) == pytest.approx([0.9, 0.9, 0.9])
    assert holm([0.6, 0.6]) == [1.0, 1.0]
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # Wikipedia's example


def test_holm_keeps_order_and_never_lowers() -> None:
    draw = np.random.default_rng(2)
    for size in (1, 2, 15, 22):
        values = draw.random(size) ** 3
        adjusted = holm(values.tolist())
        assert all(new >= old for new, old in zip(adjusted, values, strict=True))
        assert all(new <= min(1, size * old) + 1e-12 for new, old in zip(adjusted, values, strict=True))
        order = np.argsort(values)
        assert np.all(np.diff(np.array(adjusted)[order]) >= 0)
