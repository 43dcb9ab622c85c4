"""The sparse linear layer against a dense one with the same zeros."""

import copy
import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fairseq_compress.errors import CheckpointError, ConfigError
from fairseq_compress.functional.layers.supports import LAYOUTS, support
from fairseq_compress.modules import sparse_linear
from fairseq_compress.modules.sparse_linear import LEAST_SPARSITY, LEAST_WORK, SparseLinear, sparse_is_faster
from fairseq_compress.modules.structured import relative_error

BLOCKS = (1, 8, 16, 32)


def layer_of(block=8, inputs=96, outputs=64, sparsity=0.7, **options):
    torch.manual_seed(1)
    return SparseLinear(inputs, outputs, sparsity=sparsity, block=block, seed=5, **options)


def mask_of(layer):
    """(O, I), true on the support, entry by entry."""
    drawn = support(layer.layout, layer.dense_shape, layer.sparsity, layer.block, layer.seed)
    mask = torch.zeros(layer.dense_shape, dtype=torch.bool)
    for row, column in (drawn.coordinates * layer.block).tolist():
        mask[row : row + layer.block, column : column + layer.block] = True
    return mask


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("bias", [True, False])
def test_forward_and_gradient_of_a_masked_dense_layer(block, layout, bias):
    layer = layer_of(block, layout=layout, bias=bias).double()
    mask = mask_of(layer)
    weight = layer.dense_weight().detach().requires_grad_()
    assert torch.equal(weight != 0, mask)
    x = torch.randn(3, 5, 96, dtype=torch.float64, requires_grad=True)
    x_dense = x.detach().clone().requires_grad_()
    beta = layer.bias.detach().clone().requires_grad_() if bias else None
    found, expected = layer(x), F.linear(x_dense, weight * mask, beta)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    upstream = torch.randn_like(found)
    found.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(x.grad, x_dense.grad, rtol=0, atol=1e-12)
    on_support = layer.approximation(weight.grad)["values"]
    torch.testing.assert_close(layer.values.grad, on_support, rtol=0, atol=1e-12)
    if bias:
        torch.testing.assert_close(layer.bias.grad, beta.grad, rtol=0, atol=1e-12)


def test_gradcheck():
    layer = layer_of(8, 16, 16, 0.5).double()
    x = torch.randn(2, 16, dtype=torch.float64, requires_grad=True)

    def product(x, values, bias):
        return torch.func.functional_call(layer, {"values": values, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(product, (x, layer.values, layer.bias))


@pytest.mark.parametrize("block", BLOCKS)
def test_the_state_dict_holds_the_kept_numbers_only(block):
    layer = layer_of(block)
    state = layer.state_dict()
    assert list(state) == ["values", "bias", "support_check"]
    blocks = round(0.3 * 64 * 96 / block**2)
    assert layer.kept == layer.multiply_adds == blocks * block**2 == state["values"].numel()
    assert sum(t.numel() * t.element_size() for t in state.values()) == 4 * (layer.kept + 64) + 8


def test_a_state_of_the_same_support_loads():
    layer, other = layer_of(), layer_of()
    nn.init.zeros_(other.values)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.dense_weight(), layer.dense_weight())


@pytest.mark.parametrize("change", [{"seed": 6}, {"layout": "watts_strogatz"}, {"rewire": 0.5}, {"block": 16}])
def test_another_support_is_refused(change):
    options = {"sparsity": 0.7, "block": 8, "seed": 5, "layout": "random"}
    if "rewire" in change:
        options["layout"] = "watts_strogatz"
    state = nn.Sequential(SparseLinear(96, 64, **options)).state_dict()
    other = nn.Sequential(SparseLinear(96, 64, **options | change))
    before = other[0].values.clone()
    with pytest.raises(CheckpointError, match=r"^0\.support_check: must be \d+, .*got \d+: these values"):
        other.load_state_dict(state)
    assert torch.equal(other[0].values, before)


@pytest.mark.parametrize("strict", [True, False])
def test_values_without_a_check_are_refused(strict):
    layer = layer_of()
    state = layer.state_dict()
    del state["support_check"]
    with pytest.raises(CheckpointError, match="got none"):
        layer.load_state_dict(state, strict=strict)


@pytest.mark.parametrize("block", BLOCKS)
def test_a_dense_state_loads_as_its_entries_on_the_support(block, caplog):
    layer, dense = layer_of(block), nn.Linear(96, 64)
    with caplog.at_level(logging.INFO):
        layer.load_state_dict(dense.state_dict())
    assert "approximated from a dense weight" in caplog.text
    assert torch.equal(layer.dense_weight(), dense.weight * mask_of(layer))
    assert torch.equal(layer.bias, dense.bias)
    cut = (dense.weight * ~mask_of(layer)).norm() / dense.weight.norm()
    assert relative_error(layer, dense.weight) == pytest.approx(cut.item(), rel=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("std", [None, 0.05])
def test_each_output_starts_with_the_variance_of_the_dense_one(layout, std):
    layer = SparseLinear(1024, 64, sparsity=0.8, layout=layout, block=8, seed=2, std=std)
    sigma = std or (3 * 1024) ** -0.5
    energy = layer.dense_weight().square().sum(1)  # of outputs for inputs of variance 1
    blockwise = energy.view(8, 8).mean(1)  # rows of a block have the same fan-in
    torch.testing.assert_close(blockwise, torch.full((8,), 1024 * sigma**2), rtol=0.25, atol=0)
    fan_in = mask_of(layer).sum(1, keepdim=True)
    bound = sigma * (3 * 1024 / fan_in).sqrt()
    assert (layer.dense_weight().abs() <= bound * (1 + 1e-6)).all()


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kernels_of_generation_compute_what_training_does(block, bias, dtype, monkeypatch):
    monkeypatch.setattr(sparse_linear, "sparse_is_faster", lambda *_: True)
    monkeypatch.setattr(sparse_linear, "CHUNK", 7)
    layer = layer_of(block, bias=bias, layout="barabasi_albert").to(dtype)
    for shape in [(96,), (1, 96), (7, 96), (4, 5, 96)]:
        x = torch.randn(shape, dtype=dtype)
        expected = layer.train()(x)
        layer.eval().make_generation_fast_()
        with torch.no_grad():
            found = layer(x)
        assert layer.cache.values.keys() == {"compressed" if block < 16 else "blocks"}
        tolerance = {"rtol": 0, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-5}
        torch.testing.assert_close(found, expected.detach(), **tolerance)
        with torch.no_grad():
            assert torch.equal(copy.deepcopy(layer)(x), found)


def test_the_kernel_goes_by_the_work():
    layer = SparseLinear(256, 256, sparsity=LEAST_SPARSITY[8], block=8).eval()
    layer.make_generation_fast_()
    enough = -(-LEAST_WORK // 256**2)
    with torch.no_grad():
        few = layer(torch.ones(1, 256))
        assert list(layer.cache.values) == ["dense"]
        many = layer(torch.ones(enough, 256))
        assert list(layer.cache.values) == ["dense", "compressed"]
    torch.testing.assert_close(many, few.expand(enough, 256), rtol=1e-5, atol=1e-5)
    assert not sparse_is_faster((512, 2048), 10**6, LEAST_SPARSITY[8] - 0.01, 8)
    assert not sparse_is_faster((256, 256), enough - 1, LEAST_SPARSITY[8], 8)


def test_what_is_kept_follows_the_values_and_ends_with_training():
    layer = layer_of().eval()
    x = torch.randn(4, 96)
    with torch.no_grad():
        layer(x)
        assert not layer.cache.values
        layer.make_generation_fast_()
        layer(x)
        first = layer.cache.values["dense"]
        layer(x)
        assert layer.cache.values["dense"] is first
        layer.load_state_dict({name: t * 2 if t.is_floating_point() else t for name, t in layer.state_dict().items()})
        torch.testing.assert_close(layer(x), F.linear(x, 2 * first, layer.bias))
        assert layer.double()(x.double()).dtype == torch.float64
    assert list(layer.state_dict()) == ["values", "bias", "support_check"]
    layer(x.double()).sum().backward()  # with gradients, nothing kept is used
    assert layer.values.grad is not None
    layer.train()
    assert not layer.cache.values


@pytest.mark.parametrize("mode", ["train", "eval", "fast"])
def test_autocast_in_bfloat16(mode, monkeypatch):
    monkeypatch.setattr(sparse_linear, "sparse_is_faster", lambda *_: True)
    layer = layer_of().train(mode == "train")
    if mode == "fast":
        layer.make_generation_fast_()
    x = torch.randn(6, 96)
    with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(mode == "train"):
        found = layer(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), F.linear(x, layer.dense_weight(), layer.bias), rtol=0.02, atol=0.02)
    if mode == "train":
        found.sum().backward()
        assert layer.values.grad.dtype == torch.float32


def test_what_a_layer_tells_of_itself():
    assert str(layer_of(bias=False)) == (
        "SparseLinear(in_features=96, out_features=64, bias=False, sparsity=0.7, layout=random, block=8, seed=5, "
        "kept=1856)"
    )


@pytest.mark.parametrize("change", [{"std": -0.1}, {"std": float("nan")}, {"block": 32, "inputs": 80}])
def test_bad_arguments(change):
    with pytest.raises(ConfigError, match=rf"^{next(iter(change))}: must .*, got"):
        layer_of(**change)
