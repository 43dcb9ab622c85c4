"""Weights made of centroids, in whole models: loading, gradients, ties, storage."""

import copy

import pytest
import torch
from test_models import lengths, make_batch, make_model
from torch import nn

from fairseq_compress.errors import CheckpointError, ConfigError
from fairseq_compress.functional.quantization.codes import reconstruct, round_centroids
from fairseq_compress.functional.quantization.product import product_quantize
from fairseq_compress.weights.attach import attach_plan
from fairseq_compress.weights.centroids import Codebook
from fairseq_compress.weights.groups import (
    WeightGroup,
    chain_of,
    effective_state,
    parameter_of,
    weight_groups,
    weight_modules,
)
from fairseq_compress.weights.methods.codebook import CodebookRule
from fairseq_compress.weights.methods.product import ProductRule
from fairseq_compress.weights.packed import Packed, unpack
from fairseq_compress.weights.reading import parse_plan, plan_text
from fairseq_compress.weights.rules import Plan

pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")
PRODUCT = ProductRule(("*",), "product", block=4, centroids=16)
RULES = {
    "product": PRODUCT,
    "opq": ProductRule(("*",), "product", block=4, centroids=16, algorithm="opq"),
    "residual": ProductRule(("*",), "product", block=8, centroids=16, algorithm="residual"),
    "lsq": ProductRule(("*",), "product", block=8, centroids=16, algorithm="lsq"),
    "int8 centroids": ProductRule(("*",), "product", block=4, centroids=16, centroid_bits=8),
    "many centroids": ProductRule(("*",), "product", block=2, centroids=300),
    "percentile": CodebookRule(("*",), "codebook", bits=3, algorithm="percentile"),
    "kmeans": CodebookRule(("*",), "codebook", bits=3),
    "vectors": CodebookRule(("*",), "codebook", bits=5, block=2),
}


def logits(model):
    source, target = make_batch("left")
    return model(source, lengths(source), target)[0]


def quantized(rule, architecture="transformer_small"):
    model = make_model(architecture)
    weights = model.state_dict()
    attach_plan(Plan((rule,)), model)
    model.load_state_dict(weights)
    return model


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
@pytest.mark.parametrize("architecture", ["transformer", "transformer_small"])
def test_plain_weights_are_quantized_when_they_are_loaded(rule, architecture):
    """As a model of a checkpoint does: sizes first, then the weights; with the result of a model that has weights."""
    plain = make_model(architecture)
    loaded = make_model(architecture)
    attach_plan(Plan((rule,)), loaded)
    with pytest.raises(CheckpointError, match="no trained weight was loaded"):
        logits(loaded)
    loaded.load_state_dict(plain.state_dict())
    model = quantized(rule, architecture)
    assert torch.equal(logits(loaded.eval()), logits(model.eval()))
    again = make_model(architecture)
    attach_plan(Plan((rule,)), again)
    again.load_state_dict(model.state_dict())
    assert torch.equal(logits(again.eval()), logits(model))
    assert (logits(model) - logits(plain.eval())).abs().max() > 0


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_packed_and_simulated_weights_are_equal(rule):
    model = quantized(rule).eval()
    for group in weight_groups(model):
        module = group.modules[group.name]
        packed = chain_of(module).compression.pack(parameter_of(module))
        assert torch.equal(unpack(packed), module.weight)
        assert (
            sum(tensor.numel() * tensor.element_size() for tensor in packed.tensors.values())
            < module.weight.numel() * 2
        )


def test_the_weights_are_those_of_the_pure_functions():
    model, plain = quantized(PRODUCT).eval(), make_model("transformer_small")
    for name in ("encoder.layers.0.self_attn.q_proj", "decoder.layers.1.fc2", "encoder.embed_tokens"):
        weight = plain.get_submodule(name).weight.detach()
        codes = round_centroids(weight, product_quantize(weight, 4, 16))
        assert torch.equal(model.get_submodule(name).weight, reconstruct(codes))


def test_names_and_ties():
    model, plain = quantized(PRODUCT), make_model("transformer_small")
    state = model.state_dict()
    tied = [
        f"{name}.weight_centroids"
        for name in ("encoder.embed_tokens", "decoder.embed_tokens", "decoder.output_projection")
    ]
    assert len({state[key].data_ptr() for key in tied}) == 1
    assert state["encoder.layers.0.fc1.weight_centroids"].shape == (1, 16, 4)
    assert state["encoder.layers.0.fc1.weight_transform.assignments"].shape == (48, 8, 1)
    assert state["encoder.layers.0.fc1.weight_transform.assignments"].dtype == torch.uint8
    assert "encoder.layers.0.fc1.weight" not in state
    names = {name.removesuffix(".parametrizations.weight.original") for name, _ in model.named_parameters()}
    assert "encoder.layers.0.self_attn.out_proj" in names
    assert sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in plain.parameters()) / 3
    assert list(effective_state(model)) == list(plain.state_dict())
    plain.load_state_dict(effective_state(model))
    assert torch.equal(logits(plain.eval()), logits(model))


def test_the_gradient_of_a_centroid_is_the_mean_over_its_blocks():
    torch.manual_seed(3)
    layer = nn.Linear(8, 6, bias=False)
    codes = product_quantize(layer.weight.detach(), 4, 3)
    WeightGroup({"layer": layer}).attach(Codebook(codes, lambda weight: product_quantize(weight, 4, 3), filled=True))
    factors = torch.randn(6, 8)
    (layer.weight * factors).sum().backward()
    blocks = factors.view(12, 4)
    for entry in range(3):
        users = blocks[codes.assignments.flatten() == entry]
        torch.testing.assert_close(parameter_of(layer).grad[0, entry], users.mean(dim=0))


def test_only_the_rows_of_a_batch_and_no_padding_give_a_gradient():
    table = nn.Embedding(20, 8, padding_idx=1)
    rule = ProductRule(("*",), "product", block=4, centroids=40)  # a centroid for each block
    weights = table.state_dict()
    WeightGroup({"table": table}).attach(rule.transform(20, 8))
    table.load_state_dict(weights)
    tokens = torch.tensor([[5, 7, 5], [1, 7, 1]])
    values = table(tokens)
    assert torch.equal(values, table.weight[tokens])
    values.sum().backward()
    used = chain_of(table).compression.assignments[[5, 7]].flatten().long().tolist()
    touched = parameter_of(table).grad[0].abs().sum(dim=1).nonzero().flatten().tolist()
    assert touched == sorted(used)


def by_hand(assignments, gradient, centroids, block):
    """A slow loop in float64: the mean over all blocks of a matrix that have the centroid, used or not."""
    blocks = gradient.double().view(-1, block)
    found = torch.zeros(centroids, block, dtype=torch.float64)
    for entry in range(centroids):
        users = [each for each, own in zip(blocks, assignments.flatten().tolist(), strict=True) if own == entry]
        for each in users:
            found[entry] += each / len(users)
    return found


def tied_table(rows=40, width=8, centroids=7):
    """An embedding with padding and an output layer that share a quantized table, and its dense weight in float64."""
    torch.manual_seed(3)
    table = nn.Embedding(rows, width, padding_idx=1)
    output = nn.Linear(width, rows, bias=False)
    output.weight = table.weight
    codes = product_quantize(table.weight.detach(), 4, centroids)
    quantize = lambda weight: product_quantize(weight, 4, centroids)  # noqa: E731
    WeightGroup({"table": table, "output": output}).attach(Codebook(codes, quantize, filled=True))
    return table, output, table.weight.detach().double().requires_grad_()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("parts", [1, 8])
def test_the_gradient_of_an_embedding_is_the_mean_over_all_blocks_of_the_table(tied, parts):
    """Whatever rows a batch uses, whether the table is the output layer too, and however the batch is cut."""
    table, output, dense = tied_table()
    tokens = torch.randint(2, 12, (8, 5))  # less than a third of the rows
    tokens[:4, 3:] = 1
    factors = torch.randn(8, 5, 40 if tied else 8)
    for some, own in zip(tokens.chunk(parts), factors.chunk(parts), strict=True):
        hidden = table(some)
        ((output(hidden) if tied else hidden) * own).sum().backward()
    hidden = nn.functional.embedding(tokens, dense, padding_idx=1)
    ((hidden @ dense.t() if tied else hidden) * factors.double()).sum().backward()
    expected = by_hand(chain_of(table).compression.assignments, dense.grad, 7, 4)
    torch.testing.assert_close(parameter_of(table).grad[0].double(), expected, rtol=1e-5, atol=1e-5)


def test_looked_up_rows_give_the_gradient_of_the_whole_matrix():
    found = []
    for whole in (False, True):
        table, _, _ = tied_table()
        tokens = torch.tensor([[5, 7, 5, 9], [1, 7, 2, 1]])
        values = nn.functional.embedding(tokens, table.weight, padding_idx=1) if whole else table(tokens)
        values.square().sum().backward()
        found.append(parameter_of(table).grad)
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-7)


def test_finetuning_moves_centroids_and_keeps_assignments():
    model = quantized(PRODUCT).train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(20):
        source, target = make_batch("left")
        output = model(source, lengths(source), target)[0]
        loss = nn.functional.cross_entropy(output.flatten(0, 1), target.flatten(), ignore_index=1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items() if key.endswith("assignments"))
    assert not torch.equal(
        after["encoder.layers.0.fc1.weight_centroids"], before["encoder.layers.0.fc1.weight_centroids"]
    )


def test_copies_and_generation():
    model = quantized(PRODUCT).eval()
    expected = logits(model)
    assert torch.equal(logits(copy.deepcopy(model)), expected)
    model.make_generation_fast_()
    assert torch.equal(logits(model), expected)
    assert torch.equal(logits(model), expected)


def test_plans_of_codes():
    text = """
weights:
  - {modules: ["*.fc?"], method: product, centroids: 64, algorithm: opq}
  - {modules: ["*_proj"], method: product, block: 4, centroid_bits: 8}
  - {modules: ["*embed_tokens"], method: codebook, bits: 4, algorithm: percentile}
"""
    plan = parse_plan(text)
    assert plan == Plan(
        (
            ProductRule(("*.fc?",), "product", centroids=64, algorithm="opq"),
            ProductRule(("*_proj",), "product", block=4, centroid_bits=8),
            CodebookRule(("*embed_tokens",), "codebook", bits=4, algorithm="percentile"),
        )
    )
    assert parse_plan(plan_text(plan)) == plan


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("method: product, bits: 4", "weights[0].bits: unknown key; available: modules, method, stage, block"),
        ("method: product, algorithm: em", "weights[0].algorithm: must be one of kmeans, opq, residual, lsq, got 'em'"),
        ("method: product, centroids: 1", "weights[0].centroids: must be in [2, 65536], got 1"),
        ("method: product, codebooks: 2", "weights[0].codebooks: must be 1 with kmeans, got 2"),
        ("method: product, centroid_bits: 4", "weights[0].centroid_bits: must be one of 16, 8, got 4"),
        ("method: product, block: 0", "weights[0].block: must be in [1, inf), got 0"),
        ("method: codebook, algorithm: opq", "weights[0].algorithm: must be one of kmeans, percentile, got 'opq'"),
        ("method: codebook, bits: 17", "weights[0].bits: must be in [1, 16], got 17"),
        ("method: codebook, block: 2, algorithm: percentile", "weights[0].block: must be 1 with percentile, got 2"),
    ],
)
def test_rules_that_are_refused(rule, message):
    with pytest.raises(ConfigError) as error:
        parse_plan(f"weights: [{{modules: ['*'], {rule}}}]")
    assert message in str(error.value)


def test_rules_that_do_not_fit_the_model():
    with pytest.raises(ConfigError, match=r"weights\[0\]\.block: must divide the 32 columns, got 5 \(of encoder"):
        quantized(ProductRule(("*",), "product", block=5, centroids=4))
    with pytest.raises(ConfigError, match=r"weights\[0\]\.centroids: must be at most the [\d,]+ blocks of the matrix"):
        quantized(ProductRule(("*",), "product", block=8, centroids=4096))
    loaded = make_model("transformer_small")
    attach_plan(Plan((PRODUCT,)), loaded)
    state = make_model("transformer_small").state_dict()
    state["encoder.layers.0.fc1.weight"][0, 0] = float("nan")
    with pytest.raises(ConfigError, match=r"compression plan, encoder\.layers\.0\.fc1\.weight: .* finite"):
        loaded.load_state_dict(state)


def test_a_packed_weight_that_does_not_fit():
    layer = nn.Linear(8, 6)
    rule = ProductRule(("*",), "product", block=4, centroids=5)
    WeightGroup({"layer": layer}).attach(rule.transform(6, 8))
    packed = chain_of(layer).compression.pack(parameter_of(layer))
    assert packed.tensors["assignments"].numel() == (12 * 3 + 7) // 8
    for change, message in (
        ({"assignments": packed.tensors["assignments"][:-1]}, "assignments: must be 12 numbers of 3 bits"),
        ({"assignments": packed.tensors["assignments"] * 0 + 255}, "assignments: must be below 5, got 7"),
        ({"centroids": packed.tensors["centroids"][:, :4]}, "centroids: must be 1 x 5 x 4 for 8 columns"),
    ):
        with pytest.raises(ValueError, match=message):
            unpack(Packed("codes", packed.spec, packed.tensors | change))


def test_print_tells_what_is_compressed():
    assert "Codebook(centroids=16, block=4, codebooks=1, bits=16)" in str(quantized(PRODUCT))
    assert "rotation=" in str(quantized(RULES["opq"]))
    assert len(weight_modules(quantized(PRODUCT))) > 20
