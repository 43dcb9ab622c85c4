"""Factorized embeddings: a narrow table and one matrix to the width of the model."""

from typing import Any

import torch
from torch import Tensor, nn

from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.layers.low_rank import truncated_svd
from fairseq_compress.modules.axes import DENSE_COLUMNS, DENSE_ROWS, RANK, Declaration
from fairseq_compress.modules.structured import StructuredWeight


class Factorized(StructuredWeight):
    r"""A matrix :math:`W = A B^T` of rank r, the factorized embedding of ALBERT (arXiv:1909.11942).

    A (V, r) is the weight of the child ``table``, B (D, r) that of the child ``expand``: r (V + D) numbers in place of
    V · D. A dense weight in a state dict is loaded as its truncated SVD, the closest W of that rank.

    A starts normal with standard deviation D^-0.5, B with orthogonal columns of the squared norm D / r: the rows of W
    have the expected squared norm 1, as those of fairseq's embeddings.
    """

    table: Any
    expand: Any

    def __init__(self, entries: int, width: int, rank: int) -> None:
        super().__init__()
        if not 1 <= rank <= min(entries, width):
            raise ConfigError(f"rank: must be in [1, {min(entries, width)}] for {entries} x {width}, got {rank}")
        self.rank = rank

    def reset_parameters(self) -> None:
        width = self.expand.out_features
        nn.init.normal_(self.table.weight, std=width**-0.5)
        nn.init.orthogonal_(self.expand.weight, gain=(width / self.rank) ** 0.5)

    def axes(self) -> Declaration:
        return {"table": (DENSE_ROWS, RANK), "expand": (DENSE_COLUMNS, RANK)}

    @property
    def dense_shape(self) -> tuple[int, int]:
        return len(self.table.weight), self.expand.out_features

    def dense_weight(self) -> Tensor:
        return self.table.weight @ self.expand.weight.t()

    @torch.no_grad()
    def approximation(self, weight: Tensor) -> dict[str, Tensor]:
        left, right = truncated_svd(weight, self.rank)
        return {"table.weight": left, "expand.weight": right.t().contiguous()}


class FactorizedEmbedding(Factorized):
    """Embeddings W = A Bᵀ. Only the rows of A that a batch uses are multiplied.

    The row of ``padding_idx`` in A starts at zero and gets no gradient here. V is ``num_embeddings``, D
    ``embedding_dim``, r ``rank`` in [1, min(V, D)].
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None, rank: int) -> None:
        super().__init__(num_embeddings, embedding_dim, rank)
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.table = nn.Embedding(num_embeddings, rank, padding_idx)
        self.expand = nn.Linear(rank, embedding_dim, bias=False)
        self.reset_parameters()
        if padding_idx is not None:
            nn.init.zeros_(self.table.weight[padding_idx])

    @property
    def multiply_adds(self) -> int:
        return self.rank * self.embedding_dim

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (...) -> (..., D)."""
        return self.expand(self.table(ids))

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, padding_idx={self.padding_idx}, rank={self.rank}"
