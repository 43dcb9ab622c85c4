"""Which layer learns from which, when, and the maps between unequal ones."""

import math

import pytest
import torch

from fairseq_compress.functional.layer_map import (
    Moment,
    Pair,
    Transfer,
    even_layers,
    layer_map_problems,
    pairs_of,
    parse_layer_map,
    read_layer_map,
)
from fairseq_compress.modules.layer_maps import LayerMaps


@pytest.mark.parametrize(
    ("student", "teacher", "want"),
    [
        (3, 6, [1, 3, 5]),
        (2, 6, [2, 5]),
        (1, 6, [5]),
        (6, 6, [0, 1, 2, 3, 4, 5]),
        (4, 6, [1, 2, 4, 5]),
        (4, 2, [0, 0, 1, 1]),
        (6, 2, [0, 0, 0, 0, 1, 1]),
        (5, 7, [0, 2, 3, 5, 6]),
    ],
)
def test_the_default_spreads_evenly(student, teacher, want):
    assert even_layers(student, teacher) == want


def test_a_map_is_read():
    layers = read_layer_map(" decoder:2,-  encoder:1,10,0 ")
    assert layers == {"encoder": [1, 10, 0], "decoder": [2, None]}
    assert pairs_of(layers) == (
        Pair("encoder", 0, 1), Pair("encoder", 1, 10), Pair("encoder", 2, 0), Pair("decoder", 0, 2)
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["", "encoder:1", "encoder:1 encoder:2", "encoder:1 decoder:", "encoder:1,,2 decoder:1", "encoder:1.5 decoder:1",
     "encoder:-1 decoder:1", "encoder: 1 decoder:1", "cross:1 decoder:1 encoder:1", "encoder:¹ decoder:1"],
)  # fmt: skip
def test_other_forms_are_refused(text):
    with pytest.raises(ValueError, match=text or "^$"):
        read_layer_map(text)


def test_depths_are_checked():
    layers = {"encoder": [1, 6, None], "decoder": [2]}
    student, teacher = {"encoder": 2, "decoder": 1}, {"encoder": 6, "decoder": 2}
    assert layer_map_problems(layers, student, teacher) == [
        "must name 2 layers of the encoder, one for each of the student's, got 3",
        "must name layers 0 to 5 of the teacher's encoder, got 6",
        "must name layers 0 to 1 of the teacher's decoder, got 2",
    ]
    assert layer_map_problems({"encoder": [None] * 2, "decoder": [1]}, student, teacher) == []
    assert layer_map_problems(read_layer_map("encoder:none decoder:1"), student, teacher) == []


@pytest.mark.parametrize("text", ["", "encoder", "encoder:", "encoder:1/2", "coder:1", "encoder:-1", "encoder:1,"])
def test_what_is_wrong_with_a_map_is_told(text):
    form = "must be parts such as encoder:0,2,4 or decoder:none, separated by a space"
    assert parse_layer_map(text) == ({}, [f"{form}, got {text!r}"])


def test_parts_of_a_map():
    assert parse_layer_map("decoder:none encoder:0,-,2") == ({"decoder": [], "encoder": [0, None, 2]}, [])
    assert parse_layer_map("encoder:1 encoder:2")[1] == ["must name encoder once, got 'encoder:1 encoder:2'"]


PAIRS = (Pair("encoder", 0, 1), Pair("encoder", 1, 3), Pair("decoder", 0, 5))


def test_all_losses_at_once():
    transfer = Transfer("auxiliary", 0, PAIRS)
    assert {transfer.at(update) for update in (0, 1, 10**6)} == {Moment(True, True, PAIRS)}
    assert transfer.last == Moment(True, True, PAIRS)


def test_layers_first():
    transfer = Transfer("joint", 2, PAIRS)
    layers, output = Moment(False, True, PAIRS), Moment(True, False, ())
    assert [transfer.at(update) for update in range(4)] == [layers, layers, output, output]
    assert transfer.last == output
    assert transfer.whole == Moment(True, True, PAIRS)


@pytest.mark.parametrize(
    ("updates", "stages"), [(3, [0, 1, 2]), (6, [0, 0, 1, 1, 2, 2]), (8, [0, 0, 0, 1, 1, 1, 2, 2])]
)
def test_one_layer_after_the_other(updates, stages):
    transfer = Transfer("progressive", updates, PAIRS)
    assert [transfer.at(update) for update in range(updates)] == [
        Moment(False, True, (PAIRS[stage],), stage) for stage in stages
    ]
    assert transfer.at(updates) == transfer.last == Moment(True, False, ())


@pytest.mark.parametrize(
    ("kind", "updates", "stages"), [("joint", 40, [(0, 40)]), ("progressive", 40, [(0, 14), (14, 27), (27, 40)])]
)
def test_each_stage_warms_up_over_a_tenth_and_falls_to_nine_tenths(kind, updates, stages):
    """min(10 (u + 1) / U, 0.9 + 0.1 √(1 - u / U)), u updates into a stage of U."""
    transfer = Transfer(kind, updates, PAIRS)
    for begin, end in stages:
        length = end - begin
        found = [transfer.rate(update) for update in range(begin, end)]
        assert found[0] == pytest.approx(10 / length)
        top = found.index(max(found))
        assert top == math.ceil(length / 10) - 1
        assert found == found[: top + 1] + sorted(found[top + 1 :], reverse=True)
        assert found[-1] == pytest.approx(0.9 + 0.1 * length**-0.5)


def test_a_stage_of_one_update_has_the_whole_rate():
    assert [Transfer("progressive", 3, PAIRS).rate(update) for update in range(3)] == [1.0] * 3


def test_no_map_no_parameter():
    maps = LayerMaps({"encoder_0": (8, 8)})
    assert list(maps.parameters()) == []
    hidden = torch.randn(3, 8)
    assert maps("encoder_0", hidden) is hidden
    assert maps.nothing() == 0


def test_widths_are_mapped_in_float32():
    maps = LayerMaps({"encoder_0": (4, 6), "decoder_0": (6, 6)}).bfloat16()
    assert list(maps.state_dict()) == ["linear.encoder_0"]
    hidden = torch.randn(3, 4, dtype=torch.bfloat16)
    mapped = maps("encoder_0", hidden)
    assert mapped.dtype == torch.float32
    torch.testing.assert_close(mapped, hidden.float() @ maps.linear["encoder_0"].float().T)
    assert maps("encoder_0", hidden.double()).dtype == torch.float64


def test_heads_are_aligned_by_a_pointwise_convolution_with_bias():
    maps = LayerMaps({}, {"encoder": (3, 5)})
    assert {name: tuple(value.shape) for name, value in maps.state_dict().items()} == {
        "heads.encoder.weight": (5, 3, 1, 1), "heads.encoder.bias": (5,)
    }  # fmt: skip
    first, second = torch.rand(2, 1, 4, 6), torch.rand(2, 2, 4, 6)
    weight, bias = (parameter.double() for parameter in maps.heads["encoder"].parameters())
    stacked = torch.cat([first, second], dim=1).double()
    want = torch.einsum("oh,bhts->bots", weight[:, :, 0, 0], stacked) + bias[:, None, None]
    torch.testing.assert_close(maps.aligned("encoder", [first, second]), want.float())
    torch.testing.assert_close(maps.aligned("encoder", [first.double(), second.double()]), want)


def test_every_parameter_has_a_part_in_nothing():
    maps = LayerMaps({"encoder_0": (4, 6)}, {"cross": (2, 4)})
    maps.nothing().backward()
    assert [parameter.grad.abs().sum().item() for parameter in maps.parameters()] == [0.0, 0.0, 0.0]
