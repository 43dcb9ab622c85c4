"""The student's embeddings as a projection of the teacher's embeddings of the same subwords."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ProjectedTable(nn.Module):
    r"""The student's table as a projection of the teacher's: :math:`E_s = E_t[rows] P^T`.

    Args:
        rows: (V_s,) int64, the row of the teacher's table for each entry of the student's dictionary.
        width: D_s.
        teacher_width: D_t.
    """

    rows: Tensor

    def __init__(self, rows: Tensor, width: int, teacher_width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, teacher_width))  # P
        nn.init.orthogonal_(self.weight)
        self.register_buffer("rows", rows)

    def extra_repr(self) -> str:
        return f"{len(self.rows)} entries, {self.weight.size(1)} -> {self.weight.size(0)}"


class ProjectedEmbedding(nn.Module):
    """An embedding of the student, looked up in the teacher's table and projected. It owns no parameter."""

    def __init__(self, table: ProjectedTable, teacher: nn.Embedding, padding_idx: int) -> None:
        super().__init__()
        self._parts = (table, teacher)  # in a tuple, where nn.Module does not find them
        self.num_embeddings, self.embedding_dim = len(table.rows), table.weight.size(0)
        self.padding_idx = padding_idx

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (...) -> (..., D_s); the padding's row of the teacher's table is zero."""
        table, teacher = self._parts
        return F.linear(F.embedding(table.rows[ids], teacher.weight, teacher.padding_idx), table.weight)


class ProjectedOutput(nn.Module):
    """Logits (h P) E_t[rows]ᵀ: the output layer tied to a :class:`ProjectedEmbedding`."""

    bias = None

    def __init__(self, table: ProjectedTable, teacher: nn.Embedding) -> None:
        super().__init__()
        self._parts = (table, teacher)

    def reduce(self, hidden: Tensor) -> Tensor:
        """h P: (..., D_s) -> (..., D_t)."""
        return F.linear(hidden, self._parts[0].weight.t())

    @property
    def table_weight(self) -> Tensor:
        """E_t[rows] (V_s, D_t), whose product with h P are the logits."""
        table, teacher = self._parts
        return F.embedding(table.rows, teacher.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D_s) -> (..., V_s)."""
        return F.linear(self.reduce(hidden), self.table_weight)
