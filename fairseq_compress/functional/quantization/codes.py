"""Quantized matrices as codebooks and assignments: back to a matrix, assigned anew, rounded, and their size."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fairseq_compress.functional.quantization.additive import decode, local_search
from fairseq_compress.functional.quantization.bit_packing import packed_bytes
from fairseq_compress.functional.quantization.clustering import nearest
from fairseq_compress.functional.quantization.linear import Linear, dequantize, quantize, weight_scales
from fairseq_compress.functional.quantization.rotation import rotate, rotate_back

_INT8 = Linear(8, "tensor")


class Codes(NamedTuple):
    """A quantized matrix (R, C): each block of d neighbours in a row is a sum of M centroids."""

    centroids: Tensor
    """(M, K, d), float32"""
    assignments: Tensor
    """(R, C / d, M): uint8 up to 256 centroids, else int32."""
    rotation: Tensor | None = None
    """(G, G), float32: the rows were cut into parts of G columns and multiplied by it before they were quantized."""

    @property
    def shape(self) -> tuple[int, int]:
        """(R, C)"""
        rows, blocks, _ = self.assignments.shape
        return rows, blocks * self.centroids.size(2)


class Int8Centroids(NamedTuple):
    """Centroids as they are stored in 8 bits."""

    values: Tensor
    """(M, K, d), int8, from -127 to 127."""
    scale: Tensor
    """Scalar, float32: S = 127 / max |c|."""

    def dequantize(self) -> Tensor:
        """The centroids ``values / scale`` in float32."""
        return dequantize(self.values.flatten(0, 1), self.scale, _INT8).view(self.values.shape)


def make_codes(centroids: Tensor, assignments: Tensor, shape: tuple[int, int], rotation: Tensor | None = None) -> Codes:
    """Codes of a matrix (R, C) from codebooks (M, K, d) and int64 assignments (R · C / d, M)."""
    dtype = torch.uint8 if centroids.size(1) <= 256 else torch.int32
    blocks = shape[1] // centroids.size(2)
    return Codes(centroids, assignments.to(dtype).view(shape[0], blocks, len(centroids)), rotation)


def reconstruct(codes: Codes) -> Tensor:
    """The matrix (R, C) that ``codes`` stand for, in float32.

    Differentiable with respect to the centroids: the gradient of a centroid is the sum over the blocks that it is
    assigned to.
    """
    matrix = decode(codes.centroids, codes.assignments.flatten(0, 1)).view(codes.shape)
    return matrix if codes.rotation is None else rotate_back(matrix, codes.rotation)


def assign(weight: Tensor, codes: Codes) -> Codes:
    """The same centroids and rotation, each block of ``weight`` assigned anew.

    To the exactly nearest centroid of one codebook; with several, by :func:`local_search` from the present assignments
    on, which never gives a larger error. A rotation counts as orthogonal.

    Raises:
        ValueError: the weight has not the shape of the codes, or is not finite.
    """
    block = codes.centroids.size(2)
    check_matrix(weight, block)
    if tuple(weight.shape) != codes.shape:
        raise ValueError(f"weight: must be {codes.shape} as its codes, got {tuple(weight.shape)}")
    matrix, unit = scaled(weight)
    points = (matrix if codes.rotation is None else rotate(matrix, codes.rotation.cpu())).view(-1, block)
    centroids = (codes.centroids.detach().cpu().double() / unit).float()
    if len(centroids) == 1:
        assignments = nearest(points, centroids[0])
    else:
        assignments = local_search(points, centroids, codes.assignments.flatten(0, 1).cpu().long())
    return make_codes(codes.centroids, assignments, codes.shape, codes.rotation)


def round_centroids(weight: Tensor, codes: Codes, dtype: torch.dtype = torch.float16) -> Codes:
    """Codes with centroids (and rotation) of values that are stored without loss, and the weight assigned to these.

    The values are those of float16 or of :func:`int8_centroids`, given as float32; of a rotation, always float16.

    Raises:
        ValueError: as :func:`assign`; ``dtype`` is another one; a centroid is too large for float16.
    """
    if dtype == torch.int8:
        centroids = int8_centroids(codes.centroids).dequantize()
    elif dtype == torch.float16:
        centroids = codes.centroids.detach().half().float()
    else:
        raise ValueError(f"dtype: must be torch.float16 or torch.int8, got {dtype}")
    if not centroids.isfinite().all():
        raise ValueError(f"centroids: must be below 65,520 for float16, got {codes.centroids.abs().max().item():g}")
    rotation = None if codes.rotation is None else codes.rotation.half().float()
    return assign(weight, codes._replace(centroids=centroids, rotation=rotation))


def int8_centroids(centroids: Tensor) -> Int8Centroids:
    """Centroids (M, K, d) in symmetric int8 (iPQ + int8, arXiv:2004.07320): round(c · S), S = 127 / max |c| of all."""
    matrix = centroids.detach().flatten(0, 1)
    scale = weight_scales(matrix, _INT8)
    return Int8Centroids(quantize(matrix, scale, _INT8).view(centroids.shape), scale.view(()))


def size_bytes(codes: Codes, dtype: torch.dtype = torch.float16, packed: bool = False) -> int:
    """Bytes in which ``codes`` are stored: assignments, centroids and rotation.

    Args:
        dtype: of the centroids, torch.float16 or torch.int8; the latter come with a scale of 4 bytes. A rotation is in
            float16.
        packed: assignments in ceil(log2 K) bits without gaps; else in one byte each, or in two above 256 centroids.
    """
    bits = (codes.centroids.size(1) - 1).bit_length()
    if not packed:
        bits = 8 if bits <= 8 else 16
    centroids = codes.centroids.numel() * dtype.itemsize + (4 if dtype == torch.int8 else 0)
    rotation = 0 if codes.rotation is None else 2 * codes.rotation.numel()
    return packed_bytes(codes.assignments.numel(), bits) + centroids + rotation


def check_matrix(weight: Tensor, block: int) -> None:
    """
    Raises:
        ValueError: ``weight`` is no matrix of finite numbers, or cannot be cut into blocks.
    """
    if weight.dim() != 2 or not weight.is_floating_point() or weight.numel() == 0:
        raise ValueError(f"weight: must be a matrix of floating type, got {tuple(weight.shape)} of {weight.dtype}")
    if block < 1 or weight.size(1) % block:
        raise ValueError(f"block: must divide the {weight.size(1)} columns, got {block}")
    wrong = weight.numel() - int(weight.float().isfinite().sum())
    if wrong:
        raise ValueError(f"weight: must be finite in float32, got {wrong} entries that are not")


def scaled(weight: Tensor) -> tuple[Tensor, float]:
    """The matrix in float32 on the CPU, divided by a power of two, and that power: squares neither vanish nor overflow.

    All entries are then below one. Nothing is rounded, except what is less than 1e-38 of the largest entry.
    """
    matrix = weight.detach().cpu().float().double()
    unit = math.ldexp(1.0, math.frexp(float(matrix.abs().max()))[1])
    return (matrix / unit).float().contiguous(), unit
