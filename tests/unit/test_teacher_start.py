"""New models that start from a teacher's weights: each weight against a slow computation, and each refusal."""

import argparse
from types import SimpleNamespace

import pytest
import torch
from fairseq import models
from fairseq.data import Dictionary

import fairseq_compress.models as our_models  # noqa: F401 - registers them
from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.layer_map import even_start_layers, parse_layer_map
from fairseq_compress.modules.axes import parameter_axes
from fairseq_compress.surgery.plain_parameters import plain_shapes
from fairseq_compress.surgery.reductions import leading, principal, reduce_gain, reduce_weight
from fairseq_compress.surgery.teacher_layers import choose_layers
from fairseq_compress.surgery.teacher_start import initialize_from, size_problems
from fairseq_compress.weights.attach import attach_plan
from fairseq_compress.weights.groups import effective_state
from fairseq_compress.weights.reading import parse_plan

DICTIONARY = Dictionary()
for number in range(40 - len(DICTIONARY)):
    DICTIONARY.add_symbol(f"w{number}")
TASK = SimpleNamespace(source_dictionary=DICTIONARY, target_dictionary=DICTIONARY)
APART = {
    "share_all_embeddings": False, "share_decoder_input_output_embed": False, "encoder_learned_pos": True,
    "decoder_learned_pos": True, "max_source_positions": 30, "max_target_positions": 30,
    "encoder_normalize_before": True, "decoder_normalize_before": True, "layernorm_embedding": True,
}  # fmt: skip
WIDE = APART | {
    "encoder_layers": 3, "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 24, "encoder_attention_heads": 4,
    "decoder_layers": 2, "decoder_embed_dim": 12, "decoder_ffn_embed_dim": 20, "decoder_attention_heads": 2,
}  # fmt: skip
NARROW = APART | {  # the encoder has fewer heads, the decoder as many that are narrower
    "encoder_layers": 2, "encoder_embed_dim": 8, "encoder_ffn_embed_dim": 10, "encoder_attention_heads": 2,
    "decoder_layers": 1, "decoder_embed_dim": 6, "decoder_ffn_embed_dim": 14, "decoder_attention_heads": 2,
}  # fmt: skip
HEADS = {"encoder": ([0, 1], 4, 4), "decoder": ([0, 1], 6, 3)}  # kept heads, width of the teacher's, of the student's


def make(seed=1, architecture="transformer_small", **values):
    """All weights are random, also biases and gains."""
    torch.manual_seed(seed)
    model = models.build_model(argparse.Namespace(arch=architecture, **values), TASK)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model


def start(student, teacher, widths="refuse", layers=None):
    given, wrong = parse_layer_map(layers) if layers else ({}, [])
    chosen, more = choose_layers(given, student, teacher)
    assert wrong + more == []
    initialize_from(student, teacher, chosen, widths, "teacher.pt")
    return chosen


def sliced_rows(part):
    heads, theirs, ours = HEADS[part]
    return [head * theirs + place for head in heads for place in range(ours)]


def slow(key, weight, streams):
    """The student's weight for a teacher's, the rules written out: a matrix for each stream, lists of kept rows."""
    part, module, kind = key.split(".")[0], key.split(".")[-2], key.split(".")[-1]
    attention = key.split(".")[-3] if module.endswith("_proj") else ""
    reads = streams["encoder" if attention == "encoder_attn" and module in ("k_proj", "v_proj") else part].double()
    own, weight = streams[part].double(), weight.double()
    ffn = {"encoder": 10, "decoder": 14}[part]
    if "layer_norm" in module or module == "layernorm_embedding":
        return (own.t() @ torch.diag(weight) @ own).diagonal() if kind == "weight" else own.t() @ weight
    if module in ("embed_tokens", "embed_positions", "output_projection"):
        return weight @ own
    if module in ("q_proj", "k_proj", "v_proj"):
        kept = weight[sliced_rows(part)]
        return kept @ reads if kind == "weight" else kept
    if module == "out_proj":
        return own.t() @ weight[:, sliced_rows(part)] if kind == "weight" else own.t() @ weight
    if module == "fc1":
        return weight[:ffn] @ own if kind == "weight" else weight[:ffn]
    assert module == "fc2"
    return own.t() @ weight[:, :ffn] if kind == "weight" else own.t() @ weight


@pytest.mark.parametrize("widths", ["slices", "svd"])
def test_every_weight_is_that_of_the_slow_computation(widths):
    teacher, student = make(**WIDE), make(2, **NARROW)
    weights = {key: value.detach().clone() for key, value in teacher.named_parameters()}
    start(student, teacher, widths, "encoder:2,1")
    streams = {}
    for part, width in (("encoder", 8), ("decoder", 6)):
        table = weights[f"{part}.embed_tokens.weight"]
        streams[part] = torch.eye(table.size(1))[:, :width]
        if widths == "svd":
            directions = torch.linalg.svd(table.double()).Vh[:width].t()
            signs = torch.stack([column[column.abs().argmax()].sign() for column in directions.t()])
            streams[part] = directions * signs
    for key, value in student.named_parameters():
        source = key.replace("encoder.layers.0", "encoder.layers.2")
        expected = slow(key, weights[source], streams)
        assert value.shape == expected.shape, key
        assert torch.allclose(value.double(), expected, atol=2e-5), key
        if widths == "slices":
            assert torch.equal(value, expected.float()), key


def test_axes_are_known_for_every_weight_of_a_transformer():
    model = make(**WIDE)
    axes = parameter_axes(model)
    assert all(len(axes[key]) == len(shape) for key, shape in plain_shapes(model).items())


def test_the_projected_table_is_its_truncated_svd():
    table = torch.randn(30, 7)
    axis = principal(table, 3)
    left, values, _ = torch.linalg.svd(table.double(), full_matrices=False)
    assert torch.allclose(reduce_weight(table, [leading(30, 30), axis]).abs().double(),
                          (left * values)[:, :3].abs(), atol=1e-5)  # fmt: skip
    assert torch.allclose(axis.directions.t() @ axis.directions, torch.eye(3).double())
    assert torch.equal(axis.directions, principal(table, 3).directions)
    assert principal(table, 7).directions is None
    assert reduce_gain(torch.full((7,), 2.0), axis).tolist() == pytest.approx([2.0] * 3)  # of unit directions


def test_heads_by_hand():
    assert leading(12, 8, 3, 2).index.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert leading(12, 4, 3, 2).index.tolist() == [0, 1, 4, 5]
    assert leading(12, 12, 3, 3).index is None


@pytest.mark.parametrize(
    ("student", "teacher", "layers"),
    [(1, 6, [0]), (2, 6, [0, 5]), (3, 6, [0, 2, 5]), (4, 6, [0, 2, 3, 5]), (6, 6, [0, 1, 2, 3, 4, 5]), (0, 6, [])],
)
def test_layers_are_even_start_layers(student, teacher, layers):
    assert even_start_layers(student, teacher) == layers


@pytest.mark.parametrize("architecture", ["transformer", "transformer_small"])
def test_equal_widths_are_copied_bit_for_bit_and_told(architecture, caplog):
    """From stock fairseq's transformer or ours; a part that is left out keeps its start."""
    teacher, student = make(architecture=architecture, **WIDE), make(2, **WIDE | {"encoder_layers": 2})
    before = {key: value.detach().clone() for key, value in student.named_parameters()}
    with caplog.at_level("INFO"):
        start(student, teacher, "svd", "decoder:none")
    weights = teacher.state_dict()
    for key, value in student.named_parameters():
        left = key.startswith("decoder.layers")
        source = key.replace("encoder.layers.1", "encoder.layers.2")
        assert torch.equal(value, before[key] if left else weights[source]), key
    lines = [record.getMessage().removeprefix("start from teacher.pt: ") for record in caplog.records]
    assert "encoder.layers.1 <- encoder.layers.2: copied" in lines
    assert "encoder.embed_tokens <- encoder.embed_tokens: copied" in lines
    assert "left as initialized: decoder.layers.0, decoder.layers.1" in lines
    assert "not taken from it: encoder.layers.1, decoder.layers.0, decoder.layers.1" in lines
    assert student.encoder.layer_norm is not None
    assert student.decoder.layer_norm is not None


def test_what_the_teacher_lacks_is_told(caplog):
    teacher = make(**WIDE | {"layernorm_embedding": False, "encoder_learned_pos": False})
    with caplog.at_level("INFO"):
        start(make(2, **NARROW), teacher, "svd")
    text = caplog.text
    assert "left as initialized: encoder.embed_positions, encoder.layernorm_embedding, decoder.layernorm_emb" in text
    assert "encoder.layers.1 <- encoder.layers.2: projected (svd), kept energy " in text


def test_kept_energy_is_that_of_the_table(caplog):
    teacher = make(**WIDE)
    with caplog.at_level("INFO"):
        start(make(2, **NARROW), teacher, "svd")
    values = torch.linalg.svdvals(teacher.encoder.embed_tokens.weight.double()).square()
    share = 100 * values[:8].sum() / values.sum()
    assert f"encoder.embed_tokens <- encoder.embed_tokens: projected (svd), kept energy {share:.1f}%" in caplog.text


def test_shared_tables():
    """A student that shares tables needs them shared in the teacher, or equal; one that does not may have a sharer."""
    shared = WIDE | {"share_all_embeddings": True, "decoder_embed_dim": 16}
    apart = WIDE | {"decoder_embed_dim": 16}
    with pytest.raises(ConfigError, match=r"shares the weight of encoder.embed_tokens.weight, decoder.*different"):
        start(make(2, **shared), make(**apart))
    student, teacher = make(2, **apart), make(**shared)
    start(student, teacher)
    for module in (student.encoder.embed_tokens, student.decoder.embed_tokens, student.decoder.output_projection):
        assert torch.equal(module.weight, teacher.encoder.embed_tokens.weight)


PLAN = """
weights:
  - {modules: ["*.layers.*"], bits: 8}
  - {modules: ["*.embed_tokens"], method: codebook, bits: 4}
activations: [{modules: ["*.fc1"]}]
"""


def test_compressed_student_and_compressed_teacher(tmp_path):
    """The student's transforms start from the plain weights; of the teacher the effective weights are taken."""
    teacher, student = make(**WIDE), make(2, **WIDE)
    plan = parse_plan(PLAN, "plan")
    attach_plan(plan, student)
    start(student, teacher)
    plain = teacher.state_dict()
    assert torch.equal(student.state_dict()["decoder.layers.1.fc2.weight"], plain["decoder.layers.1.fc2.weight"])
    table = student.encoder.embed_tokens.weight
    assert len(table.unique()) <= 16
    assert 0 < (table - plain["encoder.embed_tokens.weight"]).abs().mean() < 0.2
    other = make(3, **WIDE)
    effective = {key: value.clone() for key, value in effective_state(student).items()}
    start(other, student)
    assert all(torch.equal(value, effective[key]) for key, value in other.named_parameters())


def problems_of_sizes(teacher, student, widths, layers=None):
    chosen, wrong = choose_layers(parse_layer_map(layers)[0] if layers else {}, student, teacher)
    return wrong + size_problems(teacher, student, chosen, widths)


def test_sizes_are_refused_in_one_go():
    student = make(**NARROW | {"decoder_embed_dim": 18, "encoder_layers": 4, "max_source_positions": 40})
    assert problems_of_sizes(make(**WIDE), student, "refuse", "decoder:7,1") == [
        "--init-layers: must list the teacher's layers for the encoder, which has more of them than the teacher, "
        "got nothing for 4 from 3",
        "--init-layers: must name 1 layers of the decoder, one for each of the student's, got 2",
        "--init-layers: must name layers 0 to 1 of the teacher's decoder, got 7",
        "--init-from-teacher: the student must be no larger than the teacher, got encoder positions 42 from 32, "
        "decoder width 18 from 12, decoder head width 9 from 6",
        "--init-widths: must be slices or svd where the student is smaller than the teacher, got refuse and "
        "encoder width 8 from 16, encoder FFN width 10 from 24, encoder heads 2 from 4, decoder FFN width 14 from 20",
    ]
    assert problems_of_sizes(make(**WIDE), make(**NARROW), "slices") == []
    wide_head = make(**NARROW | {"encoder_attention_heads": 1})
    assert "encoder head width 8 from 4" in problems_of_sizes(make(**WIDE), wide_head, "svd")[0]
    assert problems_of_sizes(make(**WIDE), wide_head, "svd", "encoder:none") == []
