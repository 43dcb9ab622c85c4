"""The rotation of optimized product quantization (OPQ; Ge et al., CVPR 2013), with one codebook for all blocks."""

import torch
from torch import Tensor

from fairseq_compress.functional.quantization.clustering import k_means, search

STORAGE = 16  # a rotation of the default size takes at most this part of the bytes of the assignments


def default_rotation_size(rows: int, columns: int, block: int) -> int:
    """The largest G whose rotation, 2 G² bytes, is at most 1/16 of the assignments, one byte a block.

    G is a multiple of the block that divides the columns, larger than the block where the row is, since a rotation
    within a block changes nothing. A matrix 512 x 2048 in blocks of 8 has G = 64: 8 KiB.
    """
    sizes = [size for size in range(2 * block, columns + 1, block) if columns % size == 0] or [columns]
    fitting = [size for size in sizes if 2 * size**2 * STORAGE <= rows * columns // block]
    return max(fitting, default=sizes[0])


def learn_rotation(matrix: Tensor, centroids: Tensor, size: int, iterations: int, seed: int) -> tuple[Tensor, Tensor]:
    r"""Rotation Q and centroids that together minimize :math:`\|W Q - \hat{W}\|^2`, W being (N, G) parts of rows.

    Alternates from Q = I: Q = U Vᵀ with Wᵀ Ŵ = U Σ Vᵀ, the best orthogonal matrix for the present Ŵ; then one round of
    k-means on the blocks of W Q.

    Args:
        matrix: (R, C), float32.
        centroids: (K, d), of k-means on the blocks of the matrix.
        size: G.

    Returns:
        The best rotation (G, G) and centroids (K, d), possibly the identity and the given centroids.
    """
    clusters, block = centroids.shape
    parts, points = matrix.reshape(-1, size), matrix.reshape(-1, block)
    best = rotation, learnt = torch.eye(size), centroids
    quantized = centroids[search(points, centroids)]
    least = (points - quantized).double().square().sum()
    for _ in range(iterations):
        left, _, right = torch.linalg.svd(parts.double().t() @ quantized.view(-1, size).double())
        rotation = (left @ right).float()
        points = rotate(matrix, rotation).view(-1, block)
        learnt = k_means(points, clusters, 1, seed, start=learnt)
        quantized = learnt[search(points, learnt)]
        error = (points - quantized).double().square().sum()
        if error < least:
            least, best = error, (rotation, learnt)
    return best


def rotate(matrix: Tensor, rotation: Tensor) -> Tensor:
    """The matrix (R, C) with each part of G columns multiplied by the rotation (G, G)."""
    return (matrix.reshape(-1, len(rotation)) @ rotation).view(matrix.shape)


def rotate_back(matrix: Tensor, rotation: Tensor) -> Tensor:
    """The inverse of :func:`rotate`."""
    return rotate(matrix, rotation.t())
