"""An embedding of few numbers a word: a narrow table, and one matrix to the width of the model."""

import torch
from torch import Tensor, nn

from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.layers.low_rank import truncated_svd
from fairseq_compress.modules.axes import DENSE_COLUMNS, DENSE_ROWS, RANK, Declaration
from fairseq_compress.modules.structured import StructuredWeight


class FactorizedEmbedding(StructuredWeight):
    r"""Embeddings :math:`W = A B^T` of rank r, the factorized ones of ALBERT (arXiv:1909.11942).

    A (V, r) is the weight of the child ``table``, B (D, r) that of the child ``expand``: r (V + D) numbers in place of
    V · D. Only the rows of A that a batch uses are multiplied. A state dict of ``nn.Embedding`` loads as its truncated
    SVD, the closest W of that rank.

    At the start A is normal with standard deviation D^-0.5, and B has orthogonal columns of the squared norm D / r:
    the rows of W have the expected squared norm 1, as those of fairseq's embeddings have. The row of ``padding_idx`` in
    A, and so in W, is zero, and gets no gradient from here.

    Args:
        num_embeddings: V.
        embedding_dim: D.
        padding_idx: id of the padding, or None.
        rank: r, from 1 to min(V, D).

    Raises:
        ConfigError: the rank is out of range.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None, rank: int) -> None:
        super().__init__()
        check_rank(rank, num_embeddings, embedding_dim)
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.rank = rank
        self.table = nn.Embedding(num_embeddings, rank, padding_idx)
        self.expand = nn.Linear(rank, embedding_dim, bias=False)
        init_factors(self.table.weight, self.expand.weight)
        if padding_idx is not None:
            nn.init.zeros_(self.table.weight[padding_idx])

    @property
    def dense_shape(self) -> tuple[int, int]:
        return self.num_embeddings, self.embedding_dim

    def dense_weight(self) -> Tensor:
        return self.table.weight @ self.expand.weight.t()

    def axes(self) -> Declaration:
        """Of the factors."""
        return {"table": (DENSE_ROWS, RANK), "expand": (DENSE_COLUMNS, RANK)}

    def approximation(self, weight: Tensor) -> dict[str, Tensor]:
        return approximate_factors(weight, self.rank)

    @property
    def multiply_adds(self) -> int:
        return self.rank * self.embedding_dim

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (...) -> (..., D)."""
        output: Tensor = self.expand(self.table(ids))
        return output

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, padding_idx={self.padding_idx}, rank={self.rank}"


def check_rank(rank: int, entries: int, width: int) -> None:
    """Refuse a rank that a table (V, D) cannot have.

    Raises:
        ConfigError: it is out of range.
    """
    if not 1 <= rank <= min(entries, width):
        raise ConfigError(f"rank: must be from 1 to {min(entries, width)} for {entries} x {width}, got {rank}")


def init_factors(table: Tensor, expand: Tensor) -> None:
    """Draw A (V, r) and B (D, r) as :class:`FactorizedEmbedding` says."""
    width, rank = expand.shape
    nn.init.normal_(table, std=width**-0.5)
    nn.init.orthogonal_(expand, gain=(width / rank) ** 0.5)


@torch.no_grad()
def approximate_factors(weight: Tensor, rank: int) -> dict[str, Tensor]:
    """A and B of the closest W to a table (V, D), by their names in the state dict. Equal tables give equal factors."""
    left, right = truncated_svd(weight, rank)
    return {"table.weight": left, "expand.weight": right.t().contiguous()}
