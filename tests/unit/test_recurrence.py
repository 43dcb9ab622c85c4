"""Recurrences against loops over positions, against finite differences, and against numbers worked out by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fairseq_compress.functional.layers.recurrence import gated_recurrence, running_sums


def cumulative_mean(x, padding=None):
    sums, counts = running_sums(x, padding)
    return sums / counts.clamp_min(1.0)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loop_recurrence(forget: Tensor, values: Tensor, start: Tensor) -> Tensor:
    states = []
    for gate, value in zip(forget, values, strict=True):
        start = gate * start + (1 - gate) * value
        states.append(start)
    return torch.stack(states)


def loop_mean(x: Tensor, padding: Tensor) -> Tensor:
    """One entry at a time."""
    means = torch.zeros_like(x)
    for b in range(x.size(1)):
        seen: list[Tensor] = []
        for t in range(x.size(0)):
            if not padding[b, t]:
                seen.append(x[t, b])
            if seen:
                means[t, b] = torch.stack(seen).mean(dim=0)
    return means


def test_recurrence_by_hand() -> None:
    forget, values = torch.tensor([0.5, 0.25, 0.0, 1.0]), torch.tensor([4.0, 8.0, -1.0, 5.0])
    states = gated_recurrence(forget.view(4, 1, 1), values.view(4, 1, 1), torch.tensor([[2.0]]))
    assert states.flatten().tolist() == [3.0, 6.75, -1.0, -1.0]
    assert gated_recurrence(forget.view(4, 1, 1), values.view(4, 1, 1)).flatten().tolist() == [2.0, 6.5, -1.0, -1.0]


def test_gradients_by_hand() -> None:
    forget = torch.tensor([0.5, 0.25]).view(2, 1, 1).requires_grad_()
    values = torch.tensor([4.0, 8.0]).view(2, 1, 1).requires_grad_()
    start = torch.tensor([[2.0]], requires_grad=True)
    gated_recurrence(forget, values, start)[-1].backward()  # c_1 = 3; g_2 = 1, g_1 = 0.25
    assert forget.grad.flatten().tolist() == [0.25 * (2 - 4), 3 - 8]
    assert values.grad.flatten().tolist() == [0.5 * 0.25, 0.75]
    assert start.grad.item() == 0.5 * 0.25


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 9), batch=st.integers(1, 3), width=st.integers(1, 4), seed=st.integers(0, 99))
def test_recurrence_and_gradients_equal_those_of_a_loop(length: int, batch: int, width: int, seed: int) -> None:
    forget = draw(length, batch, width, seed=seed).sigmoid().requires_grad_()
    values = draw(length, batch, width, seed=seed + 1).requires_grad_()
    start, weights = draw(batch, width, seed=seed + 2).requires_grad_(), draw(length, batch, width, seed=seed + 3)
    states, expected = gated_recurrence(forget, values, start), loop_recurrence(forget, values, start)
    torch.testing.assert_close(states, expected)
    inputs = (forget, values, start)
    found = torch.autograd.grad((states * weights).sum(), inputs)
    for own, theirs in zip(found, torch.autograd.grad((expected * weights).sum(), inputs), strict=True):
        torch.testing.assert_close(own, theirs)


def test_gradients_equal_finite_differences() -> None:
    forget, values, start = draw(5, 2, 3).sigmoid(), draw(5, 2, 3, seed=1), draw(2, 3, seed=2)
    inputs = [tensor.requires_grad_() for tensor in (forget, values, start)]
    assert torch.autograd.gradcheck(gated_recurrence, inputs)
    assert torch.autograd.gradcheck(gated_recurrence, inputs[:2])
    assert torch.autograd.gradcheck(lambda f: gated_recurrence(f, values.detach()), inputs[:1])


def test_any_memory_layout_is_read() -> None:
    forget, values = draw(3, 5, 4).sigmoid().transpose(0, 1), draw(3, 5, 4, seed=1).transpose(0, 1).requires_grad_()
    states = gated_recurrence(forget, values)
    torch.testing.assert_close(states, gated_recurrence(forget.contiguous(), values.contiguous()))
    states.sum().backward()  # the gradient of a sum is an expanded number
    torch.testing.assert_close(values.grad, torch.autograd.grad(loop_recurrence(
        forget, values, torch.zeros(3, 4, dtype=torch.float64)).sum(), values)[0])  # fmt: skip


def test_a_second_derivative_is_refused() -> None:
    forget, values = draw(3, 1, 2).sigmoid().requires_grad_(), draw(3, 1, 2).requires_grad_()
    (first,) = torch.autograd.grad(gated_recurrence(forget, values).square().sum(), values, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        first.sum().backward()


def test_pieces_of_a_sequence_go_on_from_each_other() -> None:
    forget, values = draw(9, 2, 3).sigmoid(), draw(9, 2, 3, seed=1)
    start, pieces = None, []
    for part in (slice(0, 1), slice(1, 5), slice(5, 9)):
        pieces.append(gated_recurrence(forget[part], values[part], start))
        start = pieces[-1][-1]
    assert torch.equal(torch.cat(pieces), gated_recurrence(forget, values))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_states_of_half_precision_are_summed_in_float32(dtype: torch.dtype) -> None:
    values = torch.ones(2000, 1, 1, dtype=dtype, requires_grad=True)
    forget = torch.full((2000, 1, 1), 0.998, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        states = gated_recurrence(forget, values)
    assert states.dtype == torch.float32
    torch.testing.assert_close(states[-1].item(), 1 - 0.998**2000, rtol=1e-4, atol=0)
    states[-1].sum().backward()
    assert values.grad.dtype == dtype
    assert values.grad[-1].item() == pytest.approx(0.002, rel=1e-2)


def test_float32_is_as_good_as_float64() -> None:
    forget, values = draw(200, 4, 8).sigmoid(), draw(200, 4, 8, seed=1)
    torch.testing.assert_close(
        gated_recurrence(forget.float(), values.float()).double(), gated_recurrence(forget, values), rtol=0, atol=2e-6
    )


@pytest.mark.parametrize(
    ("forget", "values", "start", "message"),
    [
        ((3, 2, 4), (3, 2, 5), None, "forget and values"),
        ((3, 2), (3, 2), None, "forget and values"),
        ((0, 2, 4), (0, 2, 4), None, "T > 0"),
        ((3, 2, 4), (3, 2, 4), (2, 5), r"start must be \(B, C\) = \(2, 4\), got \(2, 5\)"),
    ],
)
def test_wrong_shapes_are_refused(
    forget: tuple[int, ...], values: tuple[int, ...], start: tuple[int, ...] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        gated_recurrence(torch.zeros(forget), torch.zeros(values), None if start is None else torch.zeros(start))


def test_means_by_hand() -> None:
    x = torch.tensor([[2.0, 100.0], [4.0, 6.0], [9.0, 2.0], [100.0, 7.0]]).unsqueeze(-1)
    assert cumulative_mean(x[:, :1]).flatten().tolist() == [2.0, 3.0, 5.0, 28.75]
    padding = torch.tensor([[False, False, False, True], [True, False, False, False]])
    means = cumulative_mean(x, padding).squeeze(-1)
    assert means[:, 0].tolist() == [2.0, 3.0, 5.0, 5.0]
    assert means[:, 1].tolist() == [0.0, 6.0, 4.0, 5.0]


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 8), batch=st.integers(1, 3), width=st.integers(1, 4), seed=st.integers(0, 99))
def test_means_equal_those_of_a_loop(length: int, batch: int, width: int, seed: int) -> None:
    x = draw(length, batch, width, seed=seed)
    padding = torch.rand(batch, length, generator=torch.Generator().manual_seed(seed)) < 0.4
    torch.testing.assert_close(cumulative_mean(x, padding), loop_mean(x, padding))


def test_gradient_of_means() -> None:
    padding = torch.tensor([[False, False, True, False], [True, False, False, True]])
    x = draw(4, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: cumulative_mean(x, padding), [x])
    cumulative_mean(x, padding).sum().backward()
    assert (x.grad[padding.t()] == 0).all()
    assert (x.grad[~padding.t()] != 0).all()


def test_sums_go_on_from_a_start() -> None:
    x, padding = draw(7, 2, 3), torch.rand(2, 7, generator=torch.Generator().manual_seed(1)) < 0.3
    sums, counts = running_sums(x, padding)
    first = running_sums(x[:3], padding[:, :3])
    later = running_sums(x[3:], padding[:, 3:], (first[0][-1], first[1][-1]))
    torch.testing.assert_close(later[0], sums[3:])
    assert torch.equal(later[1], counts[3:])
    assert counts[-1].flatten().tolist() == (~padding).sum(1).tolist()


def test_means_of_half_precision_are_summed_in_float32() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        means = cumulative_mean(torch.ones(1000, 1, 1, dtype=torch.bfloat16))
    assert means.dtype == torch.float32
    assert (means == 1).all()  # bfloat16 counts no further than to 256


def test_wrong_shapes_of_means_are_refused() -> None:
    with pytest.raises(ValueError, match=r"x must be \(T, B, C\)"):
        cumulative_mean(torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"padding must be \(B, T\) = \(2, 3\), got \(3, 2\)"):
        cumulative_mean(torch.zeros(3, 2, 4), torch.zeros(3, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="start must be"):
        running_sums(torch.zeros(3, 2, 4), None, (torch.zeros(2, 4), torch.zeros(2)))
