"""The output layer of a model with factorized embeddings."""

import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_compress.modules.axes import DENSE_COLUMNS, DENSE_ROWS, RANK, Declaration
from fairseq_compress.modules.factorized_embedding import (
    FactorizedEmbedding,
    approximate_factors,
    check_rank,
    init_factors,
)
from fairseq_compress.modules.structured import StructuredWeight


class FactorizedOutput(StructuredWeight):
    r"""Logits :math:`(h B) A^T`, with the factors of a factorized embedding W = A B^T of rank r (arXiv:1909.11942).

    A (V, r) is the weight of the child ``table``, B (D, r) that of the child ``expand``. Products are taken from the
    left, so that W (V, D) is never formed and a row costs r (D + V) multiply-adds. There is no bias.

    It starts as a :class:`~fairseq_compress.modules.factorized_embedding.FactorizedEmbedding` of its own; :meth:`tied`
    makes one that shares all of an embedding's parameters. As with fairseq's tied embeddings, the row of the padding
    then gets a gradient from here.

    Args:
        in_features: D.
        out_features: V.
        rank: r, from 1 to min(V, D).
        embedding: whose factors these are; None for own ones.

    Raises:
        ConfigError: the rank is out of range.
    """

    bias = None

    def __init__(
        self, in_features: int, out_features: int, rank: int, embedding: FactorizedEmbedding | None = None
    ) -> None:
        super().__init__()
        check_rank(rank, out_features, in_features)
        self.in_features, self.out_features, self.rank = in_features, out_features, rank
        if embedding is None:
            self.table = nn.Linear(rank, out_features, bias=False)
            self.expand = nn.Linear(rank, in_features, bias=False)
            init_factors(self.table.weight, self.expand.weight)
        else:
            self.table = nn.Linear(rank, out_features, bias=False, device="meta")
            self.table.weight = embedding.table.weight
            self.expand = embedding.expand

    @classmethod
    def tied(cls, embedding: FactorizedEmbedding) -> "FactorizedOutput":
        """The layer with the W of an embedding: ``table.weight`` is its parameter, ``expand`` its module."""
        return cls(embedding.embedding_dim, embedding.num_embeddings, embedding.rank, embedding)

    @property
    def dense_shape(self) -> tuple[int, int]:
        return self.out_features, self.in_features

    def dense_weight(self) -> Tensor:
        return self.table.weight @ self.expand.weight.t()

    def axes(self) -> Declaration:
        """Of the factors."""
        return {"table": (DENSE_ROWS, RANK), "expand": (DENSE_COLUMNS, RANK)}

    def approximation(self, weight: Tensor) -> dict[str, Tensor]:
        return approximate_factors(weight, self.rank)

    @property
    def multiply_adds(self) -> int:
        return self.rank * (self.in_features + self.out_features)

    @property
    def table_weight(self) -> Tensor:
        """A (V, r): a loss that takes hidden states and an output matrix takes :meth:`reduce` of them, and this."""
        return self.table.weight

    def reduce(self, hidden: Tensor) -> Tensor:
        """h B: (..., D) -> (..., r)."""
        return F.linear(hidden, self.expand.weight.t())

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) -> logits (..., V)."""
        logits: Tensor = self.table(self.reduce(hidden))
        return logits

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, rank={self.rank}"
