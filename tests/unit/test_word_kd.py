"""Distillation of words over their pieces: slow loops in float64, numbers worked out by hand, extremes, padding."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_compress.functional.losses.word_kd import log1mexp, word_kd_loss, word_log_probs

TINY = torch.finfo(torch.float32).eps / 2


def loop(student, teacher):
    """The definition, one word at a time."""
    total = 0.0
    for log_s, log_t in zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True):
        p_s, p_t = math.exp(log_s), math.exp(log_t)
        total += p_t * math.log(p_t / p_s) + (1 - p_t) * math.log((1 - p_t) / (1 - p_s))
    return total


def logs(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64).mul(0.98).add(0.01).log()


def test_a_word_is_the_sum_of_its_pieces():
    """Two sentences: three words and the end, cut into 6 pieces; one word and the end, and padding of any value."""
    lprobs = torch.tensor([[-1.0, -2.0, -4.0, -8.0, -16.0, -32.0], [-3.0, -5.0, math.nan, -math.inf, 7.0, 0.0]])
    words = torch.tensor([[0, 0, 1, 2, 2, 3], [0, 1, -1, -1, -1, -1]])
    assert word_log_probs(lprobs, words, 4).tolist() == [[-3, -4, -24, -32], [-3, -5, 0, 0]]
    shuffled = word_log_probs(lprobs.flip(1), words.flip(1), 5)
    assert shuffled.tolist() == [[-3, -4, -24, -32, 0], [-3, -5, 0, 0, 0]]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=5), min_size=1, max_size=4), st.integers(0, 99))
def test_equals_the_loop_for_any_segmentation(lengths, seed):
    """``lengths``: of each sentence the number of pieces of each word."""
    pieces = max(map(sum, lengths))
    words = torch.tensor([[w for w, n in enumerate(row) for _ in range(n)] + [-1] * (pieces - sum(row))
                          for row in lengths])  # fmt: skip
    lprobs = logs(*words.shape, seed=seed)
    count = max(map(len, lengths))
    found = word_log_probs(lprobs, words, count)
    for sentence, row in enumerate(lengths):
        for word in range(count):
            inside = [lprobs[sentence, t].item() for t in range(pieces) if words[sentence, t] == word]
            assert found[sentence, word].item() == pytest.approx(sum(inside)), row


def test_worked_out_by_hand():
    """P_t 1/2, P_s 1/4: 1/2 log 2 + 1/2 log 2/3 = 1/2 log 4/3; and the other way: 1/4 log 1/2 + 3/4 log 3/2."""
    half, quarter = torch.tensor([[math.log(0.5)]]), torch.tensor([[math.log(0.25)]])
    assert word_kd_loss(quarter, half).item() == pytest.approx(0.5 * math.log(4 / 3), rel=1e-6)
    both = word_kd_loss(torch.cat([quarter, half]), torch.cat([half, quarter]))
    assert both.item() == pytest.approx(0.5 * math.log(4 / 3) + 0.25 * math.log(0.5) + 0.75 * math.log(1.5), rel=1e-6)


def test_equals_the_slow_loop():
    student, teacher = logs(3, 7), logs(3, 7, seed=1)
    assert word_kd_loss(student, teacher).item() == pytest.approx(loop(student, teacher), rel=1e-12)
    exact = word_kd_loss(student.float().double(), teacher.float().double())
    assert word_kd_loss(student.float(), teacher.float()).item() == pytest.approx(exact.item(), rel=1e-6)


def test_gradients_by_the_formula():
    student, teacher = logs(2, 5).requires_grad_(), logs(2, 5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: word_kd_loss(s, teacher.detach()), student)
    word_kd_loss(student, teacher).backward()
    p_s, p_t = student.detach().exp(), teacher.detach().exp()
    assert torch.allclose(student.grad, (p_s - p_t) / (1 - p_s))
    assert teacher.grad is None
    lprobs, words = logs(2, 4).requires_grad_(), torch.tensor([[0, 0, 1, 2], [0, 1, 1, -1]])
    goal = logs(2, 3, seed=2)
    goal[1, 2] = 0  # no such word
    assert torch.autograd.gradcheck(lambda x: word_kd_loss(word_log_probs(x, words, 3)[0], goal[0]), lprobs)
    word_kd_loss(word_log_probs(lprobs, words, 3), goal).backward()
    assert lprobs.grad[1, 3] == 0
    assert lprobs.grad[0, 0] == lprobs.grad[0, 1]


def test_it_is_a_lower_bound_of_the_divergence_of_all_words():
    """Reached where the other words are in the same proportions."""
    student, teacher = (torch.randn(50, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
                        .log_softmax(1) for seed in (0, 1))  # fmt: skip
    whole = (teacher.exp() * (teacher - student)).sum(1)
    for word in range(9):
        for row in range(50):
            assert 0 <= word_kd_loss(student[row, word], teacher[row, word]) <= whole[row] + 1e-12
    rest = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    p_s, p_t = torch.tensor([0.1, 0.7], dtype=torch.float64)
    whole = p_t * (p_t / p_s).log() + ((1 - p_t) * rest * ((1 - p_t) / (1 - p_s)).log()).sum()
    assert word_kd_loss(p_s.log(), p_t.log()).item() == pytest.approx(whole.item(), rel=1e-12)


@pytest.mark.parametrize("log_s", [0.0, -1e-30, -1e-9, -1e-7, -1e-3, -1.0, -50.0, -200.0])
@pytest.mark.parametrize("log_t", [0.0, -1e-30, -1e-9, -1e-7, -1e-3, -1.0, -50.0, -200.0, -math.inf])
def test_extremes_in_float32(log_s, log_t):
    """Against float64 with 1 - P of at least half the epsilon of float32; finite, and never under 0 but by rounding."""
    student, teacher = torch.tensor(log_s, requires_grad=True), torch.tensor(log_t)
    loss = word_kd_loss(student, teacher)
    loss.backward()
    exact = [torch.tensor(x, dtype=torch.float64).clamp_max(-TINY) for x in (log_s, log_t)]
    (p_s, p_t), (r_s, r_t) = [x.exp() for x in exact], [-torch.expm1(x) for x in exact]
    expected = r_t * (r_t.log() - r_s.log())
    if p_t > 0:
        expected = expected + p_t * (exact[1] - exact[0])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-7)
    assert loss > -1e-7
    assert student.grad.item() == pytest.approx(((p_s - p_t) / r_s).item(), rel=1e-5, abs=1e-6)


def test_an_impossible_word_costs_infinity_only_if_the_teacher_believes_in_it():
    student = torch.tensor([-math.inf, -math.inf], requires_grad=True)
    losses = [word_kd_loss(student[n : n + 1], torch.tensor([x])) for n, x in enumerate((-1.0, -math.inf))]
    assert [loss.item() for loss in losses] == [math.inf, 0.0]
    sum(losses).backward()
    assert student.grad.tolist() == pytest.approx([-math.exp(-1), 0.0])


def test_the_gradient_of_logits_stays_small_where_the_student_is_sure():
    """1 / (1 - P) is 2^24 there, and the softmax takes it away again."""
    for best in (10.0, 17.0, 30.0, 90.0):
        logits = torch.tensor([[best, 0.0, -1.0]], requires_grad=True)
        word_kd_loss(logits.log_softmax(1)[:, :1], torch.tensor([[-0.5]])).backward()
        assert logits.grad.abs().max() < 2


def test_neither_padding_nor_the_cut_of_the_batch_matters():
    lprobs, words = logs(3, 5).float(), torch.tensor([[0, 0, 1, 2, 3], [0, 1, 1, 1, -1], [0, 1, 2, -1, -1]])
    goal = logs(3, 4, seed=1).float().masked_fill(torch.tensor([[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]]).bool(), 0)
    whole = word_kd_loss(word_log_probs(lprobs, words, 4), goal)
    rows = [word_kd_loss(word_log_probs(lprobs[[n]], words[[n]], 4), goal[[n]]) for n in range(3)]
    assert sum(rows).item() == pytest.approx(whole.item(), rel=1e-6)
    short = word_kd_loss(word_log_probs(lprobs[1:2, :4], words[1:2, :4], 2), goal[1:2, :2])
    assert short.item() == pytest.approx(rows[1].item(), rel=1e-6)
    nothing = word_kd_loss(torch.zeros(2, 3), torch.zeros(2, 3))
    assert nothing.item() == 0
    assert word_log_probs(torch.zeros(0, 0), torch.zeros(0, 0, dtype=torch.int64), 0).shape == (0, 0)


def test_log1mexp():
    x = torch.tensor([-1e-30, -1e-10, -0.1, -0.69, -0.70, -5.0, -40.0, -800.0], dtype=torch.float64, requires_grad=True)
    expected = [math.log(1e-30), math.log(1e-10), *(math.log1p(-math.exp(v)) for v in (-0.1, -0.69, -0.7, -5, -40)), 0]
    found = log1mexp(x)
    assert found.tolist() == pytest.approx(expected, rel=1e-9)
    found.sum().backward()
    assert x.grad.isfinite().all()
    middle = torch.tensor([-3.0, -0.75, -0.6, -0.01], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(log1mexp, middle)


def test_wrong_input_is_refused():
    words = torch.tensor([[0, 1]])
    for arguments, message in [
        ((torch.zeros(1, 2).half(), words, 2), "lprobs must be float32 or float64, got torch.float16"),
        ((torch.zeros(1, 3), words, 2), "words must be int64 .B, T. as lprobs"),
        ((torch.zeros(1, 2), words, 1), "words must be from -1 to 0, got 1"),
        ((torch.zeros(1, 2), words - 2, 1), "words must be from -1 to 0, got -2"),
    ]:
        with pytest.raises(ValueError, match=message):
            word_log_probs(*arguments)
    with pytest.raises(ValueError, match="teacher must be"):
        word_kd_loss(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="student must be float32"):
        word_kd_loss(torch.zeros(2).bfloat16(), torch.zeros(2).bfloat16())
