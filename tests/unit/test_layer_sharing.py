"""Layers that share parameters: which, gradients, state dicts, decoding."""

import argparse
import copy
import io

import pytest
import torch
from fairseq import models

import fairseq_compress.models as our_models  # noqa: F401 - registers them
from fairseq_compress.architecture.configuration import sharing_leaders
from fairseq_compress.errors import ConfigError
from fairseq_compress.modules.layer_sharing import leaders_of
from fairseq_compress.surgery.plain_parameters import dense_state
from fairseq_compress.surgery.teacher_layers import choose_layers
from fairseq_compress.surgery.teacher_start import initialize_from
from fairseq_compress.weights.attach import attach_plan
from fairseq_compress.weights.reading import parse_plan
from tests.helpers.structures import TASK

SIZES = {
    "encoder_layers": 4, "decoder_layers": 3, "encoder_embed_dim": 8, "encoder_ffn_embed_dim": 12, "dropout": 0.0,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2,
}  # fmt: skip
TOKENS = torch.tensor([[5, 6, 7, 8, 2], [9, 10, 2, 1, 1]])
LENGTHS = torch.tensor([5, 3])
PREVIOUS = torch.tensor([[2, 11, 12, 13], [2, 14, 15, 1]])


def make(**values):
    torch.manual_seed(1)
    model = models.build_model(argparse.Namespace(arch="transformer_small", **(SIZES | values)), TASK)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def logits(model):
    return model(TOKENS, LENGTHS, PREVIOUS)[0]


@pytest.mark.parametrize(("order", "expected"), [("sequence", "AABBCC"), ("cycle", "ABCABC"), ("cycle_rev", "ABCCBA")])
def test_orders_of_sharing(order, expected):
    leaders = sharing_leaders(6, 3, order)
    assert leaders == [expected.index(letter) for letter in expected]


def test_groups_that_do_not_divide_the_layers():
    assert sharing_leaders(5, 2) == [0, 0, 0, 3, 3]
    assert sharing_leaders(5, 2, "cycle") == [0, 1, 0, 1, 0]
    assert sharing_leaders(5, 3, "cycle_rev") == [0, 1, 2, 2, 1]
    assert sharing_leaders(4, 4, "cycle_rev") == [0, 1, 2, 3]
    assert sharing_leaders(6, 4, "cycle_rev") == [0, 1, 2, 3, 3, 2]


@pytest.mark.parametrize("count", range(1, 13))
def test_cycle_rev_is_that_of_the_published_code(count):
    """A cycle of G new layers, further cycles while two are left, then backwards from the G-th (arXiv:2104.06022)."""
    for groups in range(1, count + 1):
        numbers = list(range(groups))
        numbers += [i % groups for i in range(count - 2 * groups)]
        numbers += [groups - 1 - i for i in range(count - len(numbers))]
        assert sharing_leaders(count, groups, "cycle_rev") == numbers


@pytest.mark.parametrize(("count", "groups", "order"), [(4, 5, "sequence"), (4, 0, "cycle"), (4, 2, "spiral")])
def test_impossible_sharing_is_refused(count, groups, order):
    with pytest.raises(ConfigError, match="layer"):
        sharing_leaders(count, groups, order)


def test_a_shared_model_is_the_unshared_one_with_equal_layers():
    shared, plain = make(encoder_layer_groups=2, decoder_layer_groups=1), make()
    plain.load_state_dict(dense_state(shared), strict=True)
    assert torch.equal(logits(shared.eval()), logits(plain.eval()))
    assert leaders_of(shared.encoder.layers) == (0, 0, 2, 2)
    assert leaders_of(plain.encoder.layers) == (0, 1, 2, 3)


def test_gradients_of_all_uses_add_up():
    shared, plain = make(encoder_layer_groups=2, decoder_layer_groups=1), make()
    plain.load_state_dict(dense_state(shared), strict=True)
    weights = torch.randn(2, 4, 30)
    for model in (shared.train(), plain.train()):
        (logits(model) * weights).sum().backward()
    for group in ((0, 1), (2, 3)):
        expected = sum(plain.encoder.layers[number].fc1.weight.grad for number in group)
        torch.testing.assert_close(shared.encoder.layers[group[0]].fc1.weight.grad, expected)
    expected = sum(layer.self_attn.q_proj.weight.grad for layer in plain.decoder.layers)
    torch.testing.assert_close(shared.decoder.layers[0].self_attn.q_proj.weight.grad, expected)


def test_a_checkpoint_stores_a_layer_once():
    shared, one_layer = make(encoder_layer_groups=1), make(encoder_layers=1)
    assert shared.state_dict().keys() == one_layer.state_dict().keys()
    assert sum(p.numel() for p in shared.parameters()) == sum(p.numel() for p in one_layer.parameters())
    sizes = []
    for model in (shared, one_layer):
        file = io.BytesIO()
        torch.save({key: value.clone() for key, value in model.state_dict().items()}, file)  # as from a GPU
        sizes.append(len(file.getvalue()))
    assert sizes[0] == sizes[1]


def test_its_own_state_dict_loads_and_keeps_the_ties():
    shared, other = (
        make(encoder_layer_groups=2, layer_sharing="cycle"),
        make(encoder_layer_groups=2, layer_sharing="cycle"),
    )
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(copy.deepcopy(shared.state_dict()), strict=True)
    assert torch.equal(logits(shared.eval()), logits(other.eval()))
    assert other.encoder.layers[2].fc1.weight is other.encoder.layers[0].fc1.weight


def test_of_an_unshared_state_dict_the_first_layer_of_a_group_counts():
    shared, plain = make(encoder_layer_groups=2), make()
    with torch.no_grad():
        plain.encoder.layers[1].fc1.weight.add_(1.0)
    shared.load_state_dict(plain.state_dict(), strict=True)
    assert torch.equal(shared.encoder.layers[1].fc1.weight, plain.encoder.layers[0].fc1.weight)


def test_a_move_to_another_device_changes_no_key():
    """It copies buffers module by module."""
    options = {"encoder_layer_groups": 2, "sparsity": 0.5}
    model, other = make(**options), make(**options)
    keys = list(model.state_dict())
    model._apply(lambda tensor: tensor.clone())
    assert list(model.state_dict()) == keys
    model.load_state_dict(copy.deepcopy(other.state_dict()), strict=True)
    other.load_state_dict(copy.deepcopy(model.state_dict()), strict=True)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"linear_ranks": "encoder.layers.0.fc1=4"}, "fc1: dense and rank 4 in layers 1 and 0"),
        ({"linear_ranks": "encoder.layers.1.fc1=4"}, "fc1: rank 4 and dense"),
        ({"linear_ranks": "encoder.layers.0.fc1=2,encoder.layers.1.fc1=4"}, "fc1: rank 4 and rank 2"),
        ({"sparsity": 0.5, "sparse_modules": "encoder.layers.0.fc1"}, "fc1: dense and sparsity 0.5"),
    ],
)
def test_layers_that_share_must_be_alike(options, told):
    with pytest.raises(ConfigError, match=r"--encoder-layer-groups: .*must be alike") as error:
        make(encoder_layer_groups=1, **options)
    assert told in str(error.value)


@pytest.mark.parametrize("order", ["sequence", "cycle", "cycle_rev"])
def test_a_student_of_the_same_sharing_starts_as_its_teacher(order):
    options = {"encoder_layer_groups": 2, "layer_sharing": order}
    teacher, student = make(**options), make(**options)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    layers, problems = choose_layers({}, student, teacher)
    assert problems == []
    initialize_from(student, teacher, layers, "refuse", "teacher.pt")
    assert torch.equal(logits(student.eval()), logits(teacher.eval()))


def test_the_layers_that_a_sharing_student_starts_from():
    dense = make(encoder_layers=6)
    for groups, order, expected in [(3, "sequence", [0, 0, 2, 2, 4, 4]), (2, "cycle", [0, 1, 0, 1, 0, 1])]:
        student = make(encoder_layers=6, encoder_layer_groups=groups, layer_sharing=order)
        assert choose_layers({}, student, dense)[0]["encoder"] == expected
    deeper = make(encoder_layers=8, encoder_layer_groups=2)
    layers, problems = choose_layers({}, deeper, dense)
    assert layers["encoder"] == [0, 0, 0, 0, 5, 5, 5, 5]
    assert problems == []


def test_decoding_step_by_step_is_teacher_forcing():
    """Layers that share must not share their caches."""
    model = make(decoder_layer_groups=1).eval()
    encoded = model.encoder(TOKENS, LENGTHS)
    whole = model.decoder(PREVIOUS[:1], encoder_out=model.encoder.reorder_encoder_out(encoded, torch.tensor([0])))[0]
    encoded = model.encoder.reorder_encoder_out(encoded, torch.tensor([0]))
    state: dict = {}
    for step in range(1, 5):
        out = model.decoder(PREVIOUS[:1, :step], encoder_out=encoded, incremental_state=state)[0]
        torch.testing.assert_close(out[:, -1], whole[:, step - 1], atol=1e-5, rtol=0)


def test_a_plan_quantizes_shared_layers_once_and_ranges_stay_apart():
    plan = "weights:\n  - {modules: ['*.fc1'], bits: 8}\nactivations:\n  - {modules: ['*.fc1'], bits: 8}\n"
    model = make(encoder_layer_groups=1)
    attach_plan(parse_plan(plan, "plan"), model)
    model.train()
    logits(model)
    state = model.state_dict()
    ranges = [key for key in state if "encoder.layers" in key and "fc1" in key and key.endswith("largest")]
    assert len(ranges) == 4
    assert [key for key in state if key.endswith("fc1.weight") and "encoder" in key] == ["encoder.layers.0.fc1.weight"]
    other = make(encoder_layer_groups=1)
    attach_plan(parse_plan(plan, "plan"), other)
    other.load_state_dict(copy.deepcopy(state), strict=True)
    assert torch.equal(logits(model.eval()), logits(other.eval()))
