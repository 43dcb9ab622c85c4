"""Divergences other than KL(q ‖ p), weights of tokens and the ranking loss: slow loops, autograd, numbers by hand."""

import math

import pytest
import torch

from fairseq_compress.functional.losses.divergences import Divergence, ranking_loss
from fairseq_compress.functional.losses.outputs import Projected
from fairseq_compress.functional.losses.predictions import best_entries, token_nll
from fairseq_compress.functional.losses.word_level_kd import word_level_kd_loss
from tests.helpers.loss_helpers import PADDING, gradcheck, logits, targets, top_k_of

ALL = [
    Divergence("forward_kl", ranking=3),
    Divergence("reverse_kl"),
    Divergence("reverse_kl", ranking=5),
    Divergence("jsd", 0.5),
    Divergence("jsd", 0.1),
    Divergence("jsd", 0.9, 2),
]


def kl(a, b):
    return sum(x * (math.log(x) - math.log(y)) for x, y in zip(a, b, strict=True) if x > 0)


def slow_divergence(q, p, divergence):
    kind, beta, _ = divergence
    if kind == "forward_kl":
        value = kl(q, p)
    elif kind == "reverse_kl":
        value = kl(p, q)
    else:
        m = [beta * a + (1 - beta) * b for a, b in zip(q, p, strict=True)]
        value = beta * kl(q, m) + (1 - beta) * kl(p, m)
    return value


def slow_ranking(q, p, k):
    value, of_teacher = 0.0, sorted(range(len(q)), key=lambda i: -q[i])[:k]
    of_student = sorted(range(len(p)), key=lambda i: -p[i])[:k]
    for i in of_teacher:
        value += max(0.0, p[i] - p[of_teacher[0]])
        value += sum(max(0.0, p[j] - p[i]) for j in of_student if q[i] > q[j])
    return value


@pytest.mark.parametrize("teachers", [1, 2])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("divergence", ALL, ids=str)
def test_equals_the_slow_loop(divergence, temperature, teachers):
    student, target, weights = logits(17, 23, 0), targets(17, 23), torch.rand(17, dtype=torch.float64)
    others = [logits(17, 23, seed) for seed in range(1, teachers + 1)]
    got = word_level_kd_loss(
        student, others, target, temperature=temperature, gold_weight=0.5, kd_weight=2.0, divergence=divergence,
        weights=weights, padding_idx=PADDING, chunk_rows=5,
    )  # fmt: skip
    p, tempered = (torch.softmax(student / t, -1).tolist() for t in (1.0, temperature))
    q = torch.stack([torch.softmax(t / temperature, -1) for t in others]).mean(0).tolist()
    kept = [n for n in range(17) if target[n] != PADDING]
    of_kd = sum(weights[n].item() * slow_divergence(q[n], tempered[n], divergence) for n in kept)
    of_ranking = sum(weights[n].item() * slow_ranking(q[n], p[n], divergence.ranking) for n in kept)
    assert got.kd.item() == pytest.approx(of_kd + of_ranking, rel=1e-10)
    want = 0.5 * got.gold.item() + 2 * (temperature**2 * of_kd + of_ranking)  # the hinge has no factor T²
    assert got.loss.item() == pytest.approx(want, rel=1e-10)


def reference(student, others, target, temperature, divergence, weights):
    """As torch differentiates it."""
    keep = target.ne(PADDING)
    p = torch.softmax(student / temperature, -1)
    q = torch.stack([torch.softmax(t / temperature, -1) for t in others]).mean(0)
    m = divergence.beta * q + (1 - divergence.beta) * p
    value = {
        "forward_kl": lambda: q * (q / p).log(),
        "reverse_kl": lambda: p * (p / q).log(),
        "jsd": lambda: divergence.beta * q * (q / m).log() + (1 - divergence.beta) * p * (p / m).log(),
    }[divergence.kind]().sum(-1)
    value = temperature**2 * value
    if divergence.ranking:
        value = value + ranking_loss(q, torch.softmax(student, -1), divergence.ranking).loss
    gold = -torch.log_softmax(student, -1).gather(1, target[:, None]).squeeze(1)
    return (0.5 * gold + 2.0 * weights * value)[keep].sum()


@pytest.mark.parametrize("teachers", [1, 2])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("divergence", [Divergence(), *ALL], ids=str)
def test_gradient_equals_autograd(divergence, temperature, teachers):
    student, target, weights = logits(17, 23, 0).requires_grad_(), targets(17, 23), torch.rand(17).double().round()
    others = [logits(17, 23, seed) for seed in range(1, teachers + 1)]
    word_level_kd_loss(
        student, others, target, temperature=temperature, gold_weight=0.5, kd_weight=2.0, divergence=divergence,
        weights=weights, padding_idx=PADDING, chunk_rows=4,
    ).loss.backward()  # fmt: skip
    other = student.detach().clone().requires_grad_()
    reference(other, others, target, temperature, divergence, weights).backward()
    torch.testing.assert_close(student.grad, other.grad, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("divergence", ALL, ids=str)
def test_gradcheck_from_hidden_states(divergence):
    hidden, weight, target = logits(6, 4, 2), logits(11, 4, 3), targets(6, 11, padded=1)

    def loss(h, w):
        return word_level_kd_loss(
            Projected(h, w), [logits(6, 11, 5)], target, temperature=1.5, divergence=divergence, padding_idx=PADDING
        ).loss

    assert gradcheck(loss, hidden, weight)


def test_numbers_by_hand():
    """q = (3/4, 1/4), p = (1/2, 1/2)."""
    p, q = torch.zeros(1, 2), torch.tensor([[math.log(3), 0.0]])

    def value(divergence):
        return word_level_kd_loss(p, [q], torch.tensor([0]), divergence=divergence, padding_idx=9).kd.item()

    assert value(Divergence("reverse_kl")) == pytest.approx(0.5 * math.log(2 / 3) + 0.5 * math.log(2), rel=1e-6)
    of_teacher = 0.75 * math.log(0.75 / 0.625) + 0.25 * math.log(0.25 / 0.375)
    of_student = 0.5 * math.log(0.5 / 0.625) + 0.5 * math.log(0.5 / 0.375)
    assert value(Divergence("jsd", 0.5)) == pytest.approx(0.5 * of_teacher + 0.5 * of_student, rel=1e-5)


def test_the_ranking_loss_by_hand():
    """The teacher's order is 0, 1; the student's 2, 1: 1 is over 0 by 0.1; 2 over 0 by 0.3 and over 1 by 0.2."""
    q = torch.tensor([[0.6, 0.3, 0.1, 0.0]], dtype=torch.float64)
    p = torch.tensor([[0.2, 0.3, 0.5, 0.0]], dtype=torch.float64)
    ranking = ranking_loss(q, p, 2)
    # to the best: 0.1. Pairs with the student's two best, 2 and 1: (0, 2) 0.3, (0, 1) 0.1, (1, 2) 0.2
    assert ranking.loss.item() == pytest.approx(0.1 + 0.3 + 0.1 + 0.2)
    slopes = torch.zeros(1, 4, dtype=torch.float64).scatter_add_(1, ranking.ids, ranking.slopes)
    assert slopes.tolist() == [[-3.0, 1.0, 2.0, 0.0]]
    assert ranking_loss(q, q, 2).loss.item() == 0


def test_extreme_logits_stay_finite():
    student = torch.tensor([[200.0, -200.0, 0.0]], requires_grad=True)
    for divergence in ALL:
        student.grad = None
        got = word_level_kd_loss(
            student, [-student.detach()], torch.tensor([0]), divergence=divergence, padding_idx=PADDING
        )
        got.loss.backward()
        assert all(torch.isfinite(value) for value in got)
        assert torch.isfinite(student.grad).all()


def test_no_weight_is_no_distillation_and_equal_models_have_none():
    student, target = logits(9, 13, 0).requires_grad_(), targets(9, 13)
    for divergence in ALL:
        student.grad = None
        got = word_level_kd_loss(student, [student.detach()], target, gold_weight=0, kd_weight=1, divergence=divergence)
        got.loss.backward()
        assert got.kd.item() == pytest.approx(0, abs=1e-12)
        assert student.grad.abs().max() < 1e-12
    got = word_level_kd_loss(student, [logits(9, 13, 1)], target, weights=torch.zeros(9))
    assert got.kd.item() == 0
    assert got.loss.item() == pytest.approx(0.5 * got.gold.item())


def test_weights_of_a_cached_teacher():
    student, target, teacher = logits(17, 23, 0).requires_grad_(), targets(17, 23), logits(17, 23, 1)
    weights, gradients = torch.rand(17).round().double(), []
    for teachers in ([teacher], top_k_of([teacher], 23, 2.0)):
        student.grad = None
        loss = word_level_kd_loss(student, teachers, target, temperature=2.0, weights=weights, padding_idx=PADDING).loss
        loss.backward()
        gradients.append((loss.detach(), student.grad))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"divergence": Divergence("kl")}, "kind must be one of forward_kl, reverse_kl, jsd, got 'kl'"),
        ({"divergence": Divergence("jsd", 1.0)}, r"beta must be in \(0, 1\), got 1.0"),
        ({"divergence": Divergence(ranking=-1)}, "ranking must be at least 0, got -1"),
        ({"weights": torch.ones(3)}, r"weights must be \(4,\), got \(3,\)"),
        (
            {"teachers": top_k_of([logits(4, 9, 1)], 2, 1.0), "divergence": Divergence("jsd")},
            "divergence must be forward_kl without ranking for a cached teacher",
        ),
    ],
)
def test_bad_arguments(change, message):
    arguments = {"student": logits(4, 9, 0), "teachers": [logits(4, 9, 1)], "target": targets(4, 9)}
    with pytest.raises(ValueError, match=message):
        word_level_kd_loss(**(arguments | change))


def test_predictions_from_logits_and_from_hidden_states():
    hidden, weight, bias, target = logits(50, 6, 0), logits(31, 6, 1), logits(1, 31, 2)[0], targets(50, 31)
    whole = hidden @ weight.t() + bias
    for output in (whole, Projected(hidden, weight, bias)):
        assert torch.equal(best_entries(output, block_rows=7), whole.argmax(-1))
        nll = -torch.log_softmax(whole, -1).gather(1, target[:, None]).squeeze(1)
        torch.testing.assert_close(token_nll(output, target, block_rows=7), nll)
