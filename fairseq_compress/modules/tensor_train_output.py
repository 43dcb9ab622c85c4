"""The output layer of a model with a tensor-train embedding."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from fairseq_compress.functional.layers.tensor_train import logits, logits_multiply_adds
from fairseq_compress.modules.structured import StructuredWeight
from fairseq_compress.modules.tensor_train_embedding import TensorTrainEmbedding


class TensorTrainOutput(StructuredWeight):
    """Logits h Wᵀ with the tensor-train matrix W (V, D) of an embedding (arXiv:1901.10787), tied to it.

    Training does not form W, see :func:`~fairseq_compress.functional.layers.tensor_train.logits`. Logits of the padding
    are 0 without gradient. There is no bias. The cores are children of this module, the embedding is not.
    """

    bias = None

    def __init__(self, embedding: TensorTrainEmbedding) -> None:
        super().__init__()
        self.in_features, self.out_features = embedding.embedding_dim, embedding.num_embeddings
        self.cores = embedding.cores
        self._tied = (embedding,)  # in a tuple, where nn.Module does not find it: its cores have names here already

    @property
    def embedding(self) -> TensorTrainEmbedding:
        return self._tied[0]

    @property
    def dense_shape(self) -> tuple[int, int]:
        return self.embedding.dense_shape

    def dense_weight(self) -> Tensor:
        return self.embedding.dense_weight()

    def approximation(self, weight: Tensor) -> dict[str, Tensor]:
        return self.embedding.approximate_cores(weight)

    @property
    def multiply_adds(self) -> int:
        """Of a row among many: the cost of forming parts of W does not grow with the rows."""
        shapes: list[Any] = [tuple(core.shape) for core in self.cores]
        contraction, _ = logits_multiply_adds(shapes, self.out_features, 1)
        return min(contraction, self.in_features * self.out_features)

    @property
    def generation_multiply_adds(self) -> int:
        return self.in_features * self.out_features

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) -> logits (..., V)."""
        table = None if self.training else self.embedding.kept_table()
        if table is not None:
            return F.linear(hidden, table)
        rows = hidden.reshape(-1, self.in_features)
        made = logits(list(self.cores), rows, self.out_features, zero=self.embedding.padding_idx)
        return made.view(*hidden.shape[:-1], self.out_features)

    def make_generation_fast_(self, **kwargs: Any) -> None:
        self.embedding.make_generation_fast_(**kwargs)

    def train(self, mode: bool = True) -> "TensorTrainOutput":
        """As of every module; training clears the cache."""
        if mode:
            self.embedding.drop_table()
        super().train(mode)
        return self

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, rank={self.embedding.rank}, tied"
