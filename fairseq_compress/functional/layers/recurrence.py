r"""Recurrences over the positions of a sequence that need no product of matrices in a step.

Shapes: T positions, B sentences, C width. States are summed in float32, or float64 for float64, under autocast too:
8 or 11 bits of bfloat16 or float16 lose what many small steps add.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def gated_recurrence(forget: Tensor, values: Tensor, start: Tensor | None = None) -> Tensor:
    r"""Every state of a gated sum with one gate for each entry, as in SRU (arXiv:1709.02755) and SSRU (D19-5632):

    .. math:: c_t = f_t \odot c_{t-1} + (1 - f_t) \odot v_t

    with :math:`g_t = d_t + f_{t+1} \odot g_{t+1}` and :math:`\partial f_t = g_t \odot (c_{t-1} - v_t)` for gradients
    d_t of c_t, :math:`\partial v_t = (1 - f_t) \odot g_t` and :math:`\partial c_0 = f_1 \odot g_1`.

    A step is one kernel in either direction. With f_t = 1 the state is bit-equal to the former one.

    Args:
        forget: f (T, B, C), in [0, 1], in float32 or float64: bfloat16 has no number between 0.996 and 1.
        values: v (T, B, C).
        start: c_0 (B, C), the state before the first position; zeros by default.

    Returns:
        c (T, B, C), float32 or float64, differentiable once.
    """
    if values.dim() != 3 or forget.shape != values.shape or not len(values):
        raise ValueError(
            f"forget and values must be (T, B, C) with T > 0, got {tuple(forget.shape)} and {tuple(values.shape)}"
        )
    if start is not None and start.shape != values.shape[1:]:
        raise ValueError(f"start must be (B, C) = {tuple(values.shape[1:])}, got {tuple(start.shape)}")
    dtype = _sum_type(forget, values)
    if start is None:
        start = values.new_zeros(values.shape[1:], dtype=dtype)
    # In decoding, building an unused autograd graph would take half of the time of a step.
    compute = _GatedRecurrence.apply if torch.is_grad_enabled() else _states
    return compute(forget.to(dtype), values.to(dtype), start.to(dtype))


def running_sums(
    x: Tensor, padding: Tensor | None = None, start: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    r"""Sums :math:`\sum_{k \le t} x_k` (T, B, C) and the numbers of their terms (T, B, 1), in float32 or float64.

    Args:
        x: (T, B, C).
        padding: (B, T), true at positions that are not terms.
        start: initial sum (B, C) and number (B, 1); zeros by default.
    """
    if x.dim() != 3:
        raise ValueError(f"x must be (T, B, C), got {tuple(x.shape)}")
    length, batch, width = x.shape
    x = x.to(_sum_type(x))
    terms = x.new_ones(length, batch, 1)
    if padding is not None:
        if padding.shape != (batch, length):
            raise ValueError(f"padding must be (B, T) = {(batch, length)}, got {tuple(padding.shape)}")
        padded = padding.bool().t().unsqueeze(-1)
        x, terms = x.masked_fill(padded, 0.0), terms.masked_fill(padded, 0.0)
    sums, counts = x.cumsum(0), terms.cumsum(0)
    if start is None:
        return sums, counts
    if start[0].shape != (batch, width) or start[1].shape != (batch, 1):
        shapes = tuple(start[0].shape), tuple(start[1].shape)
        raise ValueError(f"start must be (B, C) = {(batch, width)} and (B, 1), got {shapes[0]} and {shapes[1]}")
    return sums + start[0], counts + start[1]


def _sum_type(*tensors: Tensor) -> torch.dtype:
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def _states(forget: Tensor, values: Tensor, start: Tensor) -> Tensor:
    states = torch.empty_like(values, memory_format=torch.contiguous_format)
    state = start
    for gate, value, out in zip(forget.unbind(), values.unbind(), states.unbind(), strict=True):
        state = torch.lerp(value, state, gate, out=out)
    return states


class _GatedRecurrence(torch.autograd.Function):
    """Without it autograd would keep three tensors a step and run about ten kernels for it in the backward pass."""

    @staticmethod
    def forward(ctx: Any, forget: Tensor, values: Tensor, start: Tensor) -> Tensor:
        states = _states(forget, values, start)
        ctx.save_for_backward(forget, values, start, states)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        forget, values, start, states = ctx.saved_tensors
        total = torch.empty_like(states)  # g
        total[-1] = gradients[0][-1]
        steps = zip(gradients[0].unbind()[-2::-1], forget.unbind()[:0:-1], total.unbind()[-2::-1], strict=True)
        later = total[-1]
        for direct, gate, out in steps:
            later = torch.addcmul(direct, gate, later, out=out)
        for_forget = for_values = for_start = None
        if ctx.needs_input_grad[0]:
            for_forget = torch.empty_like(total)
            torch.sub(start, values[0], out=for_forget[0])
            torch.sub(states[:-1], values[1:], out=for_forget[1:])
            for_forget.mul_(total)
        if ctx.needs_input_grad[1]:
            for_values = (1 - forget).mul_(total)
        if ctx.needs_input_grad[2]:
            for_start = forget[0] * total[0]
        return for_forget, for_values, for_start
