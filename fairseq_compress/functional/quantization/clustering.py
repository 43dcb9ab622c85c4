"""k-means with faiss, and the nearest centroid of each point: fast, or exact."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

NEAREST_ELEMENTS = 2**19  # distances in float64 at a time, which fit into the processor's cache


def load_faiss() -> Any:
    """faiss, imported when it is needed first: every training imports this file."""
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # it logs which instructions it uses
    import faiss

    return faiss


def k_means(points: Tensor, clusters: int, iterations: int, seed: int, start: Tensor | None = None) -> Tensor:
    r"""Centroids that locally minimize :math:`\sum_i \min_k \|x_i - c_k\|^2` (Lloyd's algorithm).

    All points are used (faiss by default samples 256 a cluster); an empty cluster gets half of a large one. The result
    depends on the seed, not on the number of threads. Initial centroids are K different points.

    Args:
        points: (N, d), float32, finite, with N >= K.
        clusters: K.
        start: (K, d), initial centroids in place of random points.
    """
    if start is None:
        start = _draw(points, clusters, seed)
    rounds: Any = load_faiss().Kmeans(
        points.size(1),
        clusters,
        niter=iterations,
        min_points_per_centroid=1,  # no warning about a small matrix
        max_points_per_centroid=-(-len(points) // clusters),  # no sampling
        check_input_data_for_NaNs=False,
    )
    with matrix_products():
        rounds.train(points.contiguous().numpy(), init_centroids=start.contiguous().numpy())
    return torch.from_numpy(rounds.centroids.copy())


def nearest(points: Tensor, centroids: Tensor) -> Tensor:
    """The index (N,) int64 of the nearest of ``centroids`` (K, d) to each of ``points`` (N, d): in float64, exact.

    Of equally near centroids the first.
    """
    if points.size(1) == 1:
        return _nearest_number(points.flatten(), centroids.flatten())
    points, centroids = points.double(), centroids.double()
    half_norms = centroids.square().sum(dim=1) / 2  # ‖x - c‖² / 2 without ‖x‖² / 2, which all centroids share
    found = [
        torch.addmm(half_norms, chunk, centroids.t(), alpha=-1).argmin(dim=1)
        for chunk in points.split(max(1, NEAREST_ELEMENTS // len(centroids)))
    ]
    return torch.cat(found)


def search(points: Tensor, centroids: Tensor) -> Tensor:
    """As :func:`nearest`, several times faster: in float32, not exact between almost equal distances."""
    index = load_faiss().IndexFlatL2(points.size(1))
    index.add(centroids.contiguous().numpy())
    with matrix_products():
        return torch.from_numpy(index.search(points.contiguous().numpy(), 1)[1][:, 0])


def distinct(points: Tensor, most: int) -> Tensor | None:
    """The different ``points`` (N, d), sorted; None where there are more than ``most``."""
    sample = points[:: max(1, len(points) // (4 * most))]  # decides for most matrices
    if len(sample) < len(points) and len(torch.unique(sample, dim=0)) > most:
        return None
    found = torch.unique(points, dim=0)
    return found if len(found) <= most else None


def _draw(points: Tensor, clusters: int, seed: int) -> Tensor:
    """K random points, different from each other where there are as many."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(points), generator=generator)
    found = torch.unique(points[order[: 4 * clusters]], dim=0)
    if len(found) < clusters:
        found = torch.unique(points, dim=0)
    if len(found) < clusters:
        return points[order[:clusters]]
    return found[torch.randperm(len(found), generator=generator)[:clusters]]


def _nearest_number(values: Tensor, centroids: Tensor) -> Tensor:
    """:func:`nearest` in one dimension: by the midpoints between neighbours, exact in float64."""
    ordered, order = centroids.double().sort(stable=True)
    first = torch.searchsorted(ordered, ordered)  # of equal centroids, the one of the smallest index
    found = torch.searchsorted((ordered[1:] + ordered[:-1]) / 2, values.double())
    return order[first[found]]


@contextmanager
def matrix_products() -> Iterator[None]:
    """Let faiss compute distances by matrix products also of few points (ten times faster); restores the setting."""
    settings = load_faiss().cvar
    threshold = settings.distance_compute_blas_threshold
    settings.distance_compute_blas_threshold = 1
    try:
        yield
    finally:
        settings.distance_compute_blas_threshold = threshold
