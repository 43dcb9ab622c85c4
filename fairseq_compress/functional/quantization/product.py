r"""Product quantization: the blocks of a matrix as small integers that point into shared codebooks.

A matrix (R, C) is cut into blocks of d neighbours in a row, R · C / d vectors x. One codebook of K centroids serves all
of them (arXiv:1907.05686; iPQ, arXiv:2004.07320), or the centroids of M codebooks are added:

    x̂_i = Σ_m C_m[a_im]        minimizing Σ_i ‖x_i - x̂_i‖²

So a weight takes M · log2(K) / d bits, besides the codebooks at 16 bits a number. The algorithms:

* ``kmeans``: one codebook, by k-means on all blocks; each block is assigned to its exactly nearest centroid.
* ``opq``: one codebook and a rotation of parts of G columns (:func:`learn_rotation`; Ge et al., CVPR 2013), which is
  stored too. Never a larger error than ``kmeans``.
* ``residual``: :func:`residual_quantize` (RQ), each codebook is k-means of the residuals of the codebooks before it.
* ``lsq``: :func:`local_search_quantize`, codebooks fitted together. Never a larger error than ``residual``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_compress.functional.quantization.additive import local_search_quantize, residual_quantize
from fairseq_compress.functional.quantization.clustering import distinct, k_means, nearest
from fairseq_compress.functional.quantization.codes import Codes, check_matrix, make_codes, scaled
from fairseq_compress.functional.quantization.rotation import default_rotation_size, learn_rotation, rotate

METHODS = ("kmeans", "opq", "residual", "lsq")
ADDITIVE = ("residual", "lsq")
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
    """Quantize a matrix in blocks by one of the algorithms above.

    A matrix of no more than K different blocks is represented exactly. The same seed gives the same result: with
    kmeans and residual on any number of threads, with opq and lsq up to the rounding of linear algebra.

    Args:
        weight: (R, C), floating, on any device; computed in float32 on the CPU.
        block: d, which divides C.
        centroids: K of each codebook, in [2, 65536] and at most the number of blocks; a power of two with residual and
            lsq, and at most 4,096 in all codebooks of lsq.
        method: one of ``METHODS``.
        codebooks: M of residual and lsq, 2 by default; 1 of the others.
        iterations: rounds of k-means for each codebook, then of learning a rotation (opq) or fitting (lsq).
        seed: of everything random.
        rotation_size: G of opq, a multiple of d that divides C; by default :func:`default_rotation_size`.

    Returns:
        Codes on the CPU with centroids in full precision (:func:`round_centroids` rounds them).
    """
    check_matrix(weight, block)
    shape, blocks = (weight.size(0), weight.size(1)), weight.numel() // block
    found = product_problems(method, centroids, codebooks, blocks)
    size = default_rotation_size(*shape, block) if rotation_size is None else rotation_size
    if iterations < 1:
        found.append(f"iterations: must be in [1, inf), got {iterations}")
    if rotation_size is not None and method != "opq":
        found.append(f"rotation_size: requires the method opq, got {size} with {method}")
    elif size < 1 or size % block or shape[1] % size:
        found.append(f"rotation_size: must be a multiple of {block} that divides {shape[1]} columns, got {size}")
    if found:
        raise ValueError("; ".join(found))

    count = codebook_count(method, codebooks)
    matrix, unit = scaled(weight)
    points, rotation = matrix.view(-1, block), None
    few = distinct(points, centroids)
    if few is not None:
        books, assignments = _exact(points, few, centroids, count)
    elif method in ADDITIVE:
        fit = residual_quantize if method == "residual" else local_search_quantize
        books, assignments = fit(points, count, centroids, iterations, seed)
    else:
        codebook = k_means(points, centroids, iterations, seed)
        if method == "opq":
            rotation, codebook = learn_rotation(matrix, codebook, size, iterations, seed)
            points = rotate(matrix, rotation).view(-1, block)
        books, assignments = codebook[None], nearest(points, codebook)[:, None]
    return make_codes((books.double() * unit).float(), assignments, shape, rotation)


def codebook_count(method: str, codebooks: int | None = None) -> int:
    """M: 2 by default of residual and lsq, 1 of the others."""
    return codebooks or (2 if method in ADDITIVE else 1)


def product_problems(method: str, centroids: int, codebooks: int | None, blocks: int | None = None) -> list[str]:
    """Broken rules between the arguments of :func:`product_quantize`; of the number of blocks where it is known."""
    if method not in METHODS:
        return [f"method: must be one of {', '.join(METHODS)}, got {method!r}"]
    found, additive = [], method in ADDITIVE
    if codebooks is not None and (codebooks < 1 or (codebooks > 1 and not additive)):
        found.append(f"codebooks: must be {'at least ' if additive else ''}1 with {method}, got {codebooks}")
    if not 2 <= centroids <= MOST_CENTROIDS:
        found.append(f"centroids: must be in [2, {MOST_CENTROIDS}], got {centroids}")
    elif blocks is not None and centroids > blocks:
        found.append(f"centroids: must be at most the {blocks:,} blocks of the matrix, got {centroids}")
    elif additive and centroids & (centroids - 1):
        found.append(f"centroids: must be a power of two with {method}, got {centroids}")
    elif method == "lsq" and codebook_count(method, codebooks) * centroids > MOST_FITTED:
        count = codebook_count(method, codebooks)
        found.append(f"centroids: must be at most {MOST_FITTED} in all with lsq, got {count} x {centroids}")
    return found


def _exact(points: Tensor, few: Tensor, centroids: int, codebooks: int) -> tuple[Tensor, Tensor]:
    """No more than K different points, which become centroids; further codebooks are zero."""
    codebook = torch.cat([few, few[-1:].expand(centroids - len(few), -1)])
    books = torch.cat([codebook[None], torch.zeros(codebooks - 1, *codebook.shape)])
    return books, F.pad(nearest(points, codebook)[:, None], (0, codebooks - 1))
