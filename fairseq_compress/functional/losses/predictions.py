"""Predictions of each token, computed in blocks of rows, and selective distillation (arXiv:2105.12967)."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_compress.functional.losses.blocks import LogitRows
from fairseq_compress.functional.losses.outputs import Output, compute_dtype, shape_of, tensor_of

_BLOCK_ELEMENTS = 2**22


def token_nll(output: Output, target: Tensor, block_rows: int | None = None) -> Tensor:
    """-log p(y) in nats, (N,), of the targets (N,)."""
    found = [
        torch.logsumexp(logits, dim=-1) - logits.gather(1, target[rows, None]).squeeze(1)
        for rows, logits in _blocks(output, block_rows)
    ]
    return torch.cat(found) if found else tensor_of(output).new_zeros(0)


def best_entries(output: Output, block_rows: int | None = None) -> Tensor:
    """argmax, (N,), int64."""
    found = [logits.argmax(dim=-1) for _, logits in _blocks(output, block_rows)]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.long, device=tensor_of(output).device)


@torch.no_grad()
def _blocks(output: Output, block_rows: int | None) -> Iterator[tuple[slice, Tensor]]:
    """Rows and their logits in the computing type."""
    total, vocabulary = shape_of(output)
    size = block_rows or max(1, _BLOCK_ELEMENTS // max(1, vocabulary))
    source, dtype = LogitRows(output, None), compute_dtype(output)
    with torch.autocast(tensor_of(output).device.type, enabled=False):
        for start in range(0, total, size):
            rows = slice(start, min(start + size, total))
            yield rows, source.block(rows).detach().to(dtype)


def reference_lprobs(logits: Tensor, target: Tensor) -> Tensor:
    """log p (B, T) of the reference tokens (B, T) in float32, with its gradient, from logits (B · T, V)."""
    return -F.cross_entropy(logits.float(), target.reshape(-1), reduction="none").view_as(target)


def hardest(nll: Tensor, kept: Tensor, rate: float, among: Tensor | None = None) -> Tensor:
    """Tokens (N,), bool, whose -log p(y) is at least the ⌈rate · n⌉-th largest of n values, ties included.

    Args:
        nll: (N,), of the student.
        kept: (N,), bool, the tokens that are not padding.
        rate: in (0, 1].
        among: (n,), the ranked values; by default those of ``kept``. Without any, all of ``kept`` are selected.
    """
    among = nll[kept] if among is None else among
    if not len(among):
        return kept.clone()
    threshold = among.topk(math.ceil(len(among) * rate)).values[-1]
    return kept & (nll >= threshold.to(nll.device))


def pushed(queue: Tensor, values: Tensor, size: int) -> Tensor:
    """A queue, first in first out, of the last ``size`` values."""
    return torch.cat([queue, values.detach().to(queue)])[-size:]
