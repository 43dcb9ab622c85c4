"""Blocks of rows for :mod:`fairseq_compress.functional.losses.chunks`: their inputs and where their gradients go."""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from fairseq_compress.functional.losses.outputs import Output, Projected, Teachers, TopK

Gradients: TypeAlias = tuple[Tensor | None, Tensor | None, Tensor | None]


def select(tensor: Tensor, kept: Tensor | None) -> Tensor:
    """The rows ``kept``, or all where that is None."""
    return tensor if kept is None else tensor.index_select(0, kept)


class LogitRows:
    """The logits of any block of the rows ``kept``, multiplied out where they do not exist yet."""

    def __init__(self, output: Output, kept: Tensor | None) -> None:
        self.kept, self.logits = kept, None if isinstance(output, Projected) else output
        if isinstance(output, Projected):
            dtype = output.hidden.dtype
            self.hidden = select(output.hidden, kept).contiguous()
            self.weight = output.weight.to(dtype)  # under autocast the weight has another type than the hidden states
            self.bias = None if output.bias is None else output.bias.to(dtype)
            self.buffer = output.hidden.new_empty(0)

    def block(self, rows: slice) -> Tensor:
        """(rows, V); a product is overwritten by the next one."""
        if self.logits is not None:
            return self.logits[rows] if self.kept is None else self.logits[self.kept[rows]]
        hidden = self.hidden[rows]
        if self.buffer.size(0) < hidden.size(0):
            self.buffer = hidden.new_empty((hidden.size(0), self.weight.size(0)))
        product = self.buffer[: hidden.size(0)]
        if self.bias is None:
            return torch.mm(hidden, self.weight.t(), out=product)
        return torch.addmm(self.bias, hidden, self.weight.t(), out=product)


class TeacherRows:
    """The rows ``kept`` of live or cached teachers, block by block."""

    def __init__(self, teachers: Teachers, kept: Tensor | None, compute: torch.dtype) -> None:
        self.top_k: TopK | None = None
        self.live: list[LogitRows] = []
        if isinstance(teachers, TopK):
            self.top_k = _normalized(TopK(*(select(tensor, kept) for tensor in teachers)), compute)
        else:
            self.live = [LogitRows(teacher, kept) for teacher in teachers]

    def block(self, rows: slice) -> Sequence[Tensor] | TopK:
        if self.top_k is not None:
            return rows_of(self.top_k, rows)
        return [teacher.block(rows) for teacher in self.live]


def rows_of(
    teachers: Sequence[Tensor] | TopK, rows: slice, dtype: torch.dtype | None = None
) -> Sequence[Tensor] | TopK:
    """Some rows of a block; live logits in ``dtype``."""
    if isinstance(teachers, TopK):
        return TopK(*(tensor[rows] for tensor in teachers))
    return [teacher[rows].to(dtype) for teacher in teachers]


def _normalized(top_k: TopK, compute: torch.dtype) -> TopK:
    """k + 1 probabilities that sum to one; stored in float16, their rounding errors add up."""
    probabilities, rest = top_k.probabilities.to(compute), top_k.rest.to(compute)
    total = probabilities.sum(dim=-1) + rest
    return TopK(top_k.ids.long(), probabilities / total[:, None], rest / total)


class StoredGradient:
    """The gradient of logits: one (N, V) matrix, computed in place."""

    kept = None

    def __init__(self, logits: Tensor, needed: bool) -> None:
        self.source = LogitRows(logits, None)
        # Before loss scaling, float16 gradients underflow.
        stored = torch.float32 if logits.dtype == torch.float16 else logits.dtype
        self.gradient = torch.empty_like(logits, dtype=stored) if needed else None

    def block(self, rows: slice) -> tuple[Tensor, Tensor | None]:
        """The logits of a block, and the output matrix of their gradient."""
        return self.source.block(rows), None if self.gradient is None else self.gradient[rows]

    def fold(self, rows: slice, gradient: Tensor) -> None:
        """Nothing to do: ``gradient`` is in place."""

    def finish(self, padded: Tensor) -> Gradients:
        if self.gradient is not None:
            self.gradient.index_fill_(0, padded.nonzero().squeeze(1), 0.0)
        return self.gradient, None, None


class FoldedGradient:
    """The gradients of hidden states, weight and bias, accumulated from each block of logits.

    Sums over rows are in float32 (float64 for float64). Products are in the hidden states' type, for float16 in
    float32: before loss scaling, float16 gradients underflow.
    """

    def __init__(self, student: Projected, needs: Sequence[bool], kept: Tensor | None, compute: torch.dtype) -> None:
        self.kept = kept
        self.source = LogitRows(student, kept)
        hidden, weight = self.source.hidden, self.source.weight
        product = torch.float32 if hidden.dtype == torch.float16 else hidden.dtype
        self.factors = hidden.to(product), weight.to(product)
        self.shape = student.hidden.shape
        self.of_hidden = torch.empty_like(hidden, dtype=compute) if needs[0] else None
        self.of_weight = torch.zeros_like(weight, dtype=compute) if needs[1] else None
        self.of_bias = weight.new_zeros(weight.size(0), dtype=compute) if needs[2] else None
        self.needed, self.product = any(needs), product

    def block(self, rows: slice) -> tuple[Tensor, Tensor | None]:
        """The logits of a block, and the output matrix of their gradient: the logits, where their type allows."""
        logits = self.source.block(rows)
        if not self.needed:
            return logits, None
        return logits, logits if logits.dtype == self.product else torch.empty_like(logits, dtype=self.product)

    def fold(self, rows: slice, gradient: Tensor) -> None:
        """Add a block's part of all gradients."""
        hidden, weight = self.factors
        if self.of_hidden is not None:
            if self.of_hidden.dtype == self.product:
                torch.mm(gradient, weight, out=self.of_hidden[rows])
            else:
                self.of_hidden[rows] = torch.mm(gradient, weight)
        if self.of_weight is not None:
            if self.of_weight.dtype == self.product:
                self.of_weight.addmm_(gradient.t(), hidden[rows])
            else:
                self.of_weight += torch.mm(gradient.t(), hidden[rows])
        if self.of_bias is not None:
            self.of_bias += gradient.sum(dim=0, dtype=self.of_bias.dtype)

    def finish(self, padded: Tensor) -> Gradients:
        of_hidden = self.of_hidden
        if of_hidden is not None and self.kept is not None:
            of_hidden = of_hidden.new_zeros(self.shape).index_copy_(0, self.kept, of_hidden)
        return of_hidden, self.of_weight, self.of_bias
