"""Linear layers with fixed sparsity: only the blocks of a support, drawn from a seed, are parameters."""

import math
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_compress.errors import CheckpointError, ConfigError
from fairseq_compress.functional.layers.supports import gather_blocks, scatter_blocks, support, support_check
from fairseq_compress.modules.evaluation_cache import EvaluationCache
from fairseq_compress.modules.structured import StructuredWeight

CHECK, VALUES = "support_check", "values"
BLOCK_PRODUCT = 16
"""Blocks of at least this size are multiplied by :func:`block_product`, smaller ones by torch's sparse matrices."""
LEAST_SPARSITY = {1: 0.95, 8: 0.9, 16: 0.9, 32: 0.8}
"""Size of blocks -> sparsity from which :func:`sparse_is_faster`."""
LEAST_WORK = 16_000_000
"""Multiply-adds of the dense product from which :func:`sparse_is_faster`."""
CHUNK = 512  # rows of the input at once: with more, the products of blocks leave the cache and are slower than dense


class SparseLinear(StructuredWeight):
    r"""y = x Wᵀ + β where W (O, I) is zero outside of a support of n blocks of b x b entries.

    The support is drawn from the seed (:func:`~fairseq_compress.functional.layers.supports.support`); a checkpoint has
    the values and 48 bits of the support's sha256. Entries of row i are uniform with the variance
    :math:`\sigma^2 I / k_i`, with :math:`k_i` of I entries nonzero (arXiv:2010.03533).

    Training multiplies by the dense W, scattered in each forward. After ``make_generation_fast_`` W is cached in
    evaluation without gradients, dense or in the form of the kernel that :func:`sparse_is_faster` chooses.

    Args:
        in_features: I.
        out_features: O.
        sparsity, layout, block, seed, rewire: arguments of the support.
        std: σ, standard deviation of the entries of a dense layer; :math:`1 / \sqrt{3 I}` by default.
    """

    places: Tensor
    support_check: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        sparsity: float,
        layout: str = "random",
        block: int = 1,
        seed: int = 0,
        bias: bool = True,
        std: float | None = None,
        rewire: float = 0.2,
    ) -> None:
        super().__init__()
        if std is not None and not 0 <= std < math.inf:
            raise ConfigError(f"std: must be a number from 0, got {std}")
        drawn = support(layout, (out_features, in_features), sparsity, block, seed, rewire)
        self.in_features, self.out_features = in_features, out_features
        self.sparsity, self.layout, self.block, self.seed = sparsity, layout, block, seed
        count = len(drawn.coordinates)
        self.values = nn.Parameter(torch.empty((count,) if block == 1 else (count, block, block)))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        self.register_buffer("places", torch.from_numpy(drawn.places), persistent=False)
        self.register_buffer(CHECK, torch.tensor(support_check(drawn)))
        self.register_load_state_dict_pre_hook(_refuse_another_support)
        self._initialize(1 / math.sqrt(3 * in_features) if std is None else std)
        self.cache = EvaluationCache()

    @torch.no_grad()
    def _initialize(self, std: float) -> None:
        rows = self.places // (self.in_features // self.block)
        fan_in = torch.bincount(rows)[rows] * self.block
        bounds = math.sqrt(3) * std * (self.in_features / fan_in).sqrt()
        self.values.uniform_(-1, 1).mul_(bounds.view(-1, *[1] * (self.values.dim() - 1)))
        if self.bias is not None:
            self.bias.uniform_(-1, 1).div_(math.sqrt(self.in_features))

    def forward(self, x: Tensor) -> Tensor:
        """y (..., O) of x (..., I)."""
        if self.training or not self.cache.enabled or torch.is_grad_enabled():
            return F.linear(x, self.dense_weight(), self.bias)
        if not self._sparse_pays(x):
            return F.linear(x, self._form("dense"), self.bias)
        chunks = x.reshape(-1, self.in_features).split(CHUNK)
        product = torch.cat([self._sparse_product(rows) for rows in chunks])
        product = product.view(*x.shape[:-1], self.out_features)
        return product if self.bias is None else product.add_(self.bias)

    def _sparse_product(self, rows: Tensor) -> Tensor:
        """x Wᵀ (N, O) of x (N, I)."""
        if self.block >= BLOCK_PRODUCT:
            return block_product(rows, self._form("blocks"), self.places, self.out_features)
        return (self._form("compressed") @ rows.t()).t()

    def _sparse_pays(self, x: Tensor) -> bool:
        rows = x.numel() // self.in_features
        if not sparse_is_faster(self.dense_shape, rows, self.sparsity, self.block):
            return False
        if self.block < BLOCK_PRODUCT and not torch.backends.mkl.is_available():
            return False  # what was measured is MKL's kernel
        exact = x.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
        return exact and x.device.type == "cpu"

    def _form(self, name: str) -> Tensor:
        """W as one kernel wants it, converted when it is first needed."""
        return self.cache.get(name, (self.values,), lambda: self._convert(name))

    def _convert(self, name: str) -> Tensor:
        if name == "dense":
            return self.dense_weight().detach()
        if name == "blocks":
            return self.values.detach().transpose(1, 2).contiguous()
        return compressed(self.values.detach(), self.places, self.dense_shape)

    def make_generation_fast_(self, **kwargs: Any) -> None:
        self.cache.enabled = True

    def train(self, mode: bool = True) -> "SparseLinear":
        """As of every module; training clears the cache."""
        if mode:
            self.cache.clear()
        super().train(mode)
        return self

    @property
    def dense_shape(self) -> tuple[int, int]:
        return self.out_features, self.in_features

    def dense_weight(self) -> Tensor:
        return scatter_blocks(self.values, self.places, self.dense_shape)

    def approximation(self, weight: Tensor) -> dict[str, Tensor]:
        """The entries of ``weight`` on the support: no W with these zeros is closer to it."""
        return {VALUES: gather_blocks(weight, self.places, self.block), CHECK: self.support_check.clone()}

    @property
    def kept(self) -> int:
        """Number of nonzero entries of W, n b²."""
        return self.values.numel()

    @property
    def multiply_adds(self) -> int:
        """One for each nonzero entry; training multiplies by the zeros too."""
        return self.kept

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
            f"sparsity={self.sparsity:g}, layout={self.layout}, block={self.block}, seed={self.seed}, kept={self.kept}"
        )


def sparse_is_faster(shape: tuple[int, int], rows: int, sparsity: float, block: int) -> bool:
    """Whether a sparse kernel beats the dense product of an input of ``rows`` rows with a weight ``shape`` (O, I).

    Measured with one thread of an AMD EPYC (AVX2), torch 2.13 with MKL and float32 (``benchmarks/sparse_linear.py``):
    CSR for single entries, BSR for blocks of 8, batched products of larger ones. The layer then takes 0.2 to 0.8 of the
    time of a dense one, 1.1 with single entries of 256 x 1536.
    """
    return sparsity >= LEAST_SPARSITY[block] and rows * shape[0] * shape[1] >= LEAST_WORK


def block_product(x: Tensor, transposed: Tensor, places: Tensor, outputs: int) -> Tensor:
    """x Wᵀ (N, O) of x (N, I), by batched products with the transposed blocks (n, b, b) of W at ``places`` (n,)."""
    b = transposed.size(1)
    parts = x.unflatten(1, (-1, b)).transpose(0, 1)  # (C, N, b)
    columns = parts.size(0)
    products = torch.bmm(parts.index_select(0, places % columns), transposed)
    sums = x.new_zeros(outputs // b, x.size(0), b).index_add_(0, places // columns, products)
    return sums.transpose(0, 1).reshape(x.size(0), outputs)


def compressed(values: Tensor, places: Tensor, shape: tuple[int, int]) -> Tensor:
    """W (O, I) as torch's sparse matrix: CSR of single entries ``values`` (n,), BSR of blocks (n, b, b)."""
    b = 1 if values.dim() == 1 else values.size(1)
    columns = shape[1] // b
    ends = torch.bincount(places // columns, minlength=shape[0] // b).cumsum(0)
    layout = torch.sparse_csr if b == 1 else torch.sparse_bsr
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse .* tensor support is in beta")
        return torch.sparse_compressed_tensor(
            F.pad(ends, (1, 0)), places % columns, values, shape, layout=layout, check_invariants=True
        )


def _refuse_another_support(module: SparseLinear, state: dict[str, Any], prefix: str, *_: Any) -> None:
    if prefix + VALUES not in state:
        return
    found, own = state.get(prefix + CHECK), int(module.support_check)
    if found is None or int(found) != own:
        got = "none" if found is None else int(found)
        raise CheckpointError(
            f"{prefix}{CHECK}: must be {own}, of the support that sparsity, layout, block and seed {module.seed} draw "
            f"here, got {got}: these values belong to other entries"
        )
