"""Losses between projected weights: slow loops in float64, numbers worked out by hand, models of other sizes."""

import argparse
from types import SimpleNamespace

import pytest
import torch
from fairseq import models
from fairseq.data import Dictionary
from hypothesis import given, settings
from hypothesis import strategies as st

import fairseq_compress.models as our_models  # noqa: F401 - registers them
from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.layer_map import read_layer_map
from fairseq_compress.functional.losses.projection_losses import WeightPair, down_loss, up_loss
from fairseq_compress.modules.projections import SharedProjections
from fairseq_compress.teachers.matched_weights import matched_weights, projection_sizes

DICTIONARY = Dictionary()
TASK = SimpleNamespace(source_dictionary=DICTIONARY, target_dictionary=DICTIONARY)
TEACHER = {
    "encoder_layers": 3, "encoder_embed_dim": 12, "encoder_ffn_embed_dim": 20, "encoder_attention_heads": 2,
    "decoder_layers": 2, "decoder_embed_dim": 8, "decoder_ffn_embed_dim": 10, "decoder_attention_heads": 2,
    "share_all_embeddings": False, "share_decoder_input_output_embed": True,
}  # fmt: skip
STUDENT = TEACHER | {
    "encoder_layers": 2, "encoder_embed_dim": 6, "encoder_ffn_embed_dim": 14, "decoder_layers": 3,
    "decoder_embed_dim": 4, "decoder_ffn_embed_dim": 10,
}  # fmt: skip
SIZES = {"encoder heads": (6, 12), "encoder width": (6, 12), "encoder FFN width": (14, 20),
         "decoder heads": (4, 8), "decoder width": (4, 8), "decoder FFN width": (10, 10)}  # fmt: skip


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(seed=1, architecture="transformer_small", **values):
    torch.manual_seed(seed)
    return models.build_model(argparse.Namespace(arch=architecture, **values), TASK)


def loop(goal, left, middle, right):
    """‖goal - left middle right‖², one entry and one product at a time."""
    goal, left, middle, right = (matrix.tolist() for matrix in (goal, left, middle, right))
    total = 0.0
    for i, row in enumerate(goal):
        for j, wanted in enumerate(row):
            inside = range(len(middle)), range(len(middle[0]))
            found = sum(left[i][k] * middle[k][m] * right[m][j] for k in inside[0] for m in inside[1])
            total += (wanted - found) ** 2
    return total


def loop_gradient(goal, left, middle, right):
    """By the four matrices, from R = goal - left middle right: 2 R, -2 R (M r)ᵀ, -2 lᵀ R rᵀ, -2 (l M)ᵀ R."""
    rest = goal - left @ middle @ right
    return 2 * rest, -2 * rest @ (middle @ right).t(), -2 * left.t() @ rest @ right.t(), -2 * (left @ middle).t() @ rest


size = st.integers(1, 4)


@settings(deadline=None, max_examples=20)
@given(outputs=st.tuples(size, size), inputs=st.tuples(size, size))
def test_equal_the_loops_in_all_shapes(outputs, inputs):
    """Of a student that is narrower, wider, or both."""
    (o_s, o_t), (i_s, i_t) = outputs, inputs
    student, teacher = draw(o_s, i_s), draw(o_t, i_t, seed=1)
    u_out, v_in, v_out, u_in = (
        draw(*shape, seed=2 + n) for n, shape in enumerate([(o_s, o_t), (i_t, i_s), (o_t, o_s), (i_s, i_t)])
    )
    down, up = down_loss(student, teacher, u_out, v_in), up_loss(student, teacher, v_out, u_in)
    assert down.item() == pytest.approx(loop(student, u_out, teacher, v_in), rel=1e-12)
    assert up.item() == pytest.approx(loop(teacher, v_out, student, u_in), rel=1e-12)


def test_worked_out_by_hand():
    """(1 2) (1 2; 3 4) (1; 1)  = (7 10) (1; 1) = 17, of 20 it lacks 3; (1; 2) 20 (1 0) = (20 0; 40 0)."""
    student, teacher = torch.tensor([[20.0]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert down_loss(student, teacher, torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0], [1.0]])).item() == 9
    up = up_loss(student, teacher, torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0, 0.0]]))
    assert up.item() == 19**2 + 2**2 + 37**2 + 4**2


@pytest.mark.parametrize("loss", [down_loss, up_loss])
def test_gradients(loss):
    shapes = [(3, 2), (5, 4), (3, 5), (4, 2)] if loss is down_loss else [(3, 2), (5, 4), (5, 3), (2, 4)]
    student, teacher, left, right = (draw(*shape, seed=n).requires_grad_() for n, shape in enumerate(shapes))
    assert torch.autograd.gradcheck(loss, (student, teacher, left, right))
    loss(student, teacher, left, right).backward()
    goal, middle = (student, teacher) if loss is down_loss else (teacher, student)
    expected = loop_gradient(goal, left, middle, right)
    for matrix, gradient in zip((goal, left, middle, right), expected, strict=True):
        assert torch.allclose(matrix.grad, gradient)


def test_float32_inside_whatever_is_around():
    given = draw(3, 2).float(), draw(5, 4).float(), draw(3, 5).float(), draw(4, 2).float()
    exact = down_loss(*given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(down_loss(*given), exact)
    half = given[0].bfloat16(), given[1].bfloat16(), *given[2:]
    assert torch.equal(down_loss(*half), down_loss(half[0].float(), half[1].float(), *given[2:]))
    assert down_loss(*half).dtype == torch.float32


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"weight_s must be of the shape of u_out @ weight_t @ v_in, got"):
        down_loss(draw(3, 2), draw(5, 4), draw(5, 3), draw(4, 2))
    with pytest.raises(ValueError, match="weight_t must be of the shape of v_out @ weight_s @ u_in"):
        up_loss(draw(3, 2), draw(5), draw(5, 3), draw(2, 4))


@pytest.mark.parametrize("direction", ["up", "down", "both"])
def test_all_matrices_of_layers_are_compared(direction):
    student, teacher = make(**STUDENT), make(2, **TEACHER)
    matched = matched_weights(student, teacher)
    names = {name for name, value in student.named_parameters() if ".layers." in name and value.dim() == 2}
    assert {weight.name for weight in matched} == names
    assert len(matched) == 2 * 6 + 3 * 10
    maps = {"encoder": {0: 1, 1: 2}, "decoder": {0: 0, 1: 0, 2: 1}}
    parameters = [dict(model.named_parameters()) for model in (student, teacher)]
    for weight in matched:
        part, _, number, rest = weight.name.split(".", 3)
        assert weight.teacher_name == f"{part}.layers.{maps[part][int(number)]}.{rest}"
        assert weight.student() is parameters[0][weight.name]
        assert weight.teacher() is parameters[1][weight.teacher_name]
    assert projection_sizes(matched) == SIZES
    shared = SharedProjections(SIZES, direction, {weight.axes for weight in matched}).double()
    losses = shared.loss(WeightPair(axes, s.double(), t.double()) for axes, s, t in (w.pair() for w in matched))
    u = {kind: shared.u[kind.replace(" ", "_")] for kind in SIZES}
    v = {kind: shared.v[kind.replace(" ", "_")] for kind in SIZES}
    down = up = torch.zeros(())
    for weight in matched:
        s, t, (o, i) = weight.student().detach().double(), weight.teacher().detach().double(), weight.axes
        down = down + (u[o] @ t @ v[i] - s).square().sum().detach() * (direction != "up")
        up = up + (t - v[o] @ s @ u[i]).square().sum().detach() * (direction != "down")
    for found, expected in ((losses.down, down), (losses.up, up)):
        assert found.item() == pytest.approx(float(expected), rel=1e-12)
    losses.total.backward()
    assert all(parameter.grad is not None for parameter in shared.parameters())
    used = names, {weight.teacher_name for weight in matched}  # of the teacher's three layers two are paired
    for values, own in zip(parameters, used, strict=True):
        assert {name for name, value in values.items() if value.grad is not None} == own


def test_a_map_leaves_layers_out_and_models_may_lack_matrices():
    student = make(**STUDENT | {"decoder_self_attention": "ssru"})
    layer_map = read_layer_map("encoder:-,0 decoder:-,-,1")
    matched = matched_weights(student, make(2, **TEACHER), layer_map)
    assert any("forget" in name for name, _ in student.named_parameters())
    assert {weight.name.split(".self_attn")[0] for weight in matched if "self_attn" in weight.name} == {
        "encoder.layers.1"
    }
    assert len(matched) == 6 + 6  # cross-attention and feed-forward network of the decoder
    with pytest.raises(ConfigError, match="layer map: must name 2 layers of the encoder"):
        matched_weights(student, make(2, **TEACHER), read_layer_map("encoder:1 decoder:-,-,1"))
    with pytest.raises(ConfigError, match="must pair layers that have a matrix in common"):
        matched_weights(student, make(2, **TEACHER), read_layer_map("encoder:-,- decoder:-,-,-"))


def test_compressed_matrices_count_as_what_they_stand_for():
    student = make(**STUDENT | {"linear_ranks": "encoder.*.fc1=2", "encoder_layer_groups": 1})
    matched = {weight.name: weight for weight in matched_weights(student, make(2, **TEACHER))}
    weight = matched["encoder.layers.1.fc1.weight"]
    assert torch.equal(weight.student(), student.encoder.layers[1].fc1.dense_weight())
    assert weight.shapes == ((14, 6), (20, 12))
    SharedProjections(SIZES, "down").loss([weight.pair()]).total.backward()
    assert all(parameter.grad is not None for name, parameter in student.encoder.layers[1].fc1.named_parameters()
               if "bias" not in name)  # fmt: skip


def test_the_start_is_a_way_up_and_down_again():
    torch.manual_seed(3)
    shared = SharedProjections({"a b": (3, 7), "c": (5, 5), "d": (6, 2)}, "both")
    for name, small in (("a_b", 3), ("c", 5)):
        u, v = shared.u[name], shared.v[name]
        assert torch.allclose(u @ v, torch.eye(small), atol=1e-5)
        assert torch.allclose(u @ u.t(), torch.eye(small), atol=1e-5)
    assert torch.allclose(shared.v["d"] @ shared.u["d"], torch.eye(2), atol=1e-5)
    assert shared.u["c"].data_ptr() != shared.v["c"].data_ptr()
    assert list(shared.state_dict()) == ["u.a_b", "u.c", "u.d", "v.a_b", "v.c", "v.d"]
    torch.manual_seed(3)
    again = SharedProjections({"a b": (3, 7), "c": (5, 5), "d": (6, 2)}, "both")
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in shared.state_dict().items())
    other = SharedProjections(shared.sizes, "both")
    other.load_state_dict(shared.state_dict())
    assert torch.equal(other.u["a_b"], shared.u["a_b"])
    assert "direction=both, a b: 3 of 7, c: 5 of 5, d: 6 of 2" in repr(shared)


def test_only_what_a_direction_uses_is_there():
    axes = [("out", "in")]
    keys = {
        direction: sorted(SharedProjections({"out": (2, 3), "in": (2, 3)}, direction, axes).state_dict())
        for direction in ("up", "down", "both")
    }
    assert keys == {"up": ["u.in", "v.out"], "down": ["u.out", "v.in"], "both": ["u.in", "u.out", "v.in", "v.out"]}
