"""Codebooks for single weights: percentiles and k-means, against slow loops and the best possible."""

import itertools

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_compress.functional.quantization.codebooks import kmeans_codebook, lloyd, percentile_codebook
from fairseq_compress.functional.quantization.codes import int8_centroids, reconstruct, round_centroids
from fairseq_compress.functional.quantization.product import product_quantize
from fairseq_compress.weights.centroids import pack_codes

BOTH = [percentile_codebook, kmeans_codebook]
few_examples = settings(max_examples=20, deadline=None)


def squared_error(weight, codes):
    return (weight.double() - reconstruct(codes).double()).square().sum().item()


def matrix(rows, columns, seed=0, tails=1.0):
    """Normal numbers, to the power of ``tails`` in magnitude."""
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    return weight.sign() * weight.abs() ** tails


def entries(codes):
    return codes.centroids.flatten()


def percentiles_by_loop(weight, bits):
    ordered, count = sorted(weight.double().flatten().tolist()), 2**bits
    found = []
    for i in range(count):
        position = (i + 0.5) / count * (len(ordered) - 1)
        low = int(position)
        high = min(low + 1, len(ordered) - 1)
        found.append(ordered[low] + (position - low) * (ordered[high] - ordered[low]))
    return torch.tensor(found)


def nearest_by_loop(weight, codebook):
    """The first of the nearest entries of each weight."""
    return [
        min(range(len(codebook)), key=lambda k: abs(value - codebook[k]))
        for value in weight.double().flatten().tolist()
    ]


def lloyd_by_loop(values, start, rounds):
    current = list(start)
    for _ in range(rounds):
        groups = [[] for _ in current]
        for value in values:
            groups[min(range(len(current)), key=lambda k: abs(value - current[k]))].append(value)
        current = [sum(group) / len(group) for group in groups]
    return current


# --- numbers by hand ---


def test_percentiles_by_hand():
    """Of 0 ... 8, the quantiles 1/8, 3/8, 5/8, 7/8 are at 1, 3, 5, 7; a weight halfway takes the lower one."""
    weight = torch.tensor([[8.0, 1, 2], [3, 4, 0], [6, 7, 5]])
    codes = percentile_codebook(weight, 2)
    assert entries(codes).tolist() == [1, 3, 5, 7]
    assert codes.assignments.squeeze(2).tolist() == [[3, 0, 0], [1, 1, 0], [2, 3, 2]]
    assert squared_error(weight, codes) == 5  # of 8, 2, 4, 0, 6


def test_kmeans_by_hand():
    """0 1 2 | 10 12: the means are 1 and 11. The percentiles, 1 and 10, are further off."""
    weight = torch.tensor([[0.0, 1, 2, 10, 12]])
    codes = kmeans_codebook(weight, 1)
    assert entries(codes).tolist() == [1, 11]
    assert squared_error(weight, codes) == 4
    assert entries(percentile_codebook(weight, 1)).tolist() == [1, 10]


def test_an_empty_entry_goes_where_the_error_is():
    """All weights are nearest to 6; the other entry has none, so those of 6 are split at their mean 6.25."""
    found = lloyd(np.array([0.0, 5, 10, 10]), np.array([6.0, 100]), rounds=1)
    assert found.tolist() == [2.5, 10]


def test_sizes_by_hand():
    """A matrix 6 x 11 in 3 bits: 198 bits are 25 bytes, and 8 entries of 2 bytes."""
    codes = kmeans_codebook(matrix(6, 11), 3)
    assert pack_codes(codes, 16).bytes == 25 + 16
    assert pack_codes(codes, 8).bytes == 25 + 8 + 4


# --- oracles ---


@few_examples
@given(rows=st.integers(1, 6), columns=st.integers(4, 30), bits=st.integers(1, 2), seed=st.integers(0, 99))
def test_percentiles_are_the_loops(rows, columns, bits, seed):
    weight = matrix(rows, columns, seed)
    codes = percentile_codebook(weight, bits)
    torch.testing.assert_close(entries(codes), percentiles_by_loop(weight, bits), atol=1e-6, rtol=0)
    assert codes.assignments.flatten().tolist() == nearest_by_loop(weight, entries(codes).tolist())


@few_examples
@given(bits=st.integers(1, 4), seed=st.integers(0, 99), tails=st.sampled_from([0.5, 1.0, 3.0]))
def test_kmeans_stores_the_nearest_entry(bits, seed, tails):
    weight = matrix(8, 8, seed, tails)
    codes = kmeans_codebook(weight, bits)
    assert codes.assignments.flatten().tolist() == nearest_by_loop(weight, entries(codes).tolist())


def test_lloyd_is_the_loop():
    values = np.sort(matrix(1, 60).numpy()[0])
    start = values[[10, 30, 50]]
    for rounds in (1, 2, 5):
        expected = lloyd_by_loop(values.tolist(), start.tolist(), rounds)
        np.testing.assert_allclose(lloyd(values, start, rounds), expected, atol=1e-6)


@pytest.mark.parametrize("tails", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("bits", [2, 4, 6])
def test_kmeans_is_close_to_the_best(bits, tails):
    """faiss finds the best by dynamic programming, which takes minutes for a large matrix."""
    weight = matrix(40, 50, tails=tails)
    values, best = weight.flatten().numpy(), np.zeros(2**bits, dtype=np.float32)
    faiss.kmeans1d(faiss.swig_ptr(values), len(values), len(best), faiss.swig_ptr(best))
    least = sum(float(np.square(best - value).min()) for value in values)
    found = squared_error(weight, kmeans_codebook(weight, bits))
    assert least * (1 - 1e-4) <= found <= 1.15 * least


# --- what must hold for any matrix ---


@few_examples
@given(bits=st.integers(1, 6), seed=st.integers(0, 999), tails=st.sampled_from([0.3, 1.0, 3.0]), zeros=st.booleans())
def test_kmeans_is_never_worse_than_percentiles(bits, seed, tails, zeros):
    weight = matrix(10, 20, seed, tails)
    weight = weight * (weight > 0.9) if zeros else weight
    kmeans, percentiles = (squared_error(weight, make(weight, bits)) for make in (kmeans_codebook, percentile_codebook))
    assert kmeans <= percentiles


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize("seed", [0, 1])
def test_more_bits_are_better(make, seed):
    weight = matrix(32, 32, seed)
    errors = [squared_error(weight, make(weight, bits)) for bits in range(1, 9)]
    assert all(more < 0.7 * fewer for fewer, more in itertools.pairwise(errors))


@few_examples
@given(make=st.sampled_from(BOTH), rows=st.integers(2, 9), columns=st.integers(2, 9), seed=st.integers(0, 99))
def test_the_order_of_the_weights_does_not_matter(make, rows, columns, seed):
    weight = matrix(rows, columns, seed)
    codes = make(weight, 2)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    permuted = make(weight[order].t(), 2)
    assert torch.equal(permuted.centroids, codes.centroids)
    assert torch.equal(permuted.assignments, codes.assignments[order].transpose(0, 1))
    assert (entries(codes).diff() >= 0).all()


@pytest.mark.parametrize("make", BOTH)
def test_shapes_and_types(make):
    weight = matrix(40, 30)
    for bits, dtype in ((1, torch.uint8), (8, torch.uint8), (9, torch.int32)):
        codes = make(weight.double().requires_grad_(), bits)
        assert codes.centroids.shape == (1, 2**bits, 1)
        assert codes.assignments.shape == (40, 30, 1)
        assert codes.assignments.dtype == dtype
        assert codes.assignments.max() == 2**bits - 1
        assert codes.rotation is None
        assert reconstruct(codes).shape == weight.shape


@few_examples
@given(different=st.integers(1, 16), seed=st.integers(0, 99))
def test_as_many_entries_as_different_weights_are_exact(different, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = matrix(1, different, seed)[0][torch.randint(different, (12, 10), generator=generator)]
    assert torch.equal(reconstruct(kmeans_codebook(weight, 4)), weight)


@pytest.mark.parametrize("value", [0.0, -0.3])
@pytest.mark.parametrize("make", BOTH)
def test_a_constant_matrix_is_exact(make, value):
    weight = torch.full((6, 6), value)
    codes = make(weight, 3)
    assert torch.equal(reconstruct(codes), weight)
    assert codes.assignments.max() == 0  # of equal entries the first
    assert int8_centroids(codes.centroids).dequantize().isfinite().all()


def test_kmeans_of_a_pruned_matrix():
    """Percentiles waste nearly all of their entries on the zeros."""
    weight = matrix(64, 64)
    weight = weight * (torch.rand(64, 64, generator=torch.Generator().manual_seed(1)) < 0.05)
    kmeans, percentiles = (squared_error(weight, make(weight, 4)) for make in (kmeans_codebook, percentile_codebook))
    assert percentiles > 0.5 * weight.square().sum()
    assert kmeans < 0.01 * weight.square().sum()
    assert (reconstruct(kmeans_codebook(weight, 4))[weight == 0].abs() < 0.05).all()


def test_blocks_are_product_quantization():
    weight = matrix(16, 16)
    codes, expected = kmeans_codebook(weight, 3, block=4, seed=5), product_quantize(weight, 4, 8, seed=5)
    assert torch.equal(codes.centroids, expected.centroids)
    assert torch.equal(codes.assignments, expected.assignments)


@pytest.mark.parametrize("make", BOTH)
def test_scale_changes_nothing_else(make):
    weight = matrix(16, 16).bfloat16().float()
    codes = make(weight, 4)
    for scale in (2.0**-120, 2.0**120):
        found = make(weight * scale, 4)
        assert torch.equal(found.assignments, codes.assignments)
        assert torch.equal(found.centroids, codes.centroids * scale)


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize("dtype", [torch.float16, torch.int8])
def test_rounded_entries(make, dtype):
    weight = matrix(32, 32)
    codes = round_centroids(weight, make(weight, 6), dtype)
    assert codes.assignments.flatten().tolist() == nearest_by_loop(weight, entries(codes).tolist())
    codebook = entries(codes)
    if dtype == torch.int8:
        codebook = codebook * 127 / codebook.abs().max()
        torch.testing.assert_close(codebook, codebook.round(), atol=1e-4, rtol=0)
    else:
        assert torch.equal(codebook, codebook.half().float())


@pytest.mark.parametrize("make", BOTH)
def test_the_gradient_of_an_entry_is_the_sum_over_its_weights(make):
    weight, gradient = matrix(8, 8), matrix(8, 8, seed=1)
    codes = make(weight, 2)
    codes = codes._replace(centroids=codes.centroids.requires_grad_())
    reconstruct(codes).backward(gradient)
    expected = [gradient[codes.assignments.squeeze(2) == k].sum() for k in range(4)]
    torch.testing.assert_close(codes.centroids.grad.flatten(), torch.stack(expected))


# --- errors ---


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize(
    ("weight", "bits", "message"),
    [
        (torch.zeros(4, 4), 0, r"bits: must be in \[1, 16\], got 0"),
        (torch.zeros(4, 4), 17, r"bits: must be in \[1, 16\], got 17"),
        (torch.zeros(4, 4), 5, r"bits: 2\^bits must be at most the 16 blocks of the matrix, got 5"),
        (torch.zeros(4), 2, "weight: must be a matrix of floating type"),
        (torch.full((4, 4), torch.nan), 2, "weight: must be finite in float32, got 16 entries"),
    ],
)
def test_wrong_arguments(make, weight, bits, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make(weight, bits)


def test_wrong_blocks():
    with pytest.raises(ValueError, match=r"^block: must divide the 4 columns, got 3"):
        kmeans_codebook(torch.zeros(4, 4), 2, block=3)
    with pytest.raises(ValueError, match=r"^bits: .* at most the 4 blocks of the matrix, got 3"):
        kmeans_codebook(torch.zeros(4, 4), 3, block=4)
