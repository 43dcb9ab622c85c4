"""Learned maps between a student and a teacher of another shape, discarded after training."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_compress.functional.losses.layer_losses import compute_type


class LayerMaps(nn.Module):
    """Linear maps from the student's widths to the teacher's, and 1x1 convolutions from its heads to the teacher's.

    A linear map h W has no bias and exists only where widths differ. A convolution aligns the maps of all heads of all
    layers of one kind of attention, Ã_o = Σ_h W_oh A_h + b_o (align-to-distill, arXiv:2403.01479). It is a child of the
    criterion, with which fairseq trains, saves and resumes it.

    Args:
        widths: name -> (width of the student, width of the teacher).
        heads: name -> (heads of all layers of the student, of all layers of the teacher).
    """

    def __init__(
        self, widths: Mapping[str, tuple[int, int]], heads: Mapping[str, tuple[int, int]] | None = None
    ) -> None:
        super().__init__()
        self.linear = nn.ParameterDict(
            {
                name: nn.init.xavier_uniform_(nn.Parameter(torch.empty(teacher, student)))
                for name, (student, teacher) in widths.items()
                if student != teacher
            }
        )
        self.heads = nn.ModuleDict(
            {name: nn.Conv2d(student, teacher, kernel_size=1) for name, (student, teacher) in (heads or {}).items()}
        )

    def forward(self, name: str, hidden: Tensor) -> Tensor:
        """Hidden states (N, C) at the teacher's width, in float32 (float64 for float64)."""
        hidden = hidden.to(compute_type(hidden))
        return F.linear(hidden, self.linear[name].to(hidden.dtype)) if name in self.linear else hidden

    def aligned(self, name: str, maps: Sequence[Tensor]) -> Tensor:
        """Ã (B, O, T, S), one for each head of the teacher, from the maps A (B, H, T, S) of the student's layers."""
        stacked = torch.cat(tuple(maps), dim=1)
        convolution: Any = self.heads[name]
        return F.conv2d(stacked, convolution.weight.to(stacked.dtype), convolution.bias.to(stacked.dtype))

    def nothing(self) -> Tensor | float:
        """Zero, with a zero gradient to every parameter: DDP waits for a gradient of each."""
        return sum((parameter.sum() * 0.0 for parameter in self.parameters()), start=0.0)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}: {w.size(1)} -> {w.size(0)}" for name, w in self.linear.items())
