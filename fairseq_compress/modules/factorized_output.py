"""The output layer of a model with factorized embeddings."""

import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_compress.modules.factorized_embedding import Factorized, FactorizedEmbedding


class FactorizedOutput(Factorized):
    """Logits (h B) Aᵀ, without a bias; W is never formed.

    D is ``in_features``, V ``out_features``, r ``rank`` in [1, min(V, D)]. With ``embedding`` its factors are shared;
    as in fairseq, the row of the padding then gets a gradient here.
    """

    bias = None

    def __init__(
        self, in_features: int, out_features: int, rank: int, embedding: FactorizedEmbedding | None = None
    ) -> None:
        super().__init__(out_features, in_features, rank)
        self.in_features, self.out_features = in_features, out_features
        if embedding is None:
            self.table = nn.Linear(rank, out_features, bias=False)
            self.expand = nn.Linear(rank, in_features, bias=False)
            self.reset_parameters()
        else:
            self.table = nn.Linear(rank, out_features, bias=False, device="meta")
            self.table.weight = embedding.table.weight
            self.expand = embedding.expand

    @classmethod
    def tied(cls, embedding: FactorizedEmbedding) -> "FactorizedOutput":
        """The layer with the W of an embedding: ``table.weight`` is its parameter, ``expand`` its module."""
        return cls(embedding.embedding_dim, embedding.num_embeddings, embedding.rank, embedding)

    @property
    def multiply_adds(self) -> int:
        return self.rank * (self.in_features + self.out_features)

    @property
    def table_weight(self) -> Tensor:
        """A (V, r): the output matrix of losses, for hidden states after :meth:`reduce`."""
        return self.table.weight

    def reduce(self, hidden: Tensor) -> Tensor:
        """h B: (..., D) -> (..., r)."""
        return F.linear(hidden, self.expand.weight.t())

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) -> logits (..., V)."""
        return self.table(self.reduce(hidden))

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, rank={self.rank}"
