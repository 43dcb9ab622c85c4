"""The fused KD loss against a slow loop in float64, against autograd, and against numbers worked out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from fairseq_compress.functional.losses.word_level_kd import word_level_kd_loss
from tests.helpers.loss_helpers import PADDING, gradcheck, logits, targets


def slow_loop(student, teachers, target, temperature, alpha, smoothing):
    """The definition, one token and one entry at a time."""
    gold = nll = kd = agreement = 0.0
    vocabulary = student.size(1)
    smoothed = smoothing / (vocabulary - 1)
    for n in range(student.size(0)):
        if target[n] == PADDING:
            continue
        z = student[n].tolist()
        total = sum(math.exp(v) for v in z)
        log_p = [v - math.log(total) for v in z]
        total_t = sum(math.exp(v / temperature) for v in z)
        log_p_t = [v / temperature - math.log(total_t) for v in z]
        q = [0.0] * vocabulary
        for teacher in teachers:
            w = [math.exp(v / temperature) for v in teacher[n].tolist()]
            q = [a + b / sum(w) / len(teachers) for a, b in zip(q, w, strict=True)]
        y = int(target[n])
        nll -= log_p[y]
        gold += -(1 - smoothing - smoothed) * log_p[y] - smoothed * sum(log_p)
        kd += sum(a * (math.log(a) - b) for a, b in zip(q, log_p_t, strict=True))
        agreement += q.index(max(q)) == z.index(max(z))
    return alpha * gold + (1 - alpha) * temperature**2 * kd, gold, nll, kd, agreement


@pytest.mark.parametrize("teachers", [1, 3])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 8.0])
def test_equals_the_slow_loop(temperature, alpha, smoothing, teachers):
    student, target = logits(17, 23, 0), targets(17, 23)
    teacher_logits = [logits(17, 23, seed) for seed in range(1, teachers + 1)]
    got = word_level_kd_loss(
        student, teacher_logits, target, temperature=temperature, gold_weight=alpha, kd_weight=1 - alpha,
        label_smoothing=smoothing, padding_idx=PADDING, chunk_rows=5,
    )  # fmt: skip
    want = slow_loop(student, teacher_logits, target, temperature, alpha, smoothing)
    torch.testing.assert_close(torch.stack(list(got)), torch.tensor(want, dtype=torch.float64), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("teachers", [1, 2])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 8.0])
def test_gradient_equals_autograd(temperature, alpha, teachers):
    student, target = logits(17, 23, 0).requires_grad_(), targets(17, 23)
    teacher_logits = [logits(17, 23, seed) for seed in range(1, teachers + 1)]
    loss = word_level_kd_loss(
        student, teacher_logits, target, temperature=temperature, gold_weight=alpha, kd_weight=1 - alpha,
        label_smoothing=0.1, padding_idx=PADDING, chunk_rows=4,
    ).loss  # fmt: skip
    (3 * loss).backward()  # a factor, as a loss scale or a mean would put

    reference = student.detach().clone().requires_grad_()
    keep = target.ne(PADDING)
    log_p = F.log_softmax(reference, -1)[keep]
    smoothed = 0.1 / 22
    gold = -(0.9 - smoothed) * log_p.gather(1, target[keep][:, None]).sum() - smoothed * log_p.sum()
    q = sum(F.softmax(t / temperature, -1) for t in teacher_logits) / teachers
    kd = F.kl_div(F.log_softmax(reference / temperature, -1)[keep], q[keep], reduction="sum")
    (3 * (alpha * gold + (1 - alpha) * temperature**2 * kd)).backward()
    torch.testing.assert_close(student.grad, reference.grad, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_gradcheck(temperature):
    teachers, target = [logits(5, 7, 1), logits(5, 7, 2)], targets(5, 7, padded=1)

    def loss(z):
        return word_level_kd_loss(
            z,
            teachers,
            target,
            temperature=temperature,
            gold_weight=0.3,
            kd_weight=0.7,
            label_smoothing=0.1,
            chunk_rows=2,
        ).loss

    assert gradcheck(loss, logits(5, 7, 0))


def test_worked_out_by_hand():
    """Student uniform over 4 entries; teacher (1/2, 1/6, 1/6, 1/6): KL = ln 4 - H(teacher)."""
    student = torch.zeros(1, 4, dtype=torch.float64)
    teacher = torch.tensor([[math.log(3.0), 0.0, 0.0, 0.0]], dtype=torch.float64)
    got = word_level_kd_loss(student, [teacher], torch.tensor([2]), temperature=1.0, gold_weight=0.25, kd_weight=0.75)
    entropy = 0.5 * math.log(2) + 0.5 * math.log(6)
    assert got.nll.item() == pytest.approx(math.log(4))
    assert got.kd.item() == pytest.approx(math.log(4) - entropy)
    assert got.loss.item() == pytest.approx(0.25 * math.log(4) + 0.75 * (math.log(4) - entropy))
    assert got.agreement.item() == 1  # entry 0 is among the student's equals, and max() takes the first


def test_any_cut_of_the_batch_gives_the_same_sums():
    student, teacher, target = logits(30, 11, 0), logits(30, 11, 1), targets(30, 11)
    whole = torch.stack(list(word_level_kd_loss(student, [teacher], target, temperature=2.0)))
    for cut in (1, 7, 29):
        parts = [
            torch.stack(list(word_level_kd_loss(student[rows], [teacher[rows]], target[rows], temperature=2.0)))
            for rows in (slice(cut), slice(cut, None))
        ]
        torch.testing.assert_close(parts[0] + parts[1], whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("chunk_rows", [1, 3, 30, 1000])
def test_chunk_size_changes_nothing(chunk_rows):
    student, teacher, target = logits(30, 11, 0), logits(30, 11, 1), targets(30, 11)
    gradients = []
    for rows in (chunk_rows, None):
        z = student.clone().requires_grad_()
        word_level_kd_loss(z, [teacher], target, temperature=2.0, chunk_rows=rows).loss.backward()
        gradients.append(z.grad)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_padding_counts_for_nothing_even_when_not_finite():
    student, teacher, target = logits(6, 11, 0), logits(6, 11, 1), targets(6, 11, padded=2)
    padded = target.eq(PADDING)
    clean = word_level_kd_loss(student[~padded], [teacher[~padded]], target[~padded])
    teacher[padded] = float("nan")
    z = student.clone().requires_grad_()
    got = word_level_kd_loss(z, [teacher], target)
    got.loss.backward()
    torch.testing.assert_close(torch.stack(list(got)), torch.stack(list(clean)))
    assert z.grad[padded].eq(0).all()
    assert z.grad[~padded].ne(0).any()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3), (torch.float32, 1e-5)])
def test_lower_precision_computes_in_float32(dtype, tolerance):
    student, teacher, target = logits(12, 50, 0, dtype), logits(12, 50, 1, dtype), targets(12, 50)
    z, exact = student.clone().requires_grad_(), student.double().requires_grad_()
    low = word_level_kd_loss(z, [teacher], target, temperature=2.0)
    high = word_level_kd_loss(exact, [teacher.double()], target, temperature=2.0)
    low.loss.backward()
    high.loss.backward()
    assert low.loss.dtype == torch.float32
    torch.testing.assert_close(
        low.loss.double(), high.loss, rtol=1e-5, atol=1e-5
    )  # inputs are equal: only the sum rounds
    assert z.grad.dtype == dtype
    torch.testing.assert_close(z.grad.double(), exact.grad, rtol=tolerance, atol=tolerance)


def test_same_student_and_teacher_has_no_divergence():
    student, target = logits(8, 13, 0), targets(8, 13)
    got = word_level_kd_loss(student, [student, student], target, temperature=4.0)
    assert got.kd.item() == pytest.approx(0, abs=1e-12)
    assert got.agreement.item() == target.ne(PADDING).sum().item()


def test_teachers_get_no_gradient():
    student, teacher = logits(4, 9, 0).requires_grad_(), logits(4, 9, 1).requires_grad_()
    word_level_kd_loss(student, [teacher], targets(4, 9, padded=0)).loss.backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_second_backward_is_refused_and_not_wrong():
    student = logits(4, 9, 0).requires_grad_()
    loss = word_level_kd_loss(student, [logits(4, 9, 1)], targets(4, 9)).loss
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once only"):
        loss.backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0}, "temperature must be greater than 0, got 0"),
        ({"kd_weight": -2}, r"kd_weight must be at least 0, got -2"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), got 1.0"),
        ({"teachers": []}, "at least one output"),
        ({"teachers": [torch.zeros(4, 8)]}, r"must be \(4, 9\) as the student's, got \(4, 8\)"),
        ({"target": torch.zeros(5, dtype=torch.long)}, r"target must be \(4,\), got \(5,\)"),
        ({"student": torch.zeros(2, 2, 9)}, r"must be \(N, V\)"),
    ],
)
def test_bad_arguments(change, message):
    arguments = {"student": logits(4, 9, 0), "teachers": [logits(4, 9, 1)], "target": targets(4, 9)}
    with pytest.raises(ValueError, match=message):
        word_level_kd_loss(**(arguments | change))
