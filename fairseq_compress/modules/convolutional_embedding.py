"""Embeddings from a narrow table by a convolution over neighbouring tokens (MobileBERT)."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_compress.errors import ConfigError
from fairseq_compress.modules.axes import DENSE_COLUMNS, DENSE_ROWS, INPUT, WINDOW, Declaration


class ConvolutionalEmbedding(nn.Module):
    r"""Embeddings of width D from a table of width E < D: the trigram input of MobileBERT (arXiv:2004.02984).

    With e the rows of the table, K taps and W (D, K · E), which starts with the embedding of the first token in it,

    .. math:: x_t = W [e_{t-(K-1)/2}; \dots; e_t; \dots; e_{t+(K-1)/2}] + b

    or, in a causal one, :math:`x_t = W [e_{t-K+1}; \dots; e_t] + b`. A neighbour that is padding or outside of the
    sentence is zero, and so is :math:`x_t` at padding.

    W is initialized such that with a table of variance 1 / E (fairseq's ``Embedding(V, E)``) x has the variance 1 / D;
    b starts at 0. A causal one is called inside of :meth:`within`, which gives it former tokens.

    ``table`` is (V, E) with a ``padding_idx``; ``taps`` is K, odd for symmetric windows.
    """

    def __init__(self, table: nn.Embedding, embedding_dim: int, taps: int = 3, *, causal: bool) -> None:
        super().__init__()
        if table.padding_idx is None:
            raise ConfigError("table: must have a padding_idx, got None")
        if embedding_dim < 1:
            raise ConfigError(f"embedding_dim: must be at least 1, got {embedding_dim}")
        if taps < 1 or (taps % 2 == 0 and not causal):
            raise ConfigError(f"taps: must be at least 1, and odd if windows are symmetric, got {taps}")
        self.num_embeddings, self.embedding_dim = table.num_embeddings, embedding_dim
        self.padding_idx: int = table.padding_idx
        self.taps, self.causal = taps, causal
        self.table = table
        self.convolution = nn.Linear(taps * table.embedding_dim, embedding_dim)
        nn.init.normal_(self.convolution.weight, std=1 / math.sqrt(taps * embedding_dim))
        nn.init.zeros_(self.convolution.bias)
        self._sequences: Tensor | None = None

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of a forward pass for one token, K · E · D."""
        return self.taps * self.table.embedding_dim * self.embedding_dim

    def axes(self) -> Declaration:
        return {"table": (DENSE_ROWS, INPUT), "convolution": (DENSE_COLUMNS, WINDOW)}

    def tied_output(self) -> nn.Linear:
        """An output layer (..., E) -> (..., V) whose weight is the table, the same parameter; without a bias."""
        output = nn.Linear(self.table.embedding_dim, self.num_embeddings, bias=False, device="meta")
        output.weight = self.table.weight
        return output

    @contextmanager
    def within(self, sequences: Tensor) -> Iterator[None]:
        """Set the whole ``prev_output_tokens`` (B, N), N ≥ T; calls inside are with their last T tokens."""
        if not self.causal:
            raise ConfigError("causal: must be set for a part of a sequence to be embedded, got False")
        before, self._sequences = self._sequences, sequences
        try:
            yield
        finally:
            self._sequences = before

    def forward(self, tokens: Tensor) -> Tensor:
        """Embeddings (B, T, D) of ``tokens`` (B, T), in a causal one the end of the sequences of :meth:`within`."""
        if tokens.dim() != 2:
            raise ConfigError(f"tokens: must be of shape (B, T), got {tuple(tokens.shape)}")
        length = tokens.size(1)
        seen = self._with_former(tokens) if self.causal else tokens
        embedded = self.table(seen).masked_fill(seen.eq(self.padding_idx).unsqueeze(-1), 0.0)
        after = 0 if self.causal else self.taps // 2
        before = length + self.taps - 1 - after - seen.size(1)
        embedded = F.pad(embedded, (0, 0, before, after))
        windows = torch.cat([embedded[:, tap : tap + length] for tap in range(self.taps)], dim=-1)
        output: Tensor = self.convolution(windows)
        return output.masked_fill(tokens.eq(self.padding_idx).unsqueeze(-1), 0.0)

    def _with_former(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T + at most K - 1), with the tokens before."""
        batch, length = tokens.shape
        if self._sequences is None:
            raise ConfigError("causal: must be called inside of within(sequences) if it is set, got a call outside")
        if self._sequences.size(0) != batch or self._sequences.size(1) < length:
            raise ConfigError(
                f"tokens: must be the end of sequences of shape {tuple(self._sequences.shape)}, got {(batch, length)}"
            )
        first = max(self._sequences.size(1) - length - self.taps + 1, 0)
        return self._sequences[:, first:]

    def extra_repr(self) -> str:
        return (
            f"{self.num_embeddings}, {self.embedding_dim}, table_width={self.table.embedding_dim}, taps={self.taps}, "
            f"causal={self.causal}, padding_idx={self.padding_idx}"
        )
