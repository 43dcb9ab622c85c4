"""What a student needs to be compared with a teacher of another shape, learned with it and thrown away after."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_compress.functional.attention_maps import mix_heads
from fairseq_compress.functional.layer_losses import compute_type
from fairseq_compress.functional.layer_map import even_layers


class Heads(NamedTuple):
    """The heads of one kind of attention, by layer."""

    student: Sequence[int]
    teacher: Sequence[int]


class LayerMaps(nn.Module):
    """Linear maps from the student's widths to the teacher's, and 1x1 convolutions from its heads to the teacher's.

    A linear map h W has no bias and is there only where widths differ. A convolution mixes the maps of all heads of
    all layers of one kind of attention (align-to-distill, arXiv:2403.01479); it starts with the maps of the layer and
    of the head that are as far up and as far on in the student, so with equal shapes it starts as the identity.

    Lives in a criterion: fairseq trains, saves and resumes it with the criterion, and the student's state has no trace
    of it. Without anything to map there are no parameters.

    Args:
        widths: name -> (width of the student, width of the teacher).
        heads: name -> the heads whose maps are mixed.
    """

    def __init__(self, widths: Mapping[str, tuple[int, int]], heads: Mapping[str, Heads] | None = None) -> None:
        super().__init__()
        self.linear = nn.ParameterDict(
            {
                name: nn.init.xavier_uniform_(nn.Parameter(torch.empty(teacher, student)))
                for name, (student, teacher) in widths.items()
                if student != teacher
            }
        )
        self.heads = nn.ParameterDict({name: nn.Parameter(_as_far_up(each)) for name, each in (heads or {}).items()})

    def forward(self, name: str, hidden: Tensor) -> Tensor:
        """Hidden states (N, C) at the teacher's width, in float32 (float64 for float64)."""
        hidden = hidden.to(compute_type(hidden))
        return F.linear(hidden, self.linear[name].to(hidden.dtype)) if name in self.linear else hidden

    def mixed(self, name: str, log_maps: Sequence[Tensor], forbidden: Tensor) -> Tensor:
        """Log-maps (B, O, T, S), one for each head of the teacher, from those of the student's layers, (B, H, T, S)."""
        return mix_heads(torch.cat(tuple(log_maps), dim=1), self.heads[name], forbidden)

    def nothing(self) -> Tensor | float:
        """A zero that every parameter has a part in: DDP waits for a gradient of each, also where no loss uses it."""
        return sum((parameter.sum() * 0.0 for parameter in self.parameters()), start=0.0)

    def extra_repr(self) -> str:
        maps = [f"{name}: {w.size(1)} -> {w.size(0)}" for name, w in self.linear.items()]
        return ", ".join(maps + [f"heads of {name}: {w.size(1)} -> {w.size(0)}" for name, w in self.heads.items()])


def _as_far_up(heads: Heads) -> Tensor:
    """(O, H) with a single 1 in each row."""
    weight = torch.zeros(sum(heads.teacher), sum(heads.student))
    row = 0
    for layer, count in zip(even_layers(len(heads.teacher), len(heads.student)), heads.teacher, strict=True):
        first, own = sum(heads.student[:layer]), heads.student[layer]
        for head in range(count):
            weight[row, first + head * own // count] = 1.0
            row += 1
    return weight
