r"""A table W (V, D) as a tensor-train matrix: "Tensorized Embedding Layers", arXiv:1901.10787.

With :math:`V \le \prod_k v_k`, :math:`D = \prod_k d_k`, and cores :math:`G_k` of shape
:math:`(r_{k-1}, v_k, d_k, r_k)`, :math:`r_0 = r_K = 1`:

.. math:: W[i, j] = G_1[:, i_1, j_1, :] \, G_2[:, i_2, j_2, :] \cdots G_K[:, i_K, j_K, :]

where :math:`(i_1 \ldots i_K)` are the digits of i, the first one the highest, to the bases :math:`v_k`, and
:math:`(j_1 \ldots j_K)` those of j to the bases :math:`d_k`. Rows from V on are unused.

``tltorch.FactorizedEmbedding`` (tensorly-torch 0.5.0) requires V to be the product of the modes, gathers a slice of
each core for each token, and has an output layer by the whole table only.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_compress.functional.layers.low_rank import truncated_svd

Shape = tuple[int, int, int, int]
Factors = Callable[[Sequence[Tensor], Tensor, int], tuple[Tensor, Tensor]]


def balanced_modes(entries: int, width: int, count: int = 3) -> tuple[tuple[int, ...], tuple[int, ...]]:
    r"""Modes :math:`(v_k)` and :math:`(d_k)` with :math:`\prod v_k \ge V` and :math:`\prod d_k = D`.

    The :math:`v_k` are m or m + 1, m being the K-th root of V, as few m + 1 as will do: no others of a smaller sum
    reach V. The :math:`d_k` are those of the smallest sum. The largest come first and last, the smallest in the
    middle: an inner core has :math:`r^2 v_k d_k` numbers, one at an end :math:`r v_k d_k`.
    """
    for name, value in (("entries", entries), ("width", width), ("count", count)):
        if value < 1:
            raise ValueError(f"{name}: must be at least 1, got {value}")
    root = next(root for root in range(1, entries + 1) if (root + 1) ** count > entries)
    larger = next(j for j in range(count + 1) if root ** (count - j) * (root + 1) ** j >= entries)
    widths = min(_factorizations(width, count), key=lambda modes: (sum(modes), modes))
    return _smallest_inside((root,) * (count - larger) + (root + 1,) * larger), _smallest_inside(widths)


def _factorizations(number: int, count: int, least: int = 1) -> Iterator[tuple[int, ...]]:
    """Every way to write ``number`` as ``count`` ascending factors."""
    if count == 1 and number >= least:
        yield (number,)
    elif count > 1:
        for factor in range(least, math.isqrt(number) + 1):
            if number % factor == 0:
                yield from ((factor, *rest) for rest in _factorizations(number // factor, count - 1, factor))


def _smallest_inside(ascending: Sequence[int]) -> tuple[int, ...]:
    return (*ascending[::-2], *ascending[len(ascending) % 2 :: 2])


def tt_shapes(v_modes: Sequence[int], d_modes: Sequence[int], rank: int) -> list[Shape]:
    r"""The shape :math:`(r_{k-1}, v_k, d_k, r_k)` of each core.

    :math:`r_k` is ``rank``, or the number of rows :math:`\prod_{j \le k} v_j d_j` or columns
    :math:`\prod_{j > k} v_j d_j` of the matrix that is cut there if that is less: it has no larger rank.
    """
    sizes = [v * d for v, d in zip(v_modes, d_modes, strict=True)]
    cuts = range(1, len(sizes))
    ranks = [1, *(min(rank, math.prod(sizes[:k]), math.prod(sizes[k:])) for k in cuts), 1]
    return list(zip(ranks[:-1], v_modes, d_modes, ranks[1:], strict=True))


def gather_rows(cores: Sequence[Tensor], ids: Tensor, entries: int | None = None) -> Tensor:
    r"""Rows W[ids] (N, D), in the type of the cores. Each row, and each prefix of digits, is computed once.

    With :math:`x_k` (P, :math:`d_1 \cdots d_k`, :math:`r_k`) for the P prefixes of k digits that occur,
    :math:`x_k = x_{k-1} G_k[:, i_k]`: sorted by :math:`i_k`, one product for each of its values.

    Args:
        ids: (N,), int64.
        entries: V; by default the product of the modes.
    """
    if not len(ids):
        return cores[0].new_zeros(0, math.prod(core.size(2) for core in cores))
    used, places = torch.unique(ids, return_inverse=True)  # ascending
    entries = math.prod(core.size(1) for core in cores) if entries is None else entries
    low, high = used[[0, -1]].tolist()
    if low < 0 or high >= entries:
        raise IndexError(f"ids: must be from 0 to {entries - 1}, got {low if low < 0 else high}")
    with torch.autocast(cores[0].device.type, enabled=False):
        rows, found = _prefix_rows(cores, used)
    return F.embedding(found[places], rows)


def _prefix_rows(cores: Sequence[Tensor], ids: Tensor) -> tuple[Tensor, Tensor]:
    """The product of the cores at distinct ascending ids, (P, d_1 ... d_k · r_k) in some order, and each id's place."""
    rank, modes, _, _ = cores[-1].shape
    slices = cores[-1].transpose(0, 1).flatten(2)  # (v, r, d r')
    if len(cores) == 1:
        return F.embedding(ids, slices.flatten(1)), torch.arange(len(ids), device=ids.device)
    digits = ids % modes
    prefixes, places = torch.unique_consecutive(ids // modes, return_inverse=True)
    left, found = _prefix_rows(cores[:-1], prefixes)
    order = digits.argsort()
    counts = torch.bincount(digits, minlength=modes).tolist()
    groups = F.embedding(found[places[order]], left).split(counts)
    pairs = [(group, each) for group, each in zip(groups, slices.unbind(), strict=True) if len(group)]
    return torch.cat([group.view(-1, rank) @ each for group, each in pairs]).view(len(ids), -1), order.argsort()


def dense_table(cores: Sequence[Tensor], entries: int) -> Tensor:
    """W (V, D), with its graph."""
    with torch.autocast(cores[0].device.type, enabled=False):
        table = cores[0].squeeze(0)
        for core in cores[1:]:
            table = torch.tensordot(table, core, dims=1).transpose(1, 2).flatten(2, 3).flatten(0, 1)
    return table.squeeze(2)[:entries]


def logits_multiply_adds(shapes: Sequence[Shape], entries: int, rows: int) -> tuple[int, int]:
    """Multiply-adds of :func:`logits` of N ``rows``: by contraction, and by parts of W, their making included."""
    v_modes, d_modes = [shape[1] for shape in shapes], [shape[2] for shape in shapes]
    v_modes[0] = -(-entries // math.prod(v_modes[1:]))  # first digits without an entry are left out
    contraction = making = 0
    for k, (rank, _, d, next_rank) in enumerate(shapes):
        heads = math.prod(v_modes[: k + 1])
        contraction += heads * rank * d * next_rank * math.prod(d_modes[k + 1 :])
        making += heads * math.prod(d_modes[: k + 1]) * rank * next_rank if k else 0
    return rows * contraction, rows * entries * math.prod(d_modes) + making


def logits(
    cores: Sequence[Tensor], hidden: Tensor, entries: int, zero: int | None = None, by_table: bool | None = None
) -> Tensor:
    """h Wᵀ (N, V) of hidden vectors h (N, D), in their type, or that of autocast.

    They are contracted with one core after another, or multiplied with parts of W, each the v_2 ... v_K entries with
    one first digit, which the backward pass computes again.

    Args:
        zero: an entry whose row of W counts as zero; it gets no gradient.
        by_table: the order; by default that of fewer multiply-adds.
    """
    if by_table is None:
        shapes: list[Any] = [tuple(core.shape) for core in cores]
        contraction, table = logits_multiply_adds(shapes, entries, len(hidden))
        by_table = table <= contraction or not len(hidden)
    if torch.is_autocast_enabled(hidden.device.type) and hidden.dtype != torch.float64:
        hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
    return _Logits.apply(_table_part if by_table else _contraction, entries, zero, hidden, *cores)


def _table_part(cores: Sequence[Tensor], hidden: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Factors (1, R, D) and (1, D, N) of R logits, ``hidden`` (D, N) being one of them."""
    return dense_table(cores, rows).to(hidden.dtype).unsqueeze(0), hidden.unsqueeze(0)


def _contraction(cores: Sequence[Tensor], hidden: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """The same by contraction: (H, v_K, r d_K) and (H, r d_K, N) of R <= H v_K logits, H = v_1 ... v_(K-1)."""
    matrices = [core.to(hidden.dtype).permute(1, 3, 0, 2).flatten(2).flatten(0, 1) for core in cores]
    product, heads = hidden.unsqueeze(0), 1
    for core, matrix in zip(cores[:-1], matrices[:-1], strict=True):
        product = torch.bmm(matrix.expand(heads, -1, -1), product.reshape(heads, matrix.size(1), -1))
        heads *= core.size(1)  # N stays the last axis, so that no product has to be copied
    return matrices[-1].expand(heads, -1, -1), product.reshape(heads, matrices[-1].size(1), -1)


class _Logits(torch.autograd.Function):
    """Of each part only the last product has a gradient by hand, so that it is not computed again."""

    @staticmethod
    def forward(ctx: Any, factors: Factors, entries: int, zero: int | None, hidden: Tensor, *cores: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, *cores)
        ctx.factors, ctx.zero = factors, zero
        made, turned = hidden.new_empty(len(hidden), entries), hidden.t().contiguous()
        with torch.autocast(hidden.device.type, enabled=False):
            for columns, own in _parts(made, cores):
                left, right = factors(own, turned, columns.size(1))
                product = torch.bmm(right.mT, left.mT).transpose(0, 1).flatten(1)
                columns.copy_(product[:, : columns.size(1)])
        if zero is not None:
            made[:, zero] = 0
        return made

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, *cores = ctx.saved_tensors
        inputs = [each.detach().requires_grad_() for each in (hidden.t().contiguous(), *cores)]
        sums = [torch.zeros_like(each, dtype=torch.promote_types(each.dtype, torch.float32)) for each in inputs]
        start = 0
        with torch.enable_grad(), torch.autocast(gradient.device.type, enabled=False):
            for columns, own in _parts(gradient, inputs[1:]):
                width = columns.size(1)
                if ctx.zero is not None and start <= ctx.zero < start + width:
                    columns = columns.index_fill(1, torch.tensor([ctx.zero - start], device=columns.device), 0)
                pair = ctx.factors(own, inputs[0], width)
                slopes = _slopes(columns, *(each.detach() for each in pair))
                for total, each in zip(sums, torch.autograd.grad(pair, inputs, slopes), strict=True):
                    total.add_(each)
                start += width
        of_hidden, *of_cores = (total.to(each.dtype) for total, each in zip(sums, inputs, strict=True))
        return None, None, None, of_hidden.t(), *of_cores


def _slopes(columns: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the factors from that of their product, (N, R); of rows without an entry it is zero."""
    heads, v, _ = left.shape
    slope = F.pad(columns, (0, heads * v - columns.size(1))).unflatten(1, (heads, v)).permute(1, 2, 0)
    return torch.bmm(slope, right.mT), torch.bmm(left.mT, slope)


def _parts(made: Tensor, cores: Sequence[Tensor]) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """For each value of the first digit: its columns of ``made`` (N, V), and the cores at that value."""
    columns = made.split(math.prod(core.size(1) for core in cores[1:]), dim=1)
    return ((part, [cores[0][:, digit : digit + 1], *cores[1:]]) for digit, part in enumerate(columns))


@torch.no_grad()
def tensor_train_svd(table: Tensor, v_modes: Sequence[int], d_modes: Sequence[int], rank: int) -> list[Tensor]:
    """Cores that come close to a table: TT-SVD (Oseledets, 2011), in float64; returned in the type of the table.

    The squared error is the sum of the squared singular values that are truncated at each of the K - 1 cuts, at most
    K - 1 times that of the best cores of this rank. All cores get the same root mean square, as in a new layer.

    Args:
        table: (V, D), floating; further rows are zero.
    """
    count = len(v_modes)
    padded = F.pad(table.double(), (0, 0, 0, math.prod(v_modes) - len(table))).view(*v_modes, *d_modes)
    rest = padded.permute([axis for k in range(count) for axis in (k, count + k)])
    cores = []
    shapes = tt_shapes(v_modes, d_modes, rank)
    for shape in shapes[:-1]:
        left, right = truncated_svd(rest.reshape(math.prod(shape[:3]), -1), shape[3])
        left, upper = torch.linalg.qr(left)  # what later cuts miss is missed by the whole then, no more
        cores.append(left.view(shape))
        rest = upper @ right
    cores.append(rest.reshape(shapes[-1]))
    sizes = torch.stack([core.square().mean().sqrt() for core in cores])
    if sizes.prod() > 0:
        cores = [core * (sizes.log().mean().exp() / size) for core, size in zip(cores, sizes, strict=True)]
    return [core.to(table.dtype) for core in cores]
