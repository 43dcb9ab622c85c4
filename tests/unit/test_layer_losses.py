"""Losses of hidden states and attention maps: slow loops in float64, numbers worked out by hand, padding, cuts."""

import math

import pytest
import torch

from fairseq_compress.functional.losses.attention_maps import (
    aligned_divergence,
    forbidden_keys,
    group_heads,
    log_maps,
    map_divergence,
    maps_of,
)
from fairseq_compress.functional.losses.layer_losses import (
    cosine_loss,
    feature_loss,
    mean_loss,
    unpadded,
    variance_loss,
)

LOSSES = [cosine_loss, feature_loss, mean_loss, variance_loss]


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def moments(row):
    mean = sum(row) / len(row)
    return mean, sum((x - mean) ** 2 for x in row) / len(row)


def slow_loop(loss, student, teacher):
    """The definitions, one position and one entry at a time."""
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        (mean_s, var_s), (mean_t, var_t) = moments(s), moments(t)
        if loss is cosine_loss:
            lengths = math.sqrt(sum(x * x for x in s)) * math.sqrt(sum(x * x for x in t))
            total += 1 - sum(a * b for a, b in zip(s, t, strict=True)) / lengths
        elif loss is feature_loss:
            pairs = zip(s, t, strict=True)
            normal = [(a - mean_s) / math.sqrt(var_s + 1e-5) - (b - mean_t) / math.sqrt(var_t + 1e-5) for a, b in pairs]
            total += sum(x * x for x in normal) / len(s)
        elif loss is mean_loss:
            total += (mean_s - mean_t) ** 2
        else:
            total += abs(var_s - var_t)
    return total


@pytest.mark.parametrize("loss", LOSSES)
def test_equals_the_slow_loop(loss):
    student, teacher = draw(7, 5), 2 * draw(7, 5, seed=1) + 1
    assert loss(student, teacher).item() == pytest.approx(slow_loop(loss, student, teacher), rel=1e-12)


@pytest.mark.parametrize(
    ("loss", "want"),
    [(cosine_loss, 1 - 4 / 5), (feature_loss, 0.0), (mean_loss, 1.0), (variance_loss, 15.0)],
)
def test_worked_out_by_hand(loss, want):
    """(1, 3) and (-1, 7) are both (-1, 1) after a layer norm; the cosine of (3, 4) and (0, 7) is 28 / (5 · 7)."""
    if loss is cosine_loss:
        student, teacher = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 7.0]])
    else:
        student, teacher = torch.tensor([[1.0, 3.0]]), torch.tensor([[-1.0, 7.0]])  # means 2, 3; variances 1, 16
    assert loss(student, teacher).item() == pytest.approx(want, abs=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradcheck_and_nothing_between_equals(loss):
    student, teacher = draw(4, 6).requires_grad_(), draw(4, 6, seed=1)
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), student)
    assert loss(teacher, teacher).item() == pytest.approx(0, abs=1e-12)
    assert teacher.grad is None


@pytest.mark.parametrize("loss", LOSSES)
def test_low_precision_is_computed_in_float32(loss):
    student, teacher = (draw(9, 8, seed=seed, dtype=torch.bfloat16) for seed in (0, 1))
    student.requires_grad_()
    low = loss(student, teacher)
    low.backward()
    assert low.dtype == torch.float32
    assert student.grad.dtype == torch.bfloat16
    torch.testing.assert_close(low.double(), loss(student.double(), teacher.double()), rtol=1e-5, atol=1e-5)


def test_padding_and_cuts_count_for_nothing():
    """(T, B, C) with padding full of NaN, in one batch or in two."""
    hidden, other = draw(5, 3, 4), draw(5, 3, 4, seed=1)
    padding = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1], [1, 0, 0, 0, 0]], dtype=torch.bool)
    hidden.transpose(0, 1)[padding] = float("nan")
    hidden.requires_grad_()
    whole = feature_loss(unpadded(hidden, padding), unpadded(other, padding))
    cuts = [
        feature_loss(unpadded(hidden[:, rows], padding[rows]), unpadded(other[:, rows], padding[rows]))
        for rows in (slice(1), slice(1, None))
    ]
    torch.testing.assert_close(sum(cuts), whole)
    whole.backward()
    assert hidden.grad.transpose(0, 1)[padding].eq(0).all()
    assert unpadded(hidden, padding).shape == (12, 4)


@pytest.mark.parametrize("loss", LOSSES)
def test_shapes_must_fit(loss):
    with pytest.raises(ValueError, match=r"teacher must be \(N, C\) as the student, got \(3, 5\)"):
        loss(draw(3, 4), draw(3, 5))
    with pytest.raises(ValueError, match=r"padding must be \(B, T\)"):
        unpadded(draw(5, 3, 4), torch.zeros(5, 3, dtype=torch.bool))


def slow_maps(query, key, heads, forbidden):
    """softmax(q kᵀ / √D) over the allowed keys, one query at a time; nothing where there is no such key."""
    width = query.size(2) // heads
    maps = torch.zeros(query.size(1), heads, query.size(0), key.size(0), dtype=torch.float64)
    forbidden = forbidden.expand(maps.shape)
    for b, h, t in torch.cartesian_prod(*(torch.arange(n) for n in maps.shape[:3])).tolist():
        part = slice(h * width, (h + 1) * width)
        scores = {
            s: math.exp(float(query[t, b, part] @ key[s, b, part]) / math.sqrt(width))
            for s in range(key.size(0))
            if not forbidden[b, h, t, s]
        }
        for s, score in scores.items():
            maps[b, h, t, s] = score / sum(scores.values())
    return maps


PADDING = torch.tensor([[0, 0, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0]], dtype=torch.bool)


@pytest.mark.parametrize("causal", [False, True])
def test_maps_equal_the_slow_loop(causal):
    """With left padding and a causal mask the first queries may see nothing at all."""
    query, key = draw(4, 3, 6), draw(4, 3, 6, seed=1)
    forbidden = forbidden_keys(PADDING, causal)
    got = maps_of(log_maps(query, key, 2, forbidden), forbidden)
    torch.testing.assert_close(got, slow_maps(query, key, 2, forbidden), rtol=1e-10, atol=1e-12)
    assert got[forbidden.expand_as(got)].eq(0).all()


def test_divergence_equals_the_slow_loop():
    queries_and_keys = [draw(4, 3, 6, seed=seed) for seed in range(4)]
    forbidden = forbidden_keys(PADDING, causal=True)
    got = map_divergence(
        log_maps(*queries_and_keys[:2], 3, forbidden), log_maps(*queries_and_keys[2:], 3, forbidden), PADDING
    )
    teacher, student = (slow_maps(*queries_and_keys[i : i + 2], 3, forbidden) for i in (0, 2))
    want = 0.0
    for b, h, t, s in torch.cartesian_prod(*(torch.arange(n) for n in teacher.shape)).tolist():
        p, q = float(teacher[b, h, t, s]), float(student[b, h, t, s])
        if p > 0 and not PADDING[b, t]:
            want += p * math.log(p / q) / 3
    assert got.item() == pytest.approx(want, rel=1e-10)


def test_divergence_worked_out_by_hand():
    """One query, two keys: the teacher's map (3/4, 1/4), the student's (1/2, 1/2), and a third key that is padding."""
    forbidden = forbidden_keys(torch.tensor([[False, False, True]]))
    key = torch.tensor([1.0, 0.0, 9.0])[:, None, None]
    teacher, student = (log_maps(torch.tensor([[[q]]]), key, 1, forbidden) for q in (math.log(3), 0.0))
    torch.testing.assert_close(maps_of(teacher, forbidden), torch.tensor([[[[0.75, 0.25, 0.0]]]]))
    got = map_divergence(teacher, student, torch.tensor([[False]]))
    assert got.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-6)


def test_maps_gradcheck_with_queries_that_see_nothing():
    forbidden = forbidden_keys(PADDING, causal=True)
    teacher = log_maps(draw(4, 3, 4), draw(4, 3, 4, seed=1), 2, forbidden)

    def loss(query, key):
        own = log_maps(query, key, 2, forbidden)
        plain = map_divergence(teacher, own, PADDING)
        return plain + map_divergence(group_heads(teacher, 1), group_heads(own, 1), PADDING)

    inputs = [x.requires_grad_() for x in (draw(4, 3, 4, seed=2), draw(4, 3, 4, seed=3))]
    assert torch.autograd.gradcheck(loss, inputs)


def aligned_case(causal, teacher_heads=3, student_heads=2):
    """Maps of teacher and student, the convolution's weight and bias, and which entries count."""
    forbidden = forbidden_keys(PADDING, causal)
    teacher, student = (
        maps_of(log_maps(draw(4, 3, 6, seed=seed), draw(4, 3, 6, seed=seed + 1), heads, forbidden), forbidden)
        for seed, heads in ((0, teacher_heads), (2, student_heads))
    )
    counted = ~PADDING[:, :, None] & ~PADDING[:, None, :]
    return teacher, student, draw(teacher_heads, student_heads, seed=4), draw(teacher_heads, seed=5), counted


def align(student, weight, bias):
    return torch.nn.functional.conv2d(student, weight[:, :, None, None], bias)


@pytest.mark.parametrize("causal", [False, True])
def test_aligned_divergence_equals_the_slow_loop(causal):
    """A softmax over all entries of a map, later keys of a decoder included, padded queries and keys excluded."""
    teacher, student, weight, bias, counted = aligned_case(causal)
    want = 0.0
    for b, o in torch.cartesian_prod(torch.arange(3), torch.arange(3)).tolist():
        entries = [(t, s) for t in range(4) for s in range(4) if not PADDING[b, t] and not PADDING[b, s]]
        theirs = {(t, s): math.exp(float(teacher[b, o, t, s])) for t, s in entries}
        own = {
            (t, s): math.exp(sum(float(weight[o, h] * student[b, h, t, s]) for h in range(2)) + float(bias[o]))
            for t, s in entries
        }
        for entry in entries:
            p, q = theirs[entry] / sum(theirs.values()), own[entry] / sum(own.values())
            want += p * math.log(p / q)
    assert want > 0
    assert aligned_divergence(teacher, align(student, weight, bias), counted).item() == pytest.approx(want, rel=1e-10)


def test_a_sentence_alone_has_the_published_loss():
    """The sum, of which the official code takes one over a batch without padding."""
    teacher, student, weight, bias, counted = aligned_case(causal=True)
    want = 0.0
    for b, rows in enumerate((slice(4), slice(2), slice(2, 4))):
        published = torch.nn.functional.kl_div(
            *(maps[b, :, rows, rows].flatten(1).log_softmax(-1) for maps in (align(student, weight, bias), teacher)),
            reduction="sum", log_target=True,
        )  # fmt: skip
        want += published.item()
        alone = aligned_divergence(*(x[b : b + 1] for x in (teacher, align(student, weight, bias), counted)))
        assert alone.item() == pytest.approx(published.item(), rel=1e-10)
    assert aligned_divergence(teacher, align(student, weight, bias), counted).item() == pytest.approx(want, rel=1e-10)


def test_aligned_divergence_worked_out_by_hand():
    """One query, two keys and padding: the teacher's probabilities (3/4, 1/4) are taken as scores, as the student's."""
    teacher = torch.tensor([[[[0.75, 0.25, 0.0]]]], dtype=torch.float64)
    student = torch.tensor([[[[0.5, 0.5, 0.0]]]], dtype=torch.float64)
    counted = torch.tensor([[[True, True, False]]])
    p = math.exp(0.75) / (math.exp(0.75) + math.exp(0.25))
    want = p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))
    for weight, bias in ((1.0, 0.0), (-3.0, 0.5)):  # a map that is even stays so
        aligned = align(student, torch.tensor([[weight]]).double(), torch.tensor([bias]).double())
        assert aligned_divergence(teacher, aligned, counted).item() == pytest.approx(want, rel=1e-12)
    with pytest.raises(ValueError, match=r"counted \(B, T, S\), got .* and \(1, 3, 1\)"):
        aligned_divergence(teacher, student, counted.transpose(1, 2))


def test_aligned_divergence_gradcheck():
    """From queries and keys through the convolution, whose bias has no gradient; nothing comes from padding."""
    teacher, _, weight, bias, counted = aligned_case(causal=True)
    forbidden = forbidden_keys(PADDING, causal=True)

    def loss(query, key, weight, bias):
        own = maps_of(log_maps(query, key, 2, forbidden), forbidden)
        return aligned_divergence(teacher, align(own, weight, bias), counted)

    inputs = [x.requires_grad_() for x in (draw(4, 3, 4, seed=2), draw(4, 3, 4, seed=3), weight, bias)]
    assert torch.autograd.gradcheck(loss, inputs)
    gradients = torch.autograd.grad(loss(*inputs), inputs)
    assert all(gradient.abs().max() > 1e-3 for gradient in gradients[:3])
    assert gradients[3].abs().max() < 1e-12
    assert gradients[0].transpose(0, 1)[PADDING].eq(0).all()


def test_groups_are_means_of_neighbouring_heads():
    forbidden = forbidden_keys(PADDING)
    logarithms = log_maps(draw(4, 3, 12), draw(4, 3, 12, seed=1), 6, forbidden)
    got = maps_of(group_heads(logarithms, 2), forbidden)
    torch.testing.assert_close(got, maps_of(logarithms, forbidden).unflatten(1, (2, 3)).mean(2))
    assert group_heads(logarithms, 6) is logarithms
    with pytest.raises(ValueError, match="heads must divide the 6 heads of the maps, got 4"):
        group_heads(logarithms, 4)


def test_maps_do_not_depend_on_padding_or_cuts():
    query, key = draw(4, 3, 6), draw(4, 3, 6, seed=1)
    other = draw(4, 3, 6, seed=2)

    def loss(rows, length=4):
        padding = PADDING[rows, :length]
        forbidden = forbidden_keys(padding, causal=True)
        maps = [log_maps(q[:length, rows], key[:length, rows], 2, forbidden) for q in (query, other)]
        return map_divergence(*maps, padding)

    whole = loss(slice(None))
    torch.testing.assert_close(loss(slice(1)) + loss(slice(1, None)), whole)
    torch.testing.assert_close(loss(slice(1)) + loss(slice(1, 2), length=2) + loss(slice(2, None)), whole)


def test_bfloat16_and_large_scores_stay_finite():
    forbidden = forbidden_keys(PADDING)
    query, key = (100 * draw(4, 3, 6, seed=seed) for seed in (0, 1))
    query = query.bfloat16().requires_grad_()
    student = log_maps(query, key.bfloat16(), 2, forbidden)
    loss = map_divergence(log_maps(key, query.detach().double(), 2, forbidden).float(), student, PADDING)
    loss.backward()
    assert student.dtype == torch.float32
    assert math.isfinite(loss.item())
    assert query.grad.isfinite().all()
