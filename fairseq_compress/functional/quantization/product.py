r"""Product quantization: a matrix as small integers that point into few shared vectors.

A matrix (R, C) is cut into blocks of d neighbours in a row, R · C / d vectors x. One codebook of K centroids serves all
of them (arXiv:1907.05686; iPQ, arXiv:2004.07320), or M codebooks of which the centroids are added:

    x̂_i = Σ_m C_m[a_im]        minimizing Σ_i ‖x_i - x̂_i‖²

So a weight takes M · log2(K) / d bits, beside the codebooks, 16 bits a number. The methods:

* ``kmeans``: one codebook, by k-means on all blocks; each block is assigned to its exactly nearest centroid.
* ``opq``: one codebook and a rotation, learnt in turns (:func:`learn_rotation`; Ge et al., CVPR 2013). Each row is cut
  into parts of G columns, every part is multiplied by the same orthogonal matrix (G, G), and the result is cut into
  blocks. The rotation is stored too, so it cannot be of whole rows: that of a matrix 512 x 2048 would take eight times
  the room of the assignments. One within a block would change nothing. The error is never above that of ``kmeans``.
* ``residual``: :func:`residual_quantize` (RQ), each codebook is k-means of what the codebooks before leave over.
* ``lsq``: :func:`local_search_quantize`, codebooks fitted together; the error is never above that of ``residual``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_compress.functional.quantization.additive import local_search_quantize, residual_quantize
from fairseq_compress.functional.quantization.clustering import distinct, k_means, nearest
from fairseq_compress.functional.quantization.codes import Codes, check_matrix, make_codes, scaled
from fairseq_compress.functional.quantization.rotation import default_rotation_size, learn_rotation, rotate

METHODS = ("kmeans", "opq", "residual", "lsq")
MOST_CENTROIDS = 2**16
MOST_FITTED = 2**12  # centroids in all codebooks of lsq: their matrix of pairs then takes 128 MiB


def product_quantize(
    weight: Tensor,
    block: int,
    centroids: int,
    method: str = "kmeans",
    *,
    codebooks: int | None = None,
    iterations: int = 30,
    seed: int = 1,
    rotation_size: int | None = None,
) -> Codes:
    """Quantize a matrix in blocks by one of the methods above.

    A matrix of no more than K different blocks is represented exactly. The same seed gives the same result: with
    kmeans and residual on any number of threads, with opq and lsq up to the rounding of linear algebra.

    Args:
        weight: (R, C), floating, on any device; computed in float32 on the CPU.
        block: d, numbers in a block; it divides C.
        centroids: K, in each codebook, from 2 to 65,536 and at most as many as there are blocks; a power of two for
            residual and lsq, and at most 4,096 in all codebooks together for lsq.
        method: one of ``METHODS``.
        codebooks: M of residual and lsq, 2 by default; 1 of the others.
        iterations: rounds of k-means for each codebook; also the rounds of learning a rotation (opq) or of fitting all
            codebooks (lsq) that follow.
        seed: of all that is drawn at random.
        rotation_size: G of opq, a multiple of d that divides C; by default :func:`default_rotation_size`.

    Returns:
        Codes on the CPU. Their centroids are not rounded: for what will be stored call :func:`round_centroids`.

    Raises:
        ValueError: an argument is not as said above, or a weight is not finite.
    """
    check_matrix(weight, block)
    shape = (weight.size(0), weight.size(1))
    count = _codebooks(method, codebooks)
    _check_numbers(method, centroids, count, iterations, weight.numel() // block)
    size = _rotation_size(method, rotation_size, shape, block)

    matrix, unit = scaled(weight)
    points, rotation = matrix.view(-1, block), None
    few = distinct(points, centroids)
    if few is not None:
        books, assignments = _exact(points, few, centroids, count)
    elif method in ("kmeans", "opq"):
        codebook = k_means(points, centroids, iterations, seed)
        if method == "opq":
            rotation, codebook = learn_rotation(matrix, codebook, size, iterations, seed)
            points = rotate(matrix, rotation).view(-1, block)
        books, assignments = codebook[None], nearest(points, codebook)[:, None]
    else:
        fit = residual_quantize if method == "residual" else local_search_quantize
        books, assignments = fit(points, count, centroids, iterations, seed)
    return make_codes((books.double() * unit).float(), assignments, shape, rotation)


def _exact(points: Tensor, few: Tensor, centroids: int, codebooks: int) -> tuple[Tensor, Tensor]:
    """Codebooks and assignments of no more than K different points: they are centroids; further codebooks are zero."""
    codebook = torch.cat([few, few[-1:].expand(centroids - len(few), -1)])
    books = torch.cat([codebook[None], torch.zeros(codebooks - 1, *codebook.shape)])
    return books, F.pad(nearest(points, codebook)[:, None], (0, codebooks - 1))


def _codebooks(method: str, codebooks: int | None) -> int:
    if method not in METHODS:
        raise ValueError(f"method: must be one of {', '.join(METHODS)}, got {method!r}")
    additive = method in ("residual", "lsq")
    if codebooks is None:
        return 2 if additive else 1
    if codebooks < 1 or (codebooks > 1 and not additive):
        raise ValueError(f"codebooks: must be {'at least ' if additive else ''}1 with {method}, got {codebooks}")
    return codebooks


def _check_numbers(method: str, centroids: int, codebooks: int, iterations: int, blocks: int) -> None:
    if not 2 <= centroids <= MOST_CENTROIDS:
        raise ValueError(f"centroids: must be from 2 to {MOST_CENTROIDS}, got {centroids}")
    if centroids > blocks:
        raise ValueError(f"centroids: must be at most the {blocks} blocks of the matrix, got {centroids}")
    if method in ("residual", "lsq") and centroids & (centroids - 1):
        raise ValueError(f"centroids: must be a power of two with {method}, got {centroids}")
    if method == "lsq" and codebooks * centroids > MOST_FITTED:
        raise ValueError(f"centroids: must be at most {MOST_FITTED} in all with lsq, got {codebooks} x {centroids}")
    if iterations < 1:
        raise ValueError(f"iterations: must be at least 1, got {iterations}")


def _rotation_size(method: str, size: int | None, shape: tuple[int, int], block: int) -> int:
    if size is None:
        return default_rotation_size(*shape, block)
    if method != "opq":
        raise ValueError(f"rotation_size: requires the method opq, got {size} with {method}")
    if size < 1 or size % block or shape[1] % size:
        raise ValueError(f"rotation_size: must be a multiple of {block} that divides {shape[1]} columns, got {size}")
    return size
