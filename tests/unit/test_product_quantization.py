"""Product quantization against slow loops, numbers by hand, and what must hold for any matrix."""

import faiss
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_compress.functional.quantization.additive import decode, least_squares, local_search, point_errors
from fairseq_compress.functional.quantization.clustering import k_means, nearest, search
from fairseq_compress.functional.quantization.codes import (
    Codes,
    assign,
    int8_centroids,
    reconstruct,
    round_centroids,
)
from fairseq_compress.functional.quantization.product import METHODS, product_quantize
from fairseq_compress.functional.quantization.rotation import default_rotation_size
from fairseq_compress.weights.centroids import pack_codes

few_examples = settings(max_examples=15, deadline=None)


def squared_error(weight, codes):
    return (weight.double() - reconstruct(codes).double()).square().sum().item()


def matrix(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def correlated(rows, columns, seed=0):
    """Rows of few hidden factors, as those of a trained matrix: neighbours in a row know of each other."""
    return matrix(rows, columns // 8, seed) @ matrix(columns // 8, columns, seed + 1) + 0.1 * matrix(rows, columns, 2)


def nearest_by_loop(points, centroids):
    """Index of the nearest centroid of each point, one distance after the other, in float64."""
    found = []
    for point in points.double():
        distances = [float((point - centroid).square().sum()) for centroid in centroids.double()]
        found.append(distances.index(min(distances)))
    return torch.tensor(found)


def reconstruct_by_loop(codes):
    """Block by block, and the rotation undone part by part."""
    rows, columns = codes.shape
    block = codes.centroids.size(2)
    result = torch.zeros(rows, columns, dtype=torch.float64)
    for r in range(rows):
        for b in range(columns // block):
            for m, index in enumerate(codes.assignments[r, b].tolist()):
                result[r, b * block : (b + 1) * block] += codes.centroids[m, index].double()
    if codes.rotation is not None:
        size = len(codes.rotation)
        for r in range(rows):
            for start in range(0, columns, size):
                result[r, start : start + size] = codes.rotation.double() @ result[r, start : start + size]
    return result


# --- numbers by hand ---


def test_two_clusters_by_hand():
    """Blocks (0,0) (0,2) | (10,10) (10,12): the means are (0,1) and (10,11), each block is off by 1."""
    weight = torch.tensor([[0.0, 0, 10, 10], [0, 2, 10, 12]])
    codes = product_quantize(weight, 2, 2)
    assert sorted(codes.centroids[0].tolist()) == [[0, 1], [10, 11]]
    assert reconstruct(codes).tolist() == [[0, 1, 10, 11], [0, 1, 10, 11]]
    assert squared_error(weight, codes) == 4


def test_reconstruct_adds_codebooks_and_turns_back():
    """Two codebooks of blocks of 2, then a turn by 90 degrees: (x, y) was stored as (x, y) Q = (y, -x)."""
    centroids = torch.tensor([[[1.0, 2], [3, 4]], [[10, 20], [30, 40]]])
    codes = Codes(centroids, torch.tensor([[[0, 1], [1, 0]]], dtype=torch.uint8))
    assert codes.shape == (1, 4)
    assert reconstruct(codes).tolist() == [[31, 42, 13, 24]]
    turned = codes._replace(rotation=torch.tensor([[0.0, -1], [1, 0]]))
    assert reconstruct(turned).tolist() == [[-42, 31, -24, 13]]


def test_least_squares_by_hand():
    """Points 1, 3 | 5 | 8 of assignments (0,0) (0,0) (0,1) (1,1): a0+b0 = 2, a0+b1 = 5, a1+b1 = 8 fit all means."""
    points, assignments = torch.tensor([[1.0], [3], [5], [8]]), torch.tensor([[0, 0], [0, 0], [0, 1], [1, 1]])
    (a0, a1), (b0, b1) = least_squares(points, assignments, 2).squeeze(2).tolist()
    assert [a0 + b0, a0 + b1, a1 + b1] == pytest.approx([2, 5, 8], abs=1e-3)


def test_int8_centroids_by_hand():
    found = int8_centroids(torch.tensor([[[127.0, -254], [1, 0]]]))
    assert found.values.tolist() == [[[64, -127], [0, 0]]]  # 63.5 to even; 0.5 to even
    assert found.inverse_scale == 0.5
    assert found.dequantize().tolist() == [[[128, -254], [0, 0]]]


@pytest.mark.parametrize(
    ("centroids", "blocks", "bits", "expected"),
    [
        ((1, 256, 8), 512, 16, 512 + 2 * 256 * 8),
        ((1, 16, 4), 11, 16, 6 + 2 * 16 * 4),  # 44 bits
        ((3, 17, 4), 7, 16, 14 + 2 * 3 * 17 * 4),  # 21 indices of 5 bits
        ((1, 256, 8), 512, 8, 512 + 256 * 8 + 4),
    ],
)
def test_size_by_hand(centroids, blocks, bits, expected):
    codes = Codes(torch.zeros(centroids), torch.zeros(1, blocks, centroids[0], dtype=torch.uint8))
    assert pack_codes(codes, bits).bytes == expected
    assert pack_codes(codes._replace(rotation=torch.eye(6)), bits).bytes == expected + 2 * 36


@pytest.mark.parametrize(
    ("shape", "block", "expected"),
    [((512, 2048), 8, 64), ((512, 512), 4, 32), ((128, 128), 8, 16), ((64, 24), 8, 24), ((9, 8), 8, 8)],
)
def test_default_rotation_size_by_hand(shape, block, expected):
    """2 · 64² = 8192 = 512 · 2048 / 8 / 16; 2 · 32² < 4096; at least two blocks; here three; a row of one block."""
    assert default_rotation_size(*shape, block) == expected


# --- oracles ---


def test_k_means_of_faiss_is_lloyds_algorithm():
    points, start = matrix(300, 3), matrix(5, 3, seed=1)
    expected = start
    for _ in range(6):
        index = nearest_by_loop(points, expected)
        expected = torch.stack([points[index == k].mean(dim=0) for k in range(5)])
    torch.testing.assert_close(k_means(points, 5, 6, 1, start=start), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dimensions", [1, 3])
def test_nearest_is_the_loops(dimensions):
    points, centroids = matrix(200, dimensions), matrix(17, dimensions, seed=1)
    centroids[5] = centroids[11]  # of equal ones the first counts
    points[:17] = centroids
    expected = nearest_by_loop(points, centroids)
    assert nearest(points, centroids).tolist() == expected.tolist()
    centroids[11] += 9  # without the tie, also the quick one
    expected = nearest_by_loop(points, centroids)
    assert search(points, centroids).tolist() == expected.tolist()


def test_nearest_decides_where_float32_cannot():
    """Distances that differ by 1e-9 of their size, to centroids far from zero."""
    points = 1000 + 1e-2 * matrix(50, 4)
    centroids = 1000 + 1e-2 * matrix(8, 4, seed=1)
    assert nearest(points, centroids).tolist() == nearest_by_loop(points, centroids).tolist()


@pytest.mark.parametrize("method", METHODS)
def test_codes_of_each_method(method):
    weight = matrix(24, 32)
    codes = product_quantize(weight, 4, 16, method, iterations=5)
    books = 2 if method in ("residual", "lsq") else 1
    assert codes.centroids.shape == (books, 16, 4)
    assert codes.centroids.dtype == torch.float32
    assert codes.centroids.isfinite().all()
    assert codes.assignments.shape == (24, 8, books)
    assert codes.assignments.dtype == torch.uint8
    assert (codes.rotation is None) == (method != "opq")
    torch.testing.assert_close(reconstruct(codes).double(), reconstruct_by_loop(codes), atol=1e-5, rtol=0)
    again = assign(weight, codes)  # they are assigned to the centroids given, not to those of a round before
    if method == "residual":
        assert squared_error(weight, again) <= squared_error(weight, codes)
    elif method != "lsq":
        assert torch.equal(again.assignments, codes.assignments)


@pytest.mark.parametrize("rounded", [False, True])
def test_each_block_has_its_nearest_centroid(rounded):
    weight = matrix(20, 30)
    codes = product_quantize(weight, 5, 12)
    codes = round_centroids(weight, codes) if rounded else codes
    expected = nearest_by_loop(weight.view(-1, 5), codes.centroids[0])
    assert codes.assignments.flatten().tolist() == expected.tolist()


def test_the_error_is_that_of_the_nearest():
    weight = matrix(20, 30)
    codes = product_quantize(weight, 5, 12)
    expected = sum(
        min(float((point - centroid).square().sum()) for centroid in codes.centroids[0].double())
        for point in weight.double().view(-1, 5)
    )
    assert squared_error(weight, codes) == pytest.approx(expected, rel=1e-6)


def test_local_search_ends_where_no_single_change_helps():
    points, books = matrix(60, 3), matrix(2 * 8, 3, seed=1).view(2, 8, 3)
    start = torch.zeros(60, 2, dtype=torch.int64)
    found = local_search(points, books, start)
    errors = point_errors(points, books, found)
    assert (errors <= point_errors(points, books, start)).all()
    for m in range(2):
        for k in range(8):
            changed = found.clone()
            changed[:, m] = k
            assert (point_errors(points, books, changed) >= errors - 1e-5).all()


def test_residual_of_one_codebook_is_k_means():
    weight = matrix(64, 64)
    one, plain = (product_quantize(weight, 4, 32, method, codebooks=1) for method in ("residual", "kmeans"))
    assert torch.equal(one.centroids, plain.centroids)
    assert torch.equal(one.assignments, plain.assignments)


@pytest.mark.parametrize("codebooks", [2, 3])
def test_lsq_beats_that_of_faiss(codebooks):
    weight = matrix(64, 64)
    points = weight.view(-1, 8).numpy()
    theirs = faiss.LocalSearchQuantizer(8, codebooks, 4)
    theirs.train(points)
    error = float(((points - theirs.decode(theirs.compute_codes(points))) ** 2).sum())
    ours = product_quantize(weight, 8, 16, "lsq", codebooks=codebooks)
    assert squared_error(weight, ours) < error


@pytest.mark.parametrize("codebooks", [1, 2])
def test_beam_search_with_fewer_sums_than_its_width(codebooks):
    """faiss alone gives codes that are worse than zero there."""
    weight = matrix(32, 32)
    residual = product_quantize(weight, 4, 2, "residual", codebooks=codebooks)
    assert squared_error(weight, residual) < 0.9 * weight.square().sum()
    again = assign(weight, residual)
    assert squared_error(weight, again) > 0.97 * squared_error(weight, residual)  # hardly anything was left to gain


# --- what must hold for any matrix ---


@few_examples
@given(
    method=st.sampled_from(METHODS), rows=st.integers(2, 12), blocks=st.integers(2, 6), block=st.integers(1, 5),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_any_shape(method, rows, blocks, block, seed):
    weight = matrix(rows, blocks * block, seed)
    codes = product_quantize(weight, block, 4, method, iterations=3, seed=seed)
    found = reconstruct(codes)
    assert found.shape == weight.shape
    assert codes.shape == tuple(weight.shape)
    assert found.isfinite().all()
    assert squared_error(weight, codes) < weight.double().square().sum()


@few_examples
@given(method=st.sampled_from(METHODS), seed=st.integers(0, 99))
def test_more_centroids_are_no_worse(method, seed):
    weight = matrix(24, 24, seed)
    errors = [squared_error(weight, product_quantize(weight, 4, k, method, seed=seed)) for k in (2, 8, 32, 128)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.25 * errors[0]


@few_examples
@given(method=st.sampled_from(["residual", "lsq"]), seed=st.integers(0, 99))
def test_more_codebooks_are_better(method, seed):
    weight = matrix(24, 24, seed)
    errors = [
        squared_error(weight, product_quantize(weight, 4, 8, method, codebooks=m, iterations=8, seed=seed))
        for m in (1, 2, 3)
    ]
    assert errors[1] < 0.8 * errors[0]
    assert errors[2] < 0.8 * errors[1]


@few_examples
@given(codebooks=st.integers(1, 3), centroids=st.sampled_from([2, 8, 32]), seed=st.integers(0, 99))
def test_lsq_is_never_worse_than_residual(codebooks, centroids, seed):
    weight = matrix(16, 32, seed)
    residual, lsq = (
        product_quantize(weight, 4, centroids, method, codebooks=codebooks, iterations=4, seed=seed)
        for method in ("residual", "lsq")
    )
    assert squared_error(weight, lsq) <= squared_error(weight, residual) * (1 + 1e-6)


@few_examples
@given(make=st.sampled_from([matrix, correlated]), size=st.sampled_from([None, 4, 8, 16, 32]), seed=st.integers(0, 99))
def test_a_rotation_is_orthogonal_and_never_worse(make, size, seed):
    weight = make(40, 32, seed)
    plain = product_quantize(weight, 4, 16, seed=seed)
    codes = product_quantize(weight, 4, 16, "opq", rotation_size=size, seed=seed)
    assert codes.rotation.shape == ((size or 8,) * 2)
    torch.testing.assert_close(codes.rotation @ codes.rotation.t(), torch.eye(size or 8), atol=1e-5, rtol=0)
    assert squared_error(weight, codes) <= squared_error(weight, plain) * (1 + 1e-5)


def test_a_rotation_helps_where_columns_are_correlated():
    weight = correlated(256, 64)
    plain, opq = product_quantize(weight, 4, 16), product_quantize(weight, 4, 16, "opq", rotation_size=32)
    assert squared_error(weight, opq) < 0.95 * squared_error(weight, plain)


@few_examples
@given(seed=st.integers(0, 99), columns=st.sampled_from([8, 12]))
def test_rows_in_another_order_get_the_same_codes(seed, columns):
    weight = matrix(10, columns, seed)
    codes = product_quantize(weight, 4, 6, seed=seed)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(seed))
    permuted = assign(weight[order], codes)
    assert torch.equal(permuted.assignments, codes.assignments[order])
    assert torch.equal(reconstruct(permuted), reconstruct(codes)[order])


@few_examples
@given(method=st.sampled_from(METHODS), different=st.integers(1, 8), seed=st.integers(0, 99))
def test_as_many_centroids_as_different_blocks_are_exact(method, different, seed):
    blocks, generator = matrix(different, 4, seed), torch.Generator().manual_seed(seed)
    weight = blocks[torch.randint(different, (40,), generator=generator)].view(10, 16)
    codes = product_quantize(weight, 4, 8, method, iterations=2)
    assert torch.equal(reconstruct(codes), weight)
    assert squared_error(weight, round_centroids(weight, codes)) <= 2**-22 * weight.square().sum()


@pytest.mark.parametrize("value", [0.0, 0.1, -3e-5])
@pytest.mark.parametrize("method", METHODS)
def test_a_constant_matrix_is_exact(method, value):
    weight = torch.full((16, 16), value)
    codes = product_quantize(weight, 4, 8, method)
    assert torch.equal(reconstruct(codes), weight)
    assert int8_centroids(codes.centroids).dequantize().isfinite().all()


@pytest.mark.parametrize("scale", [2.0**-140, 2.0**-100, 2.0**126])
def test_neither_small_nor_large_weights_vanish(scale):
    """Where squares in float32 are zero or infinite; powers of two, so that the codes must be the very same."""
    weight = matrix(32, 16).clamp(-1.9, 1.9).bfloat16().float()  # few digits, so that tiny numbers still hold them
    codes = product_quantize(weight, 4, 16)
    found = product_quantize(weight * scale, 4, 16)
    assert torch.equal(found.assignments, codes.assignments)
    torch.testing.assert_close(found.centroids / scale, codes.centroids, rtol=0, atol=2e-3)


@pytest.mark.parametrize("method", METHODS)
def test_a_pruned_matrix_keeps_its_zeros_and_its_rest(method):
    """19 blocks of 20 are zeros: centroids must not all start there."""
    weight = matrix(64, 64)
    kept = torch.rand(64, 16, generator=torch.Generator().manual_seed(3)) < 0.05
    weight = weight * kept.repeat_interleave(4, dim=1)
    assert kept.sum() > 32
    codes = product_quantize(weight, 4, 32, method)
    assert squared_error(weight, codes) < 0.1 * weight.square().sum()


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_has_one_result(method):
    weight = matrix(32, 32)
    first, second, other = (product_quantize(weight, 4, 16, method, iterations=2, seed=seed) for seed in (7, 7, 8))
    assert torch.equal(first.centroids, second.centroids)
    assert torch.equal(first.assignments, second.assignments)
    assert not torch.equal(first.centroids, other.centroids)


@pytest.mark.parametrize("method", ["kmeans", "residual"])
def test_threads_change_nothing(method):
    weight, threads = matrix(128, 128), (torch.get_num_threads(), faiss.omp_get_max_threads())
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            faiss.omp_set_num_threads(count)
            found.append(product_quantize(weight, 8, 32, method, iterations=5))
    finally:
        torch.set_num_threads(threads[0])
        faiss.omp_set_num_threads(threads[1])
    for codes in found[1:]:
        assert torch.equal(codes.centroids, found[0].centroids)
        assert torch.equal(codes.assignments, found[0].assignments)


def test_types_and_gradients_of_the_weight_do_not_matter():
    weight = matrix(16, 16).bfloat16()
    expected = product_quantize(weight.float(), 4, 8)
    for same in (weight, weight.double(), weight.float().requires_grad_(), weight.float().t().contiguous().t()):
        codes = product_quantize(same, 4, 8)
        assert torch.equal(codes.centroids, expected.centroids)
        assert not codes.centroids.requires_grad


def test_more_than_256_centroids():
    weight = matrix(64, 64)
    codes = product_quantize(weight, 2, 300, iterations=3)
    assert codes.assignments.dtype == torch.int32
    assert codes.assignments.max() > 255
    expected = nearest_by_loop(weight.view(-1, 2)[:99], codes.centroids[0])
    assert codes.assignments.flatten()[:99].tolist() == expected.tolist()


# --- what is trained and stored ---


@pytest.mark.parametrize("method", METHODS)
def test_the_gradient_of_a_centroid_is_the_sum_over_its_blocks(method):
    weight, gradient = matrix(6, 16), matrix(6, 16, seed=1)
    codes = product_quantize(weight, 4, 4, method)
    codes = codes._replace(centroids=codes.centroids.requires_grad_())
    reconstruct(codes).backward(gradient)
    turned = gradient if codes.rotation is None else torch.cat(
        [part @ codes.rotation for part in gradient.split(len(codes.rotation), dim=1)], dim=1
    )  # fmt: skip
    expected = torch.zeros_like(codes.centroids)
    for r in range(6):
        for b in range(4):
            for m, index in enumerate(codes.assignments[r, b].tolist()):
                expected[m, index] += turned[r, 4 * b : 4 * b + 4]
    torch.testing.assert_close(codes.centroids.grad, expected)
    assert expected.abs().sum() > 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.int8])
def test_rounded_centroids_are_what_is_stored(method, dtype):
    weight = correlated(48, 32)
    exact = product_quantize(weight, 4, 16, method)
    codes = round_centroids(weight, exact, dtype)
    if dtype == torch.int8:
        stored = int8_centroids(codes.centroids)
        assert stored.values.dtype == torch.int8
        assert torch.equal(stored.dequantize(), codes.centroids)
    else:
        assert torch.equal(codes.centroids.half().float(), codes.centroids)
    assert codes.rotation is None or torch.equal(codes.rotation.half().float(), codes.rotation)
    assert not torch.equal(codes.centroids, exact.centroids)
    stale = codes._replace(assignments=exact.assignments)
    assert squared_error(weight, codes) <= squared_error(weight, stale) * (1 + 1e-3 * (method == "opq"))
    assert squared_error(weight, codes) < squared_error(weight, exact) * 1.02


def test_assign_follows_moved_centroids():
    weight = matrix(16, 16)
    codes = product_quantize(weight, 4, 8)
    moved = codes._replace(centroids=codes.centroids.flip(1).contiguous().requires_grad_())
    found = assign(weight, moved)
    assert torch.equal(found.assignments, 7 - codes.assignments)
    assert found.centroids is moved.centroids


# --- errors ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": torch.zeros(4)}, r"weight: must be a matrix of floating type, got \(4,\) of torch.float32"),
        ({"weight": torch.zeros(4, 8, dtype=torch.int8)}, "weight: .* of torch.int8"),
        ({"weight": torch.zeros(0, 8)}, r"weight: .* got \(0, 8\)"),
        ({"weight": torch.tensor([[0.0, float("nan")] * 4])}, "weight: must be finite in float32, got 4 entries"),
        ({"weight": torch.full((4, 8), float("inf"))}, "weight: must be finite .* got 32 "),
        ({"weight": torch.full((4, 8), 1e300, dtype=torch.float64)}, "weight: must be finite .* got 32 "),
        ({"block": 3}, "block: must divide the 8 columns, got 3"),
        ({"block": 0}, "block: .* got 0"),
        ({"centroids": 1}, r"centroids: must be in \[2, 65536\], got 1"),
        ({"centroids": 65537}, r"centroids: must be in \[2, 65536\], got 65537"),
        ({"centroids": 9}, "centroids: must be at most the 8 blocks of the matrix, got 9"),
        ({"method": "residual", "centroids": 6}, "centroids: must be a power of two with residual, got 6"),
        ({"method": "lsq", "codebooks": 2000}, "centroids: must be at most 4096 in all with lsq, got 2000 x 4"),
        ({"method": "k-means"}, "method: must be one of kmeans, opq, residual, lsq, got 'k-means'"),
        ({"codebooks": 2}, "codebooks: must be 1 with kmeans, got 2"),
        ({"method": "lsq", "codebooks": 0}, "codebooks: must be at least 1 with lsq, got 0"),
        ({"iterations": 0}, r"iterations: must be in \[1, inf\), got 0"),
        ({"rotation_size": 4}, "rotation_size: requires the method opq, got 4 with kmeans"),
        ({"method": "opq", "rotation_size": 6}, "rotation_size: must be a multiple of 4 that divides 8 columns, got 6"),
        ({"method": "opq", "rotation_size": 16}, "rotation_size: .* got 16"),
    ],
)
def test_wrong_arguments(arguments, message):
    good = {"weight": torch.zeros(4, 8), "block": 4, "centroids": 4}
    product_quantize(**good)
    with pytest.raises(ValueError, match=f"^{message}") as error:
        product_quantize(**(good | arguments))
    assert "\n" not in str(error.value)


def test_wrong_codes():
    weight = matrix(8, 8)
    codes = product_quantize(weight, 4, 4)
    with pytest.raises(ValueError, match=r"^weight: must be \(8, 8\) as its codes, got \(4, 8\)"):
        assign(weight[:4], codes)
    large = product_quantize(weight * 1e6, 4, 4)
    with pytest.raises(ValueError, match=r"^centroids: must be below 65,520 for float16, got "):
        round_centroids(weight * 1e6, large)


def test_decode_is_a_sum():
    books = torch.tensor([[[1.0], [2]], [[10], [20]], [[100], [200]]])
    assert decode(books, torch.tensor([[0, 1, 0], [1, 1, 1]])).tolist() == [[121], [222]]
