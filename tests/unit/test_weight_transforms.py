"""Transforms of weights in whole models: through self-attention, which never calls its projections, and tied tables."""

import copy
import math

import pytest
import torch
from fairseq.modules.quant_noise import quant_noise
from test_models import lengths, make_batch, make_model
from torch import nn

from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.quantization.block_noise import drop
from fairseq_compress.functional.quantization.linear import LinearScheme, fake_quantize
from fairseq_compress.functional.schedules import Ramp
from fairseq_compress.weights.groups import (
    WeightGroup,
    chain_of,
    effective_state,
    parameter_of,
    weight_groups,
    weight_modules,
)
from fairseq_compress.weights.methods.block_dropout import BlockDropout
from fairseq_compress.weights.methods.linear import LinearQuantizer

pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")
ARCHITECTURES = ["transformer", "transformer_small"]
INT4 = LinearScheme(4)


def compressed(architecture, make=lambda: LinearQuantizer(INT4), **values):
    model = make_model(architecture, **values)
    for group in weight_groups(model):
        group.attach(make())
    return model


def logits(model):
    source, target = make_batch("left")
    return model(source, lengths(source), target)[0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_state_dict_is_that_of_the_plain_model(architecture):
    plain, model = make_model(architecture), compressed(architecture)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in model.state_dict().items())
    other = compressed(architecture)
    for parameter in other.parameters():
        parameter.data.zero_()
    other.load_state_dict(plain.state_dict())
    assert torch.equal(logits(other.eval()), logits(model.eval()))
    plain.load_state_dict(model.state_dict())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("training", [True, False])
def test_every_reader_sees_the_quantized_weights(architecture, training):
    """The model computes what a plain model of the quantized weights computes; gradients go straight through."""
    model, by_hand = compressed(architecture), make_model(architecture)
    done = set()
    for module in weight_modules(by_hand).values():
        if id(module.weight) not in done:
            done.add(id(module.weight))
            module.weight.data = fake_quantize(module.weight.data, INT4)
    outputs, gradients = [], []
    for each in (model, by_hand):
        outputs.append(logits(each.train(training)))
        outputs[-1].square().mean().backward()
        gradients.append([parameter.grad for parameter in each.parameters()])
    assert torch.equal(*outputs)
    named = dict(by_hand.named_parameters())
    of_model = {name.replace("parametrizations.weight.original", "weight"): p for name, p in model.named_parameters()}
    assert of_model.keys() == named.keys()
    for name, parameter in of_model.items():
        assert torch.allclose(parameter.grad, named[name].grad, rtol=1e-4, atol=1e-7), name
    assert of_model["encoder.layers.0.self_attn.q_proj.weight"].grad.abs().sum() > 0
    assert (
        of_model["encoder.embed_tokens.weight"].grad[1].abs().sum()
        == named["encoder.embed_tokens.weight"].grad[1].abs().sum()
    )  # padding: only what the output projection gives


@pytest.mark.parametrize("make", [lambda: LinearQuantizer(INT4, Ramp(0, 0)), lambda: BlockDropout(Ramp(0, 0))])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_noise_is_bit_equal_to_the_plain_model(architecture, make):
    outputs, gradients = [], []
    for model in (compressed(architecture, make), make_model(architecture)):
        outputs.append(logits(model.train()))
        outputs[-1].square().mean().backward()
        gradients.append({id_name(name): p.grad for name, p in model.named_parameters()})
    assert torch.equal(*outputs)
    assert all(torch.equal(grad, gradients[1][name]) for name, grad in gradients[0].items())


def id_name(name):
    return name.replace("parametrizations.weight.original", "weight")


@pytest.mark.parametrize("method", [LinearQuantizer, BlockDropout])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_noise_touches_its_share_of_every_weight(architecture, method, monkeypatch):
    """20 training forwards: the fraction of touched blocks of each weight is p, within four standard deviations."""
    p, block, forwards = 0.3, 8, 20
    make = {
        LinearQuantizer: lambda: LinearQuantizer(INT4, Ramp(p, p), block),
        BlockDropout: lambda: BlockDropout(Ramp(p, p), block),
    }
    model = compressed(architecture, make[method]).train()
    names = {id(chain_of(module).compression): name for name, module in weight_modules(model).items()}
    before = copy.deepcopy(model.state_dict())
    touched: dict[str, list[torch.Tensor]] = {}
    original = method.transform

    def recorded(self, rows, weight):
        result = original(self, rows, weight)
        changed = (result == 0 if method is BlockDropout else result != rows).view(rows.shape[0], -1, block).any(dim=-1)
        touched.setdefault(names[id(self)], []).append(changed[rows.abs().sum(dim=1) > 0].flatten())
        return result

    monkeypatch.setattr(method, "transform", recorded)
    torch.manual_seed(1)
    for _ in range(forwards):
        logits(model).mean().backward()
    assert set(touched) == set(names.values())
    for suffix in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "fc1", "fc2"):
        assert f"encoder.layers.0.{suffix}" in touched, suffix
    assert "decoder.output_projection" in touched  # the name of the tied table that comes last
    for name, found in touched.items():
        assert len(found) >= forwards, name
        blocks = torch.cat(found)
        deviation = math.sqrt(p * (1 - p) / len(blocks))
        assert abs(blocks.float().mean().item() - p) < 4 * deviation, name
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_what_the_noise_does_not_draw_is_untouched_and_what_it_draws_is_quantized():
    weight = nn.Parameter(torch.randn(16, 32))
    quantizer = LinearQuantizer(INT4, Ramp(0.5, 0.5), block=8).train()
    blocks = quantizer(weight).view(16, 4, 8)
    plain, quantized = weight.view(16, 4, 8), fake_quantize(weight, INT4).view(16, 4, 8)
    is_plain, is_quantized = (blocks == plain).all(-1), (blocks == quantized).all(-1)
    assert (is_plain | is_quantized).all()
    assert 0 < is_quantized.sum() < 64
    assert torch.equal(quantizer.eval()(weight), fake_quantize(weight, INT4))


def test_dropped_blocks_are_zero_and_the_others_scaled():
    """Hand-worked: p = 0.2, so the other weights are times 1.25; the gradient is one everywhere."""
    weight = nn.Parameter(torch.tensor([[1.0, 2.0, 4.0, 8.0]]))
    drawn = torch.tensor([[True, True, False, False]])
    result = drop(weight, drawn, 0.2)
    assert result.tolist() == [[0, 0, 5, 10]]
    (result * torch.tensor([[1.0, 2.0, 3.0, 4.0]])).sum().backward()
    assert weight.grad.tolist() == [[1, 2, 3, 4]]


def test_block_dropout_draws_whole_blocks_and_keeps_the_mean():
    weight = nn.Parameter(torch.randn(16, 20) + 3)
    noise = BlockDropout(Ramp(0.5, 0.5), block=8).train()
    result = noise(weight)
    result.sum().backward()
    assert torch.equal(weight.grad, torch.ones_like(weight))
    parts = [(result[:, start : start + 8] == 0) for start in (0, 8, 16)]
    assert all((part.all(1) | ~part.any(1)).all() for part in parts)
    assert torch.equal(result[result != 0], 2 * weight[result != 0])
    torch.manual_seed(1)
    mean = torch.stack([noise(weight).detach() for _ in range(2000)]).mean(0)
    torch.testing.assert_close(mean, weight.detach(), rtol=0.15, atol=0)
    assert noise.eval()(weight) is weight


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_block_dropout_is_quant_noise_of_fairseq_with_the_same_mask(p):
    """Outputs and gradients, but for the master weight, which fairseq's overwrites."""
    torch.manual_seed(2)
    weight, x = torch.randn(16, 24), torch.randn(5, 24)
    theirs = nn.Linear(24, 16, bias=False)
    theirs.weight.data = weight.clone()
    quant_noise(theirs, p, 8).train()
    output = theirs(x)
    output.square().sum().backward()
    mask = theirs.weight == 0
    assert 0 < mask.sum() < mask.numel()
    ours = nn.Parameter(weight.clone())
    result = x @ drop(ours, mask, p).t()
    result.square().sum().backward()
    torch.testing.assert_close(result, output)
    torch.testing.assert_close(ours.grad, theirs.weight.grad)
    assert theirs.weight.grad[mask].abs().max() > 0
    assert torch.equal(ours.data, weight)


def test_fairseq_noise_misses_self_attention_and_destroys_weights():
    """Why all this is not fairseq's own quant-noise: nobody should go back to it."""
    model = make_model("transformer", quant_noise_pq=0.5, quant_noise_pq_block_size=8).train()
    before = copy.deepcopy(model.state_dict())
    for _ in range(20):
        logits(model)
    layer = model.encoder.layers[0]
    zeros = {
        name: float((m.weight == 0).float().mean()) for name, m in layer.named_modules() if isinstance(m, nn.Linear)
    }
    assert zeros.pop("fc1") > 0.9  # of the master weights, in place
    assert zeros.pop("fc2") > 0.9
    assert zeros == dict.fromkeys([f"self_attn.{name}_proj" for name in ("k", "v", "q", "out")], 0.0)
    assert torch.equal(layer.self_attn.q_proj.weight, before["encoder.layers.0.self_attn.q_proj.weight"])
    assert quant_noise(nn.Linear(8, 8), 0, 8).weight.shape == (8, 8)


def test_rows_that_a_batch_does_not_use_cost_nothing(monkeypatch):
    model = compressed("transformer_small", share_all_embeddings=False, share_decoder_input_output_embed=False)
    seen = []
    original = LinearQuantizer.transform
    monkeypatch.setattr(
        LinearQuantizer, "transform", lambda s, rows, w: seen.append(rows.shape[0]) or original(s, rows, w)
    )
    tokens = torch.tensor([[5, 7, 5, 2], [7, 7, 2, 1]])
    model.train().encoder.embed_tokens(tokens)
    assert seen == [4]  # 1, 2, 5, 7 of 60


@pytest.mark.parametrize("how", [LinearScheme(4), LinearScheme(4, "tensor"), LinearScheme(4, "group", 16)])
def test_rows_of_a_table_are_those_of_the_quantized_table(how):
    model = compressed("transformer_small", lambda: LinearQuantizer(how)).eval()
    tokens = torch.tensor([[5, 7, 5, 2], [9, 7, 2, 1]])
    table = fake_quantize(parameter_of(model.encoder.embed_tokens), how)
    assert torch.equal(model.encoder.embed_tokens(tokens), table[tokens])
    model.make_generation_fast_()
    assert torch.equal(model.encoder.embed_tokens(tokens), table[tokens])


def test_generation_computes_a_weight_once_and_again_when_it_changed(monkeypatch):
    model = compressed("transformer_small").eval()
    expected = logits(model)
    calls = []
    original = LinearQuantizer.transform

    def counted(self, rows, weight):
        calls.append(rows.shape)
        return original(self, rows, weight)

    monkeypatch.setattr(LinearQuantizer, "transform", counted)
    model.make_generation_fast_()
    assert torch.equal(logits(model), expected)
    assert len(calls) == len(weight_groups(model))
    assert torch.equal(logits(model), expected)
    assert len(calls) == len(weight_groups(model))
    with torch.no_grad():
        parameter_of(model.encoder.layers[0].fc1).mul_(2)
    assert not torch.equal(logits(model), expected)
    assert len(calls) == len(weight_groups(model)) + 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_effective_state_makes_a_plain_model_of_equal_outputs(architecture):
    model, plain = compressed(architecture), make_model(architecture)
    state = effective_state(model)
    assert list(state) == list(plain.state_dict())
    tied = [key for key in state if state[key].data_ptr() == state["decoder.output_projection.weight"].data_ptr()]
    assert tied == ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "decoder.output_projection.weight"]
    plain.load_state_dict(state)
    assert torch.equal(logits(plain.eval()), logits(model))


def test_a_schedule_follows_the_updates():
    quantizer = LinearQuantizer(INT4, Ramp(0.1, 0.5, 100, 300))
    found = []
    for update in (0, 100, 150, 300, 999):
        quantizer.set_num_updates(update)
        found.append(quantizer.p)
    assert found == pytest.approx([0.1, 0.1, 0.2, 0.5, 0.5])
    model = compressed("transformer_small", lambda: LinearQuantizer(INT4, Ramp(0.1, 0.5, 100, 300)))
    model.set_num_updates(200)  # as fairseq's trainer does
    assert {chain_of(module).compression.p for module in weight_modules(model).values()} == {0.1 + 0.4 * 0.5}


def test_the_same_seed_draws_the_same_blocks():
    model = compressed("transformer_small", lambda: LinearQuantizer(INT4, Ramp(0.5, 0.5))).train()
    outputs = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        outputs.append(logits(model))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_a_copy_and_half_precision():
    model = compressed("transformer_small").eval()
    assert torch.equal(logits(copy.deepcopy(model)), logits(model))
    assert model.bfloat16().encoder.layers[0].fc1.weight.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        logits(compressed("transformer_small").train()).float().mean().backward()


def test_what_cannot_be_attached():
    model = compressed("transformer_small")
    with pytest.raises(ConfigError, match=r"encoder\.embed_tokens: its weight has a transform already"):
        weight_groups(model)[0].attach(LinearQuantizer(INT4))
    with pytest.raises(ConfigError, match="e: an embedding with max_norm"):
        WeightGroup({"e": nn.Embedding(4, 4, max_norm=1.0)}).attach(LinearQuantizer(INT4))


def test_print_tells_what_is_compressed():
    scheme = LinearScheme(4, "group", 16)
    model = compressed("transformer_small", lambda: LinearQuantizer(scheme, Ramp(0.1, 0.2, 5, 9), 4))
    assert "LinearQuantizer(bits=4, granularity=group, group_size=16, noise=0.1..0.2 in updates 5..9, block=4)" in str(
        model
    )
    assert "LinearQuantizer(bits=4, granularity=row)" in str(compressed("transformer_small"))
