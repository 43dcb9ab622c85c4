"""The fused label-smoothed loss against a loop in float64, against fairseq's, and what its engine promises."""

import math

import pytest
import torch
from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss

from fairseq_compress.functional.losses.chunks import Job, sum_rows
from fairseq_compress.functional.losses.label_smoothed import label_smoothed_loss
from tests.helpers.loss_helpers import PADDING, gradcheck, logits, targets


def slow_loop(student, target, smoothing, weights):
    """The definition, one token and one entry at a time: both sums and the gradient."""
    loss = nll = 0.0
    rows, vocabulary = student.shape
    smoothed = smoothing / (vocabulary - 1)
    gradient = torch.zeros_like(student)
    for n in range(rows):
        if target[n] == PADDING:
            continue
        z, y = student[n].tolist(), int(target[n])
        w = 1.0 if weights is None else float(weights[n])
        total = sum(math.exp(v) for v in z)
        log_p = [v - math.log(total) for v in z]
        nll -= w * log_p[y]
        for v in range(vocabulary):
            share = 1 - smoothing if v == y else smoothed  # what the smoothed target gives to entry v
            loss -= w * share * log_p[v]
            gradient[n, v] = w * (math.exp(log_p[v]) - share)
    return loss, nll, gradient


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk_rows", [1, 5, None])
def test_equals_the_slow_loop(chunk_rows, smoothing, weighted):
    student, target = logits(17, 23, 0).requires_grad_(), targets(17, 23)
    weights = torch.linspace(0, 2, 17, dtype=torch.float64) if weighted else None
    got = label_smoothed_loss(student, target, label_smoothing=smoothing, weights=weights, chunk_rows=chunk_rows)
    (3 * got.loss).backward()  # a factor, as a loss scale or a mean would put
    loss, nll, gradient = slow_loop(student.detach(), target, smoothing, weights)
    assert (got.loss.item(), got.nll.item()) == pytest.approx((loss, nll), rel=1e-11)
    torch.testing.assert_close(student.grad, 3 * gradient, rtol=1e-10, atol=1e-12)


def test_equals_fairseq():
    student, target = logits(40, 60, 0, torch.float32), targets(40, 60)
    theirs, ours = (student.clone().requires_grad_() for _ in range(2))
    loss, nll = label_smoothed_nll_loss(torch.log_softmax(theirs, -1), target, 0.1, ignore_index=PADDING)
    loss.backward()
    got = label_smoothed_loss(ours, target, label_smoothing=0.1)
    got.loss.backward()
    torch.testing.assert_close(torch.stack(list(got)), torch.stack([loss, nll]))
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)


def test_gradcheck():
    target, weights = targets(6, 9, padded=1), torch.rand(6, dtype=torch.float64)
    assert gradcheck(
        lambda z: label_smoothed_loss(z, target, label_smoothing=0.1, weights=weights).loss, logits(6, 9, 0)
    )


def test_worked_out_by_hand():
    """Uniform over 5 entries: every -log p is ln 5, smoothed or not."""
    got = label_smoothed_loss(torch.zeros(3, 5), torch.tensor([2, 3, PADDING]), label_smoothing=0.3)
    assert (got.loss.item(), got.nll.item()) == pytest.approx((2 * math.log(5), 2 * math.log(5)))


def test_any_cut_of_the_batch_gives_the_same_sums():
    student, target = logits(30, 11, 0), targets(30, 11)
    whole = torch.stack(list(label_smoothed_loss(student, target, label_smoothing=0.1)))
    for cut in (1, 7, 29):
        parts = [
            torch.stack(list(label_smoothed_loss(student[rows], target[rows], label_smoothing=0.1)))
            for rows in (slice(cut), slice(cut, None))
        ]
        torch.testing.assert_close(parts[0] + parts[1], whole, rtol=1e-12, atol=1e-12)


def test_padding_counts_for_nothing_even_when_not_finite():
    student, target = logits(6, 11, 0), targets(6, 11, padded=2)
    padded = target.eq(PADDING)
    clean = label_smoothed_loss(student[~padded], target[~padded], label_smoothing=0.1)
    student[padded] = float("nan")
    weights = torch.ones(6, dtype=torch.float64).masked_fill(padded, float("nan"))
    z = student.clone().requires_grad_()
    got = label_smoothed_loss(z, target, label_smoothing=0.1, weights=weights)
    got.loss.backward()
    torch.testing.assert_close(torch.stack(list(got)), torch.stack(list(clean)))
    assert z.grad[padded].eq(0).all()
    assert z.grad[~padded].ne(0).all()


@pytest.mark.parametrize("rows", [0, 4])
def test_a_batch_of_padding_or_nothing_is_zero(rows):
    z = torch.full((rows, 7), float("nan"), requires_grad=True)
    got = label_smoothed_loss(z, torch.full((rows,), PADDING))
    got.loss.backward()
    assert (got.loss.item(), got.nll.item(), z.grad.ne(0).sum().item()) == (0, 0, 0)


def test_weights_of_one_change_no_bit():
    student, target = logits(30, 50, 0, torch.float32), targets(30, 50)
    plain, weighted = (student.clone().requires_grad_() for _ in range(2))
    first = label_smoothed_loss(plain, target, label_smoothing=0.1)
    second = label_smoothed_loss(weighted, target, label_smoothing=0.1, weights=torch.ones(30))
    first.loss.backward()
    second.loss.backward()
    assert torch.equal(first.loss, second.loss)
    assert torch.equal(first.nll, second.nll)
    assert torch.equal(plain.grad, weighted.grad)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3), (torch.float32, 1e-5)])
def test_lower_precision_computes_in_float32(dtype, tolerance):
    student, target = logits(12, 50, 0, dtype), targets(12, 50)
    z, exact = student.clone().requires_grad_(), student.double().requires_grad_()
    low, high = (label_smoothed_loss(x, target, label_smoothing=0.1) for x in (z, exact))
    low.loss.backward()
    high.loss.backward()
    assert low.loss.dtype == torch.float32
    torch.testing.assert_close(low.loss.double(), high.loss, rtol=1e-5, atol=1e-5)  # inputs are equal
    assert z.grad.dtype == dtype
    torch.testing.assert_close(z.grad.double(), exact.grad, rtol=tolerance, atol=tolerance)


def test_a_loss_scale_keeps_small_gradients_of_float16():
    """p = 1e-9 is zero in float16; times a scale of 2**20 it is not."""
    z = torch.tensor([[20.7, 0.0, 0.0, 0.0]], dtype=torch.float16, requires_grad=True)
    (2**20 * label_smoothed_loss(z, torch.tensor([0]), padding_idx=1).loss).backward()
    assert z.grad[0, 1].item() == pytest.approx(2**20 * math.exp(-z[0, 0].item()), rel=1e-2)


def test_the_gradient_is_made_only_where_it_is_needed():
    asked = []

    class Spy:
        sums, scratch = 1, 0

        def __call__(self, rows, needs_gradient):
            asked.append(needs_gradient)
            rows.gradient.zero_()
            return [rows.logits.sum(dim=-1)]

    job = Job(Spy(), (), targets(4, 9), None, PADDING, None)
    with torch.no_grad():
        sum_rows(job, logits(4, 9, 0).requires_grad_())
    sum_rows(job, logits(4, 9, 0))
    assert sum_rows(job, logits(4, 9, 0).requires_grad_())[0].requires_grad
    assert asked == [False, False, True]


def test_the_loss_can_be_scaled_in_place():
    """fairseq does, by zero, where a process has no batch left but the others have."""
    z = logits(4, 9, 0).requires_grad_()
    loss = label_smoothed_loss(z, targets(4, 9)).loss
    loss *= 0
    loss.backward()
    assert z.grad.eq(0).all()


def test_second_backward_is_refused_and_not_wrong():
    loss = label_smoothed_loss(logits(4, 9, 0).requires_grad_(), targets(4, 9)).loss
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once only"):
        loss.backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), got 1.0"),
        ({"label_smoothing": -0.1}, r"label_smoothing must be in \[0, 1\), got -0.1"),
        ({"target": torch.zeros(5, dtype=torch.long)}, r"target must be \(4,\), got \(5,\)"),
        ({"weights": torch.zeros(4, 1)}, r"weights must be \(4,\), got \(4, 1\)"),
        ({"student": torch.zeros(2, 2, 9)}, r"student must be \(N, V\), got \(2, 2, 9\)"),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        label_smoothed_loss(**({"student": logits(4, 9, 0), "target": targets(4, 9)} | change))
