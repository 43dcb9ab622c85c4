"""Masks of weights: drawn, stored as bits, in a chain with every quantization, packed."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_models import lengths, make_batch, make_model

from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.pruning.masks import pack_mask, random_mask, unpack_mask
from fairseq_compress.functional.quantization.linear import LinearScheme, fake_quantize
from fairseq_compress.weights.attach import attach_plan
from fairseq_compress.weights.groups import (
    chain_of,
    compressed_groups,
    effective_state,
    parameter_of,
    weight_before_noise,
    weight_groups,
    weight_modules,
)
from fairseq_compress.weights.methods.linear import pack_linear
from fairseq_compress.weights.methods.mask import MaskRule, pack_masked
from fairseq_compress.weights.packed import Packed, pack_plain, unpack
from fairseq_compress.weights.reading import parse_plan

pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")
MASK = "{modules: ['*'], method: mask, sparsity: 0.5}"
QUANTIZATIONS = {
    "none": "",
    "int8": "{modules: ['*']}",
    "int4 of groups": "{modules: ['*'], bits: 4, granularity: group, group_size: 8, noise: {start: 0.5}}",
    "int8 of tensors": "{modules: ['*'], granularity: tensor}",
    "block dropout": "{modules: ['*'], method: block_dropout, noise: {start: 0.1}}",
    "codebook": "{modules: ['*'], method: codebook, bits: 3}",
    "product": "{modules: ['*'], method: product, block: 4, centroids: 16}",
    "opq": "{modules: ['*'], method: product, block: 4, centroids: 16, algorithm: opq, centroid_bits: 8}",
}


def masked(quantization="int8", architecture="transformer_small", mask=MASK):
    model = make_model(architecture)
    weights = model.state_dict()
    rules = [rule for rule in (QUANTIZATIONS[quantization], mask) if rule]
    attach_plan(parse_plan(f"weights: [{', '.join(rules)}]"), model)
    model.load_state_dict(weights)
    return model


def logits(model):
    source, target = make_batch("left")
    return model(source, lengths(source), target)[0]


@given(rows=st.integers(1, 9), columns=st.integers(1, 9), sparsity=st.floats(0, 0.99), seed=st.integers(0, 99))
@settings(deadline=None)
def test_the_sparsity_is_exact_and_bits_are_the_mask(rows, columns, sparsity, seed):
    weight = torch.randn(rows, columns)
    mask = random_mask(weight, sparsity, seed)
    assert mask.numel() - mask.sum() == round(sparsity * rows * columns)
    bits = pack_mask(mask)
    assert len(bits) == -(-rows * columns // 8)
    assert torch.equal(unpack_mask(bits, (rows, columns)), mask)
    assert torch.equal(random_mask(weight * 2, sparsity, seed), mask)


def test_bits_by_hand():
    mask = torch.tensor([[True, False, False, True, False], [False, False, True, True, False]])
    assert pack_mask(mask).tolist() == [0b10001001, 0b01]


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("architecture", ["transformer", "transformer_small"])
def test_every_reader_sees_the_masked_and_quantized_weights(architecture, quantization):
    """The model computes what the plain model of its weights computes, self-attention and tied table included."""
    model, plain = masked(quantization, architecture).eval(), make_model(architecture)
    for name, module in weight_modules(model).items():
        dropped = ~chain_of(module).mask.kept()
        assert 0.45 < dropped.float().mean() < 0.55, name
        assert (module.weight[dropped] == 0).all(), name
    plain.load_state_dict(effective_state(model))
    assert list(effective_state(model)) == list(plain.state_dict())
    assert torch.equal(logits(plain.eval()), logits(model))
    tokens = torch.tensor([[5, 7, 5, 2], [9, 7, 2, 1]])
    assert torch.equal(model.encoder.embed_tokens(tokens), model.encoder.embed_tokens.weight[tokens])
    expected = logits(model)
    model.make_generation_fast_()
    assert torch.equal(logits(model), expected)
    assert torch.equal(logits(copy.deepcopy(model)), expected)


def test_int8_of_the_masked_weight():
    model, plain = masked().eval(), make_model("transformer_small")
    for name in ("encoder.layers.0.self_attn.q_proj", "decoder.layers.1.fc2", "encoder.embed_tokens"):
        module, weight = model.get_submodule(name), plain.get_submodule(name).weight
        pruned = weight * chain_of(module).mask.kept()
        assert torch.equal(module.weight, fake_quantize(pruned, LinearScheme(8)))
        assert torch.equal(weight_before_noise(module), pruned)
        assert torch.equal(parameter_of(module), weight)  # the master weight


@pytest.mark.parametrize("quantization", ["none", "int8", "int4 of groups", "codebook"])
def test_removed_weights_have_no_gradient_and_stay_zero(quantization):
    model = masked(quantization).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):
        logits(model).square().mean().backward()
        if quantization != "codebook":
            for group, chain in compressed_groups(model):
                assert (group.parameter.grad[~chain.mask.kept()] == 0).all(), group.name
                assert group.parameter.grad.abs().sum() > 0, group.name
        optimizer.step()
    for group, chain in compressed_groups(model.eval()):
        assert (chain(group.parameter)[~chain.mask.kept()] == 0).all()


def test_rows_of_a_batch_are_those_of_the_whole_table():
    for quantization in ("int8", "int8 of tensors", "codebook", "none"):
        model = masked(quantization).train()
        tokens = torch.tensor([[5, 7, 5, 2], [9, 7, 2, 1]])
        table = model.encoder.embed_tokens
        model.encoder.embed_tokens(tokens).square().sum().backward()
        rows = parameter_of(table).grad.clone()
        parameter_of(table).grad = None
        torch.nn.functional.embedding(tokens, table.weight, padding_idx=1).square().sum().backward()
        torch.testing.assert_close(parameter_of(table).grad, rows)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_the_checkpoint_has_plain_names_and_bits(quantization):
    model, plain = masked(quantization), make_model("transformer_small")
    state = model.state_dict()
    bits = [key for key in state if key.endswith(".weight_mask.bits")]
    assert [key.removesuffix("_mask.bits") for key in bits] == [f"{name}.weight" for name in weight_modules(plain)]
    assert all(state[key].dtype == torch.uint8 for key in bits)
    if quantization in ("none", "int8", "block dropout"):
        assert [key for key in state if key not in bits] == list(plain.state_dict())
    tied = [f"{name}.weight_mask.bits" for name in weight_groups(model)[0].modules]
    assert len(tied) == 3
    assert len({state[key].data_ptr() for key in tied}) == 1
    other = masked(quantization, mask=MASK.replace("0.5", "0.1, seed: 7"))
    other.load_state_dict(state)  # the mask of the checkpoint counts
    assert torch.equal(logits(other.eval()), logits(model.eval()))
    attach_plan(parse_plan("weights: [{modules: ['*.fc1']}]"), plain)
    plain.register_load_state_dict_pre_hook(refuse)
    with pytest.raises(ConfigError, match=r"embed_tokens (has a mask|is made of centroids), for which this model's"):
        plain.load_state_dict(state)


def refuse(*arguments):
    from fairseq_compress.weights.attach import refuse_other_compression

    refuse_other_compression(*arguments)


def test_masks_of_weights_differ_and_depend_on_the_seed():
    model, again, other = masked(), masked(), masked(mask=MASK.replace("0.5", "0.5, seed: 2"))
    first = [chain.mask.kept() for _, chain in compressed_groups(model)]
    shapes: dict[tuple[int, ...], list[torch.Tensor]] = {}
    for mask in first:
        shapes.setdefault(tuple(mask.shape), []).append(mask)
    assert not any(torch.equal(masks[0], mask) for masks in shapes.values() for mask in masks[1:])
    assert all(torch.equal(*pair) for pair in zip(first, (c.mask.kept() for _, c in compressed_groups(again))))  # noqa: B905
    assert not any(torch.equal(*pair) for pair in zip(first, (c.mask.kept() for _, c in compressed_groups(other))))  # noqa: B905


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_packed_and_simulated_weights_are_equal(quantization):
    for group, chain in compressed_groups(masked(quantization).eval()):
        packed = chain.pack(group.parameter)
        assert torch.equal(unpack(packed), chain(group.parameter)), group.name
        assert packed.shape == tuple(chain(group.parameter).shape)


@pytest.mark.parametrize(("bits", "sparsity", "kind"), [(8, 0.5, "masked"), (8, 0.05, "linear"), (2, 0.3, "linear")])
def test_a_bitmap_where_it_is_smaller(bits, sparsity, kind):
    """Of 64 x 64 weights in b bits: 512 bytes of bitmap, and b / 8 bytes for each weight that is kept."""
    weight = torch.randn(64, 64)
    mask = random_mask(weight, sparsity, 1)
    packed = pack_masked(pack_linear(weight * mask, LinearScheme(bits)), mask)
    assert packed.kind == kind
    kept = 4096 - round(4096 * sparsity)
    assert packed.bytes == 64 * 4 + (512 + -(-kept * bits // 8) if kind == "masked" else 4096 * bits // 8)
    assert torch.equal(unpack(packed), fake_quantize(weight * mask, LinearScheme(bits)))
    assert "linear" in str(packed)


def test_plain_kept_values():
    weight = torch.randn(16, 20)
    mask = random_mask(weight, 0.75, 1)
    packed = pack_masked(pack_plain(weight * mask), mask)
    assert packed.bytes == 80 * 4 + 40
    assert torch.equal(unpack(packed), weight * mask)


def test_a_packed_mask_that_does_not_fit():
    weight = torch.randn(16, 20)
    mask = random_mask(weight, 0.75, 1)
    packed = pack_masked(pack_linear(weight * mask, LinearScheme(8)), mask)
    for change, message in (
        ({"mask": packed.tensors["mask"][:-1]}, "mask: must be 40 numbers of 8 bits"),
        ({"kept:integers": packed.tensors["kept:integers"][:-1]}, "kept: must be 80 numbers of 8 bits"),
    ):
        with pytest.raises(ValueError, match=message):
            unpack(Packed("masked", packed.spec, packed.tensors | change))


def test_rules_of_one_place_are_refused():
    for rules in (f"{MASK}, {MASK}", "{modules: ['*']}, {modules: ['*'], method: product, block: 4, centroids: 16}"):
        with pytest.raises(ConfigError, match=r"weights\[1\]\.modules: .* is picked by weights\[0\]\.modules already"):
            attach_plan(parse_plan(f"weights: [{rules}]"), make_model("transformer_small"))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("method: mask", "weights[0].sparsity: is missing"),
        ("method: mask, sparsity: 1", "weights[0].sparsity: must be in [0, 1), got 1"),
        ("method: mask, sparsity: 0.5, criterion: best", "weights[0].criterion: must be one of random, got 'best'"),
        ("method: mask, sparcity: 0.5", "weights[0].sparcity: unknown key; did you mean sparsity? available: modules"),
    ],
)
def test_rules_that_are_refused(rule, message):
    with pytest.raises(ConfigError) as error:
        parse_plan(f"weights: [{{modules: ['*'], {rule}}}]")
    assert message in str(error.value)
    assert MaskRule(("*",), "mask", sparsity=0.5).stage == 1


def test_print_tells_what_is_masked():
    assert "(mask): Mask(sparsity=0.5)\n" in str(masked())
