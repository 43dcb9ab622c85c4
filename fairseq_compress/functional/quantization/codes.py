"""Matrices quantized to codebooks and assignments: reconstructed, reassigned, rounded for storage."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fairseq_compress.functional.quantization.additive import decode, local_search
from fairseq_compress.functional.quantization.clustering import nearest
from fairseq_compress.functional.quantization.linear import LinearScheme, dequantize, inverse_scales, quantize
from fairseq_compress.functional.quantization.rotation import rotate, rotate_back

_INT8 = LinearScheme(8, "tensor")


class Codes(NamedTuple):
    """A quantized matrix (R, C): each block of d neighbours in a row is a sum of M centroids."""

    centroids: Tensor
    """(M, K, d), float32"""
    assignments: Tensor
    """(R, C / d, M): uint8 up to 256 centroids, else int32."""
    rotation: Tensor | None = None
    """(G, G), float32: multiplied to each part of G columns before quantization."""

    @property
    def shape(self) -> tuple[int, int]:
        rows, blocks, _ = self.assignments.shape
        return rows, blocks * self.centroids.size(2)


class Int8Centroids(NamedTuple):
    """Centroids as they are stored in 8 bits."""

    values: Tensor
    """(M, K, d), int8, from -127 to 127."""
    inverse_scale: Tensor
    """Scalar, float32: 1 / scale = 127 / max |c|."""

    def dequantize(self) -> Tensor:
        """The centroids ``values`` · scale in float32."""
        return dequantize(self.values.flatten(0, 1), self.inverse_scale, _INT8).view(self.values.shape)


def make_codes(centroids: Tensor, assignments: Tensor, shape: tuple[int, int], rotation: Tensor | None = None) -> Codes:
    """Codes of a matrix (R, C) from codebooks (M, K, d) and int64 assignments (R · C / d, M)."""
    dtype = torch.uint8 if centroids.size(1) <= 256 else torch.int32
    blocks = shape[1] // centroids.size(2)
    return Codes(centroids, assignments.to(dtype).view(shape[0], blocks, len(centroids)), rotation)


def reconstruct(codes: Codes) -> Tensor:
    """The matrix (R, C) in float32, differentiable with respect to the centroids."""
    matrix = decode(codes.centroids, codes.assignments.flatten(0, 1)).view(codes.shape)
    return matrix if codes.rotation is None else rotate_back(matrix, codes.rotation)


def assign(weight: Tensor, codes: Codes) -> Codes:
    """The same centroids and rotation with each block of ``weight`` reassigned.

    With one codebook to the exactly nearest centroid; with several by :func:`local_search` from the present
    assignments, which never increases the error. The rotation is taken as orthogonal.
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
    """Codes with centroids (and rotation) rounded to what is stored, as float32, and the weight reassigned.

    Centroids are stored in ``dtype``, float16 or int8 (:func:`int8_centroids`), a rotation in float16.
    """
    if dtype == torch.int8:
        centroids = int8_centroids(codes.centroids).dequantize()
    else:
        centroids = codes.centroids.detach().to(dtype).float()
    if not centroids.isfinite().all():
        raise ValueError(f"centroids: must be below 65,520 for float16, got {codes.centroids.abs().max().item():g}")
    rotation = None if codes.rotation is None else codes.rotation.half().float()
    return assign(weight, codes._replace(centroids=centroids, rotation=rotation))


def int8_centroids(centroids: Tensor) -> Int8Centroids:
    """Centroids (M, K, d) in symmetric int8 with one scale, max |c| / 127 (iPQ + int8, arXiv:2004.07320)."""
    matrix = centroids.detach().flatten(0, 1)
    inverse = inverse_scales(matrix, _INT8)
    return Int8Centroids(quantize(matrix, inverse, _INT8).view(centroids.shape), inverse.view(()))


def check_matrix(weight: Tensor, block: int) -> None:
    """Raise ``ValueError`` unless ``weight`` is a matrix of finite numbers in whole blocks."""
    if weight.dim() != 2 or not weight.is_floating_point() or weight.numel() == 0:
        raise ValueError(f"weight: must be a matrix of floating type, got {tuple(weight.shape)} of {weight.dtype}")
    if block < 1 or weight.size(1) % block:
        raise ValueError(f"block: must divide the {weight.size(1)} columns, got {block}")
    wrong = weight.numel() - int(weight.float().isfinite().sum())
    if wrong:
        raise ValueError(f"weight: must be finite in float32, got {wrong} entries that are not")


def scaled(weight: Tensor) -> tuple[Tensor, float]:
    """The matrix in float32 on the CPU, divided by a power of two so that all entries are below one, and that power.

    Squares then neither vanish nor overflow; only entries below 1e-38 of the largest are rounded.
    """
    matrix = weight.detach().cpu().float().double()
    unit = math.ldexp(1.0, math.frexp(float(matrix.abs().max()))[1])
    return (matrix / unit).float().contiguous(), unit
