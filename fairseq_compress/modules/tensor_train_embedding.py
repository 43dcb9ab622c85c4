"""An embedding whose table is a tensor-train matrix."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.layers.tensor_train import (
    balanced_modes,
    dense_table,
    gather_rows,
    tensor_train_svd,
    tt_shapes,
)
from fairseq_compress.modules.evaluation_cache import EvaluationCache
from fairseq_compress.modules.structured import StructuredWeight

LEAST_MODES = 3  # with two, W is only a low-rank table with permuted rows
MODES, RANK = "--tensor-train-modes", "--tensor-train-rank"


class TensorTrainEmbedding(StructuredWeight):
    r"""Embeddings from a tensor train, :math:`W[i, j] = \prod_k G_k[:, i_k, j_k, :]` (arXiv:1901.10787).

    See :mod:`fairseq_compress.functional.layers.tensor_train`. Training computes only the rows that a batch uses. The
    output at the padding is zero, without gradient. The cores are normal with one standard deviation, such that that of
    W is D^-0.5. A state dict of ``nn.Embedding`` loads as its TT-SVD.

    After ``make_generation_fast_`` W is cached where no gradient is required, until ``train()``.

    Args:
        num_embeddings: V; ``entries`` in a checkpoint.
        embedding_dim: D.
        rank: r, the maximum of all cores.
        entry_modes: the v_k, three or more, with a product of V or more; by default balanced ones.
        width_modes: as many d_k with the product D; by default balanced ones.
    """

    entries: Tensor

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None,
        rank: int,
        entry_modes: Sequence[int] | None = None,
        width_modes: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if rank < 1:
            raise ConfigError(f"{RANK}: must be in [1, inf), got {rank}")
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.rank = rank
        balanced = balanced_modes(num_embeddings, embedding_dim, len(entry_modes or width_modes or (0,) * LEAST_MODES))
        self.entry_modes, self.width_modes = tuple(entry_modes or balanced[0]), tuple(width_modes or balanced[1])
        _check_modes(self.entry_modes, self.width_modes, num_embeddings, embedding_dim)
        shapes = tt_shapes(self.entry_modes, self.width_modes, rank)
        variance = 1 / (embedding_dim * math.prod(shape[3] for shape in shapes))  # of a term of the sum that W[i, j] is
        std = variance ** (0.5 / len(shapes))
        self.cores = nn.ParameterList([nn.Parameter(torch.randn(shape) * std) for shape in shapes])
        self.register_buffer("entries", torch.tensor(num_embeddings))
        self.register_load_state_dict_pre_hook(_check_entries)
        self.cache = EvaluationCache()

    @property
    def dense_shape(self) -> tuple[int, int]:
        return self.num_embeddings, self.embedding_dim

    def dense_weight(self) -> Tensor:
        table = dense_table(list(self.cores), self.num_embeddings)
        if self.padding_idx is None:
            return table
        return table.index_fill(0, torch.tensor([self.padding_idx], device=table.device), 0)

    def approximation(self, weight: Tensor) -> dict[str, Tensor]:
        return self.approximate_cores(weight) | {"entries": torch.tensor(self.num_embeddings)}

    def approximate_cores(self, weight: Tensor) -> dict[str, Tensor]:
        """The cores close to a table (V, D), by their names in the state dict. Equal tables give equal cores."""
        cores = tensor_train_svd(weight, self.entry_modes, self.width_modes, self.rank)
        return {f"cores.{k}": core for k, core in enumerate(cores)}

    @property
    def multiply_adds(self) -> int:
        """Of a single row; rows with the same first digits share products."""
        widths = [math.prod(self.width_modes[: k + 1]) for k in range(len(self.cores))]
        pairs = list(zip(widths, self.cores, strict=True))
        return sum(width * core.size(0) * core.size(3) for width, core in pairs[1:])

    @property
    def generation_multiply_adds(self) -> int:
        """W is kept: a token is looked up."""
        return 0

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (...) -> (..., D)."""
        table = None if self.training else self.kept_table()
        if table is not None:
            return F.embedding(ids, table)
        rows = gather_rows(list(self.cores), ids.flatten(), self.num_embeddings).view(*ids.shape, -1)
        return rows if self.padding_idx is None else rows.masked_fill(ids.eq(self.padding_idx).unsqueeze(-1), 0)

    def kept_table(self) -> Tensor | None:
        """W after :meth:`make_generation_fast_`; None before, and where gradients are wanted."""
        if not self.cache.enabled or (torch.is_grad_enabled() and any(core.requires_grad for core in self.cores)):
            return None
        return self.cache.get("table", self.cores, self._table)

    @torch.inference_mode(False)
    @torch.no_grad()
    def _table(self) -> Tensor:
        return self.dense_weight()

    def make_generation_fast_(self, **kwargs: Any) -> None:
        self.cache.enabled = True

    def drop_table(self) -> None:
        self.cache = EvaluationCache()

    def train(self, mode: bool = True) -> "TensorTrainEmbedding":
        """As of every module; training clears the cache."""
        if mode:
            self.drop_table()
        super().train(mode)
        return self

    def extra_repr(self) -> str:
        ranks = [core.size(3) for core in self.cores[:-1]]
        numbers, entries = sum(core.numel() for core in self.cores), self.num_embeddings * self.embedding_dim
        return (
            f"{self.num_embeddings}, {self.embedding_dim}, padding_idx={self.padding_idx}, "
            f"modes={_product(self.entry_modes)} x {_product(self.width_modes)}, ranks={ranks}, "
            f"{numbers} numbers for {entries}"
        )


def _product(modes: Sequence[int]) -> str:
    return "(" + "·".join(map(str, modes)) + ")"


def _check_modes(entry_modes: Sequence[int], width_modes: Sequence[int], entries: int, width: int) -> None:
    got = f"{_product(entry_modes)} x {_product(width_modes)}"
    if len(entry_modes) != len(width_modes) or len(entry_modes) < LEAST_MODES:
        raise ConfigError(f"{MODES}: must be as many modes of entries as of width, {LEAST_MODES} or more, got {got}")
    if min(*entry_modes, *width_modes) < 1 or math.prod(entry_modes) < entries or math.prod(width_modes) != width:
        raise ConfigError(f"{MODES}: products must be {entries} or more of entries, {width} of width, got {got}")


def _check_entries(
    module: TensorTrainEmbedding,
    state: dict[str, Any],
    prefix: str,
    metadata: Any,
    strict: bool,
    missing: list[str],
    unexpected: list[str],
    errors: list[str],
) -> None:
    """Cores of another V may have the same shapes."""
    entries = state.get(prefix + "entries")
    if entries is not None and int(entries) != module.num_embeddings:
        errors.append(f"{prefix}entries: must be {module.num_embeddings}, got {int(entries)} in the state dict")
