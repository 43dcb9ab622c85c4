"""A table over the pieces of two vocabularies: the teacher's rows as they were, then those of the student's others."""

from collections.abc import Sequence

import torch
from torch import Tensor


def extended_table(table: Tensor, segmentations: Sequence[Sequence[int]]) -> Tensor:
    r"""A table (V + n, D): its V rows, and for each new piece the mean of the rows of its segmentation,

        E_{V+j} = 1/\|s_j\| Σ_{i in s_j} E_i

    Means are summed in float64; the type stays.

    Args:
        table: E (V, D), floating; or a vector (V,), the bias of an output.
        segmentations: n lists of old rows, from 0 to V - 1; a row may be there more than once and counts so.

    Raises:
        ValueError: the table has no rows or too many axes, a list is empty, or a number is out of range.
    """
    if table.dim() not in (1, 2) or not table.is_floating_point():
        raise ValueError(f"table must be floating (V, D) or (V,), got {table.dtype} {tuple(table.shape)}")
    for number, rows in enumerate(segmentations):
        if not rows:
            raise ValueError(f"segmentations must have a row for each new piece, got none for number {number}")
        outside = [row for row in rows if not 0 <= row < table.size(0)]
        if outside:
            raise ValueError(f"segmentations must be of rows 0 to {table.size(0) - 1}, got {outside[0]}")
    means = [table[torch.tensor(rows, device=table.device)].double().mean(0) for rows in segmentations]
    return torch.cat([table, torch.stack(means).to(table.dtype)]) if means else table.clone()
