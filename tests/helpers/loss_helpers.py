"""What the tests of the fused losses share."""

import torch
from torch import Tensor

from fairseq_compress.functional.losses.outputs import TopK

PADDING = 1


def logits(rows: int, vocabulary: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return (3 * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed))).to(dtype)


def targets(rows: int, vocabulary: int, padded: int = 3) -> Tensor:
    target = torch.randint(4, vocabulary, (rows,), generator=torch.Generator().manual_seed(9))
    target[torch.randperm(rows, generator=torch.Generator().manual_seed(3))[:padded]] = PADDING
    return target


def top_k_of(teachers: list[Tensor], k: int, temperature: float, dtype: torch.dtype | None = None) -> TopK:
    """What a cache stores of these teachers' logits."""
    q = torch.stack([torch.softmax(teacher / temperature, dim=-1) for teacher in teachers]).mean(dim=0)
    probabilities, ids = q.topk(k, dim=-1)
    rest = q.scatter(1, ids, 0.0).sum(dim=-1)
    return TopK(ids, probabilities.to(dtype or q.dtype), rest.to(dtype or q.dtype))


class Recomputed(torch.autograd.Function):
    """A loss that is computed anew for each backward pass: ``gradcheck`` runs several, a fused loss allows one."""

    @staticmethod
    def forward(ctx, function, *inputs):
        ctx.function = function
        ctx.save_for_backward(*inputs)
        return function(*inputs).detach()

    @staticmethod
    def backward(ctx, grad_output):
        with torch.enable_grad():
            inputs = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors]
            return None, *torch.autograd.grad(ctx.function(*inputs), inputs, grad_output)


def gradcheck(function, *inputs: Tensor) -> bool:
    """``torch.autograd.gradcheck`` of a scalar loss at float64 inputs."""
    inputs = tuple(tensor.detach().clone().requires_grad_() for tensor in inputs)
    return torch.autograd.gradcheck(lambda *x: Recomputed.apply(function, *x), inputs, atol=1e-7, rtol=1e-5)
