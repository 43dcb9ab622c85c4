r"""Additive codebooks: a vector is the sum of one centroid of each of M codebooks, :math:`x \approx \sum_m C_m[a_m]`.

Shapes: ``points`` (N, d) float32; codebooks (M, K, d) float32, K a power of two; assignments (N, M) int64.
"""

from functools import reduce

import torch
from torch import Tensor

from fairseq_compress.functional.quantization.clustering import k_means, load_faiss, matrix_products, nearest, search

BEAM = 5  # partial sums kept for each point, faiss's default
PERTURBATIONS = 4  # of all assignments, after each update of the codebooks
RIDGE = 1e-5  # of the least squares: a constant could move from one codebook to another without it
MEMORY = 2**28  # bytes that faiss may use for distances; its default is 5 GiB
SWEEPS = 10  # rarely more than three are needed


def residual_quantize(
    points: Tensor, codebooks: int, centroids: int, iterations: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Residual quantization (RQ): each codebook is k-means of the residuals of the codebooks before it.

    Points are encoded by beam search with ``BEAM`` partial sums (Chen et al., Sensors 2010; Babenko and Lempitsky, CVPR
    2014; ``faiss.ResidualQuantizer``). With one codebook it is k-means. Returns codebooks and assignments.
    """
    if codebooks == 1:
        book = k_means(points, centroids, iterations, seed)
        return book[None], nearest(points, book)[:, None]
    faiss = load_faiss()
    quantizer = faiss.ResidualQuantizer(points.size(1), codebooks, _bits(centroids))
    # Codebooks fit the residuals of the best of the beam: lower error than faiss's default, the whole beam, and faster.
    quantizer.train_type = faiss.ResidualQuantizer.Train_top_beam | faiss.ResidualQuantizer.Skip_codebook_tables
    quantizer.max_mem_distances = MEMORY
    quantizer.max_beam_size = min(BEAM, centroids**codebooks)  # faiss 1.15 gives wrong codes for fewer sums than that
    quantizer.cp.niter, quantizer.cp.seed = iterations, seed
    quantizer.cp.min_points_per_centroid = 1
    quantizer.cp.max_points_per_centroid = len(points)  # no sampling
    vectors = points.contiguous().numpy()
    with matrix_products():
        quantizer.train(vectors)
        packed = quantizer.compute_codes(vectors)
    books = faiss.vector_to_array(quantizer.codebooks).reshape(codebooks, centroids, points.size(1))
    assignments = faiss.unpack_bitstrings(packed, codebooks, _bits(centroids))
    return torch.from_numpy(books), torch.from_numpy(assignments.astype("int64"))


def local_search_quantize(
    points: Tensor, codebooks: int, centroids: int, iterations: int, seed: int
) -> tuple[Tensor, Tensor]:
    r"""Local search quantization (LSQ; Martinez et al., ECCV 2016): all codebooks are fitted together.

    Starts at residual quantization and alternates: codebooks minimizing :math:`\sum_i \|x_i - \sum_m C_m[a_{im}]\|^2`
    by least squares; then, ``PERTURBATIONS`` times, a random assignment of each point in one codebook and a sweep of
    :func:`local_search` that starts at the next, kept for each point that came nearer. Never a larger error than
    residual quantization. (``faiss.LocalSearchQuantizer`` starts at random assignments; on trained matrices of a
    translation model it took longer, to 1.3 to 4.4 times this error.) Returns codebooks and assignments.
    """
    books, assignments = start = residual_quantize(points, codebooks, centroids, iterations, seed)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(iterations):
        books = least_squares(points, assignments, centroids)
        for _ in range(PERTURBATIONS):
            moved, last = assignments.clone(), int(torch.randint(codebooks, (), generator=generator))
            moved[:, last] = torch.randint(centroids, (len(points),), generator=generator)
            _sweep(points, books, moved, last + 1)
            nearer = point_errors(points, books, moved) < point_errors(points, books, assignments)
            assignments = torch.where(nearer[:, None], moved, assignments)
    if point_errors(points, *start).sum() < point_errors(points, books, assignments).sum():
        return start
    return books, assignments


def local_search(points: Tensor, codebooks: Tensor, assignments: Tensor) -> Tensor:
    """Assignments that no change in a single codebook improves, from given ones (iterated conditional modes).

    In each sweep a point takes, in each codebook, the centroid nearest to its residual from the other codebooks.
    """
    best = assignments
    for _ in range(SWEEPS):
        moved = best.clone()
        _sweep(points, codebooks, moved, 0)
        nearer = point_errors(points, codebooks, moved) < point_errors(points, codebooks, best)
        if not nearer.any():
            break
        best = torch.where(nearer[:, None], moved, best)
    return best


def least_squares(points: Tensor, assignments: Tensor, centroids: int) -> Tensor:
    """The codebooks C with the least squared error for ``assignments``: (BᵀB + RIDGE) C = BᵀX.

    B (N, M K) are the assignments in one-hot form. A centroid without a point is zero.
    """
    size = assignments.size(1) * centroids
    columns = assignments + torch.arange(assignments.size(1)) * centroids  # (N, M), within the M K
    gram = torch.zeros(size * size, dtype=torch.float64)
    sums = torch.zeros((size, points.size(1)), dtype=torch.float64)
    for column in columns.unbind(dim=1):
        gram += torch.bincount((column[:, None] * size + columns).flatten(), minlength=size * size)
        sums.index_add_(0, column, points.double())
    gram = gram.view(size, size) + RIDGE * torch.eye(size, dtype=torch.float64)
    return torch.linalg.solve(gram, sums).float().view(-1, centroids, points.size(1))


def decode(codebooks: Tensor, assignments: Tensor) -> Tensor:
    """The sums (N, d), differentiable with respect to the codebooks."""
    indices = assignments.long().unbind(dim=1)
    return reduce(torch.add, (book[index] for book, index in zip(codebooks, indices, strict=True)))


def point_errors(points: Tensor, codebooks: Tensor, assignments: Tensor) -> Tensor:
    """The squared error (N,) of each point, in float64."""
    return (points - decode(codebooks, assignments)).double().square().sum(dim=1)


def _sweep(points: Tensor, codebooks: Tensor, assignments: Tensor, first: int) -> None:
    """In place: the nearest centroid in each codebook in turn, from codebook ``first``."""
    count = len(codebooks)
    left = points - decode(codebooks, assignments)
    for number in (number % count for number in range(first, first + count)):
        book = codebooks[number]
        left += book[assignments[:, number]]
        assignments[:, number] = search(left, book)
        left -= book[assignments[:, number]]


def _bits(centroids: int) -> int:
    return centroids.bit_length() - 1
