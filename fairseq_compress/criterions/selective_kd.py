"""Selection of the tokens for distillation."""

from typing import Any

import torch
import torch.distributed as dist
from fairseq.distributed import utils as distributed_utils
from torch import Tensor

from fairseq_compress.functional.losses.outputs import Output
from fairseq_compress.functional.losses.predictions import hardest, pushed, token_nll

QUEUE = "selective_kd_queue"


class TokenSelection:
    """Weights of 0 and 1 for the distillation term of each token (arXiv:2105.12967).

    ``batch``: the half (``rate``) of a batch's tokens that the student finds hardest, by -log p(y). ``queue``: those
    at least as hard as the hardest half of the last ``size`` tokens that were trained on. The queue is part of the
    task's state, so it is in every checkpoint, and holds the tokens of all processes in the order of their ranks.
    """

    def __init__(self, kind: str, rate: float, size: int, task: Any) -> None:
        self.kind, self.rate, self.size, self.task = kind, rate, size, task
        if kind == "queue":
            task.state.add_factory(QUEUE, lambda: torch.zeros(0))

    def __call__(self, student: Output, target: Tensor, padding_idx: int, training: bool) -> Tensor | None:
        """Weights (N,) for targets (N,), or None where all tokens count, as in every evaluation."""
        if self.kind == "none" or not training:
            return None
        nll, kept = token_nll(student, target), target.ne(padding_idx)
        if self.kind == "batch":
            return hardest(nll, kept, self.rate).to(nll.dtype)
        own = nll[kept] if self.task.clock.counts else nll[:0]
        queue = pushed(getattr(self.task.state, QUEUE), gathered(own), self.size)
        self.task.state.merge_state_dict({QUEUE: queue})
        return hardest(nll, kept, self.rate, queue).to(nll.dtype)


def gathered(values: Tensor) -> Tensor:
    """(N,) of every process of the data-parallel group, one after the other, of any lengths."""
    if not dist.is_initialized() or distributed_utils.get_data_parallel_world_size() == 1:
        return values
    parts: list[Any] = [None] * distributed_utils.get_data_parallel_world_size()
    dist.all_gather_object(parts, values.cpu(), group=distributed_utils.get_data_parallel_group())
    return torch.cat(parts).to(values.device)
