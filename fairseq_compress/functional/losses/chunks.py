r"""The engine of the fused losses: sums over rows of logits and their gradient, one block of rows after the other.

The gradient ∂loss/∂z is known in closed form: it is computed in the forward pass and only scaled in the backward pass.

* student as logits: the gradient is stored in one (N, V) matrix;
* student as :class:`Projected`, z = h Wᵀ + b: a block's logits are made from the hidden states, and their gradient d
  is folded at once into ∂loss/∂h = d W, ∂loss/∂W += dᵀ h and ∂loss/∂b += Σ d; no (N, V) matrix ever exists, and rows
  of padding are never multiplied.

A *block* is sized for efficient matrix products, a *chunk* of it for elementwise passes in the processor's cache.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from fairseq_compress.functional.losses.blocks import (
    FoldedGradient,
    Gradients,
    StoredGradient,
    TeacherRows,
    rows_of,
    select,
)
from fairseq_compress.functional.losses.outputs import (
    Output,
    Projected,
    Teachers,
    TopK,
    compute_dtype,
    shape_of,
    tensor_of,
)

CHUNK_ELEMENTS_CPU, CHUNK_ELEMENTS_GPU = 2**19, 2**25  # stays in the cache; keeps a GPU busy per kernel launch
BLOCK_CHUNKS_CPU, BLOCK_CHUNKS_GPU = 16, 1  # at 4 bytes an element; of a smaller type a block holds more


class Rows(NamedTuple):
    """One chunk of R rows, as a :class:`RowLoss` sees it."""

    logits: Tensor
    """(R, V) of the student, in the computing type; not to be changed."""
    teachers: Sequence[Tensor] | TopK
    """(R, V) logits of each live teacher in the computing type, or the cached teacher's rows."""
    target: Tensor
    """(R,)"""
    weights: Tensor | None
    """(R,)"""
    gradient: Tensor
    """(R, V), uninitialized: output for the gradient of the loss."""
    scratch: Tensor
    """(RowLoss.scratch, R, V), reused for each chunk: allocation would cost more than the arithmetic."""


class RowLoss(Protocol):
    """A loss that is a sum over rows."""

    @property
    def sums(self) -> int:
        """Number of values of each row."""

    @property
    def scratch(self) -> int:
        """Number of matrices (R, V) in :attr:`Rows.scratch`."""

    def __call__(self, rows: Rows, needs_gradient: bool) -> Sequence[Tensor]:
        """Values (R,) of each row, the loss first. Leaves its gradient in ``rows.gradient`` if that is needed."""


class Job(NamedTuple):
    """All inputs without a gradient."""

    row_loss: RowLoss
    teachers: Teachers
    target: Tensor
    weights: Tensor | None
    padding_idx: int
    chunk_rows: int | None
    """Rows of a chunk; by default as many as fit the cache."""


def sum_rows(job: Job, student: Output) -> tuple[Tensor, ...]:
    """Sums of the values of ``job.row_loss`` over the rows whose target is not padding; the first is differentiable.

    Padding is ignored, even if it is not finite, and its gradient is zero. Backward can run once only.
    """
    graph = torch.is_grad_enabled()  # inside of an autograd function it never is
    tensors = student if isinstance(student, Projected) else (student, None, None)
    return tuple(_SumRows.apply(job, graph, *tensors))


class _SumRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, job: Job, graph: bool, output: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, ...]:
        student = output if weight is None else Projected(output, weight, bias)
        needs = [graph and needed for needed in ctx.needs_input_grad[2:]]
        with torch.autocast(output.device.type, enabled=False):  # the types of all products are chosen here
            sums, ctx.gradients = _run(job, student, needs)
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in (output, weight, bias)]
        # Copies, not views: fairseq multiplies the loss of a batch that does not count by 0, in place.
        values = tuple(value.clone() for value in sums.to(compute_dtype(student)))
        ctx.mark_non_differentiable(*values[1:])
        return values

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("backward of a fused loss can run once only: its gradient is scaled in place")
        factor = grad_outputs[0]
        is_one = factor.device.type == "cpu" and factor.item() == 1  # a GPU would have to be waited for
        for gradient in gradients:
            if gradient is not None and not is_one:
                gradient.mul_(factor)
        pairs = zip(gradients, ctx.dtypes, strict=True)
        return None, None, *(None if gradient is None else gradient.to(dtype) for gradient, dtype in pairs)


def _run(job: Job, student: Output, needs: Sequence[bool]) -> tuple[Tensor, Gradients]:
    """All blocks: the sums in float64, and the gradients of logits (or hidden states), weight and bias."""
    compute, vocabulary = compute_dtype(student), shape_of(student)[1]
    padded = job.target.eq(job.padding_idx)
    sink: StoredGradient | FoldedGradient
    if isinstance(student, Projected):
        kept = padded.logical_not().nonzero().squeeze(1)
        sink = FoldedGradient(student, needs, None if len(kept) == len(padded) else kept, compute)
    else:
        sink = StoredGradient(student, needs[0])
    chunk_rows, block_rows = _slice_sizes(job, vocabulary, tensor_of(student).element_size())
    scratch = torch.empty((job.row_loss.scratch + 1, chunk_rows, vocabulary), dtype=compute, device=padded.device)
    teachers = TeacherRows(job.teachers, sink.kept, compute)
    target, weights = select(job.target, sink.kept), None if job.weights is None else select(job.weights, sink.kept)
    values = torch.empty((job.row_loss.sums, len(target)), dtype=compute, device=padded.device)
    for rows in _slices(len(target), block_rows):
        logits, gradient = sink.block(rows)
        block = _Block(logits, teachers.block(rows), target[rows], None if weights is None else weights[rows], gradient)
        _fill(block, job.row_loss, scratch, values[:, rows])
        if gradient is not None:
            sink.fold(rows, gradient)
    if sink.kept is None:
        values.masked_fill_(padded, 0.0)
    return values.sum(dim=1, dtype=torch.float64), sink.finish(padded)


class _Block(NamedTuple):
    logits: Tensor
    teachers: Sequence[Tensor] | TopK
    target: Tensor
    weights: Tensor | None
    gradient: Tensor | None


def _fill(block: _Block, row_loss: RowLoss, scratch: Tensor, values: Tensor) -> None:
    """The values (sums, rows) and the gradient of a block, chunk by chunk."""
    chunk_rows, gradient = scratch.size(1), block.gradient
    # Made where it will stay, if that is not where the logits are.
    in_place = gradient is not None and gradient.dtype == scratch.dtype and gradient is not block.logits
    for chunk in _slices(len(block.target), chunk_rows):
        size = len(block.target[chunk])
        place = gradient[chunk] if gradient is not None and in_place else scratch[0, :size]
        teachers = rows_of(block.teachers, chunk, scratch.dtype)
        weights = None if block.weights is None else block.weights[chunk]
        logits = block.logits[chunk].to(scratch.dtype)
        rows = Rows(logits, teachers, block.target[chunk], weights, place, scratch[1:, :size])
        values[:, chunk] = torch.stack(tuple(row_loss(rows, gradient is not None)))
        if gradient is not None and not in_place:
            gradient[chunk] = place


def _slice_sizes(job: Job, vocabulary: int, element_size: int) -> tuple[int, int]:
    """Rows of a chunk and of a block."""
    on_cpu = job.target.device.type == "cpu"
    elements = CHUNK_ELEMENTS_CPU if on_cpu else CHUNK_ELEMENTS_GPU
    chunk_rows = job.chunk_rows or elements // max(1, vocabulary)
    chunk_rows = max(1, min(chunk_rows, len(job.target)))
    block_chunks = (BLOCK_CHUNKS_CPU if on_cpu else BLOCK_CHUNKS_GPU) * 4 // element_size
    return chunk_rows, chunk_rows * max(1, block_chunks)


def _slices(total: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, total)) for start in range(0, total, size))
