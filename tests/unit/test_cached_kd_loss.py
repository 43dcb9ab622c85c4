"""Word-level KD from the top k of a cached teacher: against the live teacher, and against a loop in float64."""

import math

import pytest
import torch

from fairseq_compress.functional.losses.outputs import TopK
from fairseq_compress.functional.losses.word_level_kd import word_level_kd_loss
from tests.helpers.loss_helpers import PADDING, gradcheck, logits, targets, top_k_of


def run(student, teachers, target, **options):
    """The five sums, and the gradient."""
    z = student.clone().requires_grad_()
    losses = word_level_kd_loss(z, teachers, target, label_smoothing=0.1, **options)
    losses.loss.backward()
    return torch.stack(list(losses)), z.grad


def slow_loop(student, cache, target, temperature, alpha, smoothing):
    """The definition over k + 1 entries, one token at a time: four sums and the gradient."""
    gold_sum = kd_sum = agreement = nll = 0.0
    rows, vocabulary = student.shape
    smoothed = smoothing / (vocabulary - 1)
    gradient = torch.zeros_like(student)
    for n in range(rows):
        if target[n] == PADDING:
            continue
        z, y = student[n].tolist(), int(target[n])
        p = [math.exp(v) / sum(math.exp(u) for u in z) for v in z]
        p_t = [math.exp(v / temperature) / sum(math.exp(u / temperature) for u in z) for v in z]
        ids = cache.ids[n].tolist()
        total = float(cache.probabilities[n].double().sum() + cache.rest[n].double())
        q = dict(zip(ids, (float(x) / total for x in cache.probabilities[n]), strict=True))
        q_rest = float(cache.rest[n]) / total
        p_rest = sum(p_t[v] for v in range(vocabulary) if v not in q)
        kd_sum += sum(q[v] * math.log(q[v] / p_t[v]) for v in ids)
        kd_sum += q_rest * math.log(q_rest / p_rest) if q_rest > 0 else 0.0
        agreement += z.index(max(z)) == ids[0]
        nll -= math.log(p[y])
        for v in range(vocabulary):
            share = 1 - smoothing if v == y else smoothed
            gold_sum -= share * math.log(p[v])
            kd = p_t[v] - q[v] if v in q else p_t[v] * (1 - q_rest / p_rest)
            gradient[n, v] = alpha * (p[v] - share) + (1 - alpha) * temperature * kd
    loss = alpha * gold_sum + (1 - alpha) * temperature**2 * kd_sum
    return torch.tensor([loss, gold_sum, nll, kd_sum, agreement], dtype=torch.float64), gradient


@pytest.mark.parametrize("k", [1, 4, 22])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 8.0])
def test_sums_and_gradient_equal_the_slow_loop(temperature, alpha, k):
    student, target = logits(17, 23, 0), targets(17, 23)
    cache = top_k_of([logits(17, 23, 1), logits(17, 23, 2)], k, temperature)
    sums, gradient = run(
        student, cache, target, temperature=temperature, gold_weight=alpha, kd_weight=1 - alpha, chunk_rows=5
    )
    want_sums, want_gradient = slow_loop(student, cache, target, temperature, alpha, 0.1)
    torch.testing.assert_close(sums, want_sums, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradient, want_gradient, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 8.0])
@pytest.mark.parametrize(("stored", "tolerance"), [(torch.float64, 1e-10), (torch.float16, 1e-3)])
def test_k_of_the_whole_vocabulary_is_the_live_teacher(stored, tolerance, temperature, several):
    student, target = logits(17, 23, 0), targets(17, 23)
    teachers = [logits(17, 23, 1), logits(17, 23, 2)][: 1 + several]
    cache = top_k_of(teachers, 23, temperature, stored)
    assert cache.rest.eq(0).all()
    live = run(student, teachers, target, temperature=temperature, gold_weight=0.3, kd_weight=0.7)
    cached = run(student, cache, target, temperature=temperature, gold_weight=0.3, kd_weight=0.7)
    for one, other in zip(cached, live, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_gradcheck(temperature):
    cache, target = top_k_of([logits(6, 9, 1)], 3, temperature), targets(6, 9, padded=1)

    def loss(z):
        return word_level_kd_loss(
            z, cache, target, temperature=temperature, gold_weight=0.3, kd_weight=0.7, label_smoothing=0.1
        ).loss

    assert gradcheck(loss, logits(6, 9, 0))


def test_worked_out_by_hand():
    """Student uniform over 4 entries; teacher 1/2 on entry 3, the other half anywhere else."""
    cache = TopK(torch.tensor([[3]]), torch.tensor([[0.5]]), torch.tensor([0.5]))
    z = torch.zeros(1, 4, requires_grad=True)
    got = word_level_kd_loss(z, cache, torch.tensor([2]), gold_weight=0.0, kd_weight=1.0)
    got.loss.backward()
    assert got.kd.item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert z.grad[0].tolist() == pytest.approx([0.25 * (1 - 2 / 3)] * 3 + [0.25 - 0.5])
    assert got.agreement.item() == 1  # entry 3 is among the student's equals


def test_a_student_of_the_same_opinion_has_no_divergence():
    student, target = logits(8, 13, 0), targets(8, 13)
    sums, gradient = run(student, top_k_of([student], 4, 2.0), target, temperature=2.0, gold_weight=0.0, kd_weight=1.0)
    assert sums[3].item() == pytest.approx(0, abs=1e-12)
    assert gradient.abs().max().item() == pytest.approx(0, abs=1e-12)
    assert sums[4].item() == target.ne(PADDING).sum().item()


def test_stored_values_need_not_sum_to_one():
    student, target, cache = logits(8, 13, 0), targets(8, 13), top_k_of([logits(8, 13, 1)], 4, 1.0)
    scaled = TopK(cache.ids.int(), 1.01 * cache.probabilities, 1.01 * cache.rest)
    for one, other in zip(run(student, scaled, target), run(student, cache, target), strict=True):
        torch.testing.assert_close(one, other)


def test_a_student_without_mass_outside_is_finite_and_is_drawn_there():
    """In float32 the student's mass outside of K underflows to zero, the teacher's is a quarter."""
    z = torch.tensor([[200.0, 0.0, 0.0, 0.0]], requires_grad=True)
    cache = TopK(torch.tensor([[0]]), torch.tensor([[0.75]]), torch.tensor([0.25]))
    got = word_level_kd_loss(z, cache, torch.tensor([0]), gold_weight=0.0, kd_weight=1.0)
    got.loss.backward()
    assert got.loss.isfinite()
    assert got.kd.item() > 0.25 * 80
    assert got.kd.item() == pytest.approx(0.75 * math.log(0.75) + 0.25 * math.log(0.25) + 0.25 * (200 - math.log(3)))
    assert z.grad.tolist()[0] == pytest.approx([0.25, -0.25 / 3, -0.25 / 3, -0.25 / 3])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("gap", [50, 80, 88, 95, 120, 200])  # by T; float32 holds no probability from 104 on
def test_gaps_between_logits_are_exact(gap, temperature, weighted):
    """The definition in float64 by log-probabilities, whose gradient is autograd's, against the loss in float32."""
    z = logits(5, 40, 0)
    z[:, :3] += gap * temperature
    z = z.float().double()
    teacher, target = top_k_of([logits(5, 40, 1)], 3, temperature), torch.arange(5) + 4
    teacher = TopK(torch.tensor([[0, 1, 2]]).repeat(5, 1), teacher.probabilities, teacher.rest)
    weights = torch.tensor([0.5, 1.0, 2.0, 0.0, 1.0]) if weighted else None
    exact = z.clone().requires_grad_()
    log_p = torch.log_softmax(exact / temperature, dim=-1)
    inside, outside = log_p[:, :3], log_p[:, 3:].logsumexp(dim=-1)
    kd = (teacher.probabilities * (teacher.probabilities.log() - inside)).sum(-1)
    kd = (kd + teacher.rest * (teacher.rest.log() - outside)) * (1.0 if weights is None else weights)
    (5 * temperature**2 * kd.sum() + torch.nn.functional.cross_entropy(exact, target, reduction="sum")).backward()
    single = z.float().requires_grad_()
    got = word_level_kd_loss(
        single, teacher, target, temperature=temperature, gold_weight=1.0, kd_weight=5.0, weights=weights
    )
    got.loss.backward()
    assert got.kd.item() == pytest.approx(kd.sum().item(), rel=1e-6)
    torch.testing.assert_close(single.grad.double(), exact.grad, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("gap", [8.0, 16.0, 40.0])
def test_little_mass_outside_does_not_cancel(gap):
    """One minus the mass inside would have no digit left in float32."""
    student, target = torch.zeros(1, 50, dtype=torch.float64), torch.tensor([5])
    student[0, :2] = gap
    teacher = top_k_of([logits(1, 50, 1)], 3, 1.0)
    teacher = TopK(torch.tensor([[0, 1, 5]]), teacher.probabilities, teacher.rest)
    exact = run(student, teacher, target, gold_weight=0.0, kd_weight=1.0)
    single = run(student.float(), teacher, target, gold_weight=0.0, kd_weight=1.0)
    for one, other in zip(single, exact, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-6)


def test_any_cut_of_the_batch_gives_the_same_sums():
    student, target, cache = logits(30, 11, 0), targets(30, 11), top_k_of([logits(30, 11, 1)], 4, 2.0)
    whole, gradient = run(student, cache, target, temperature=2.0)
    for cut in (1, 7, 29):
        parts = [
            run(student[rows], TopK(*(part[rows] for part in cache)), target[rows], temperature=2.0)
            for rows in (slice(cut), slice(cut, None))
        ]
        torch.testing.assert_close(parts[0][0] + parts[1][0], whole, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(torch.cat([parts[0][1], parts[1][1]]), gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("chunk_rows", [1, 3, 30, 1000])
def test_chunk_size_changes_nothing(chunk_rows):
    student, target, cache = logits(30, 11, 0), targets(30, 11), top_k_of([logits(30, 11, 1)], 4, 1.0)
    for one, other in zip(run(student, cache, target, chunk_rows=chunk_rows), run(student, cache, target), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_padding_counts_for_nothing_even_when_not_finite():
    """As a batch has it: ids 0, probabilities 0, rest 1; and also when everything there is NaN."""
    student, target = logits(6, 11, 0), targets(6, 11, padded=2)
    cache, padded = top_k_of([logits(6, 11, 1)], 4, 1.0), target.eq(PADDING)
    clean, clean_gradient = run(student[~padded], TopK(*(part[~padded] for part in cache)), target[~padded])
    for value, rest in ((0.0, 1.0), (float("nan"), float("nan"))):
        cache.ids[padded], cache.probabilities[padded], cache.rest[padded] = 0, value, rest
        student[padded] = value
        sums, gradient = run(student, cache, target)
        torch.testing.assert_close(sums, clean, rtol=1e-12, atol=1e-12)
        assert gradient[padded].eq(0).all()
        torch.testing.assert_close(gradient[~padded], clean_gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3), (torch.float32, 1e-5)])
def test_lower_precision_computes_in_float32(dtype, tolerance):
    student, target = logits(12, 50, 0, dtype), targets(12, 50)
    cache = top_k_of([logits(12, 50, 1)], 4, 2.0, torch.float16)
    (low, gradient), (high, exact) = (run(z, cache, target, temperature=2.0) for z in (student, student.double()))
    assert low.dtype == torch.float32
    assert gradient.dtype == dtype
    torch.testing.assert_close(low.double(), high, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient.double(), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("ids", "probabilities", "rest", "message"),
    [
        ((4, 10), (4, 10), (4,), r"ids \(4, k\) with k from 1 to 9, got \(4, 10\)"),
        ((3, 2), (3, 2), (3,), r"ids \(4, k\) with k from 1 to 9, got \(3, 2\)"),
        ((4, 0), (4, 0), (4,), r"ids \(4, k\) with k from 1 to 9, got \(4, 0\)"),
        ((4, 2), (4, 3), (4,), r"probabilities \(4, 2\) and a rest \(4,\)"),
        ((4, 2), (4, 2), (4, 1), r"probabilities \(4, 2\) and a rest \(4,\)"),
    ],
)
def test_bad_caches(ids, probabilities, rest, message):
    cache = TopK(torch.zeros(ids, dtype=torch.long), torch.zeros(probabilities), torch.zeros(rest))
    with pytest.raises(ValueError, match=message):
        word_level_kd_loss(logits(4, 9, 0), cache, targets(4, 9))


def test_ids_must_be_integers():
    with pytest.raises(ValueError, match="integer ids"):
        word_level_kd_loss(logits(4, 9, 0), TopK(torch.zeros(4, 2), torch.zeros(4, 2), torch.zeros(4)), targets(4, 9))
