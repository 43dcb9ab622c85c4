"""What Marian's transformers compute in another way than fairseq's: the decoder's first input, and positions."""

from typing import Any

import torch
from fairseq.modules import SinusoidalPositionalEmbedding
from torch import Tensor, nn


class ZeroStartEmbedding(nn.Embedding):
    """The table of a decoder in which the token ``start`` (EOS, the decoder's first input) is a zero vector.

    It has the parameter of ``table``, which the encoder and the output layer may share: there EOS keeps its row.
    """

    def __init__(self, table: nn.Embedding, start: int) -> None:
        super().__init__(table.num_embeddings, table.embedding_dim, table.padding_idx, _weight=table.weight)
        self.weight = table.weight
        self.start = start

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).masked_fill(input.eq(self.start).unsqueeze(-1), 0.0)


class PositionsFromZero(SinusoidalPositionalEmbedding):
    """fairseq's sinusoidal positions, the first of which is number 0 instead of ``padding_idx + 1``."""

    def __init__(self, like: SinusoidalPositionalEmbedding) -> None:
        super().__init__(like.embedding_dim, like.padding_idx, like.padding_idx + 2)
        self.weights = self._table(len(like.weights))

    def forward(self, input: Tensor, *args: object, **kwargs: object) -> Tensor:
        """As the method of the parent, which would make longer tables with its own first position."""
        needed = self.padding_idx + 1 + input.size(1)
        if needed > len(self.weights):
            self.weights = self._table(needed).to(self.weights)
        found: Tensor = super().forward(input, *args, **kwargs)
        return found

    def _table(self, rows: int) -> Tensor:
        """Row p is that of position p - padding_idx - 1."""
        before = self.padding_idx + 1
        table = self.get_embedding(max(rows - before, 1), self.embedding_dim)
        return torch.cat([table.new_zeros(before, self.embedding_dim), table])


def set_epsilon(model: nn.Module, epsilon: float) -> None:
    """Give all layer norms of a model an epsilon."""
    module: Any
    for module in model.modules():
        if hasattr(module, "normalized_shape"):  # torch's or apex's
            module.eps = epsilon
