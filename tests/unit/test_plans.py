"""Compression plans: read, refused with all reasons, attached."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_models import lengths, make_batch, make_model

from fairseq_compress.errors import ConfigError
from fairseq_compress.modules.activation_quantizer import ActivationQuantizer, step_ranges
from fairseq_compress.selection import select
from fairseq_compress.shipped import FOLDERS, shipped, shipped_names
from fairseq_compress.weights.attach import attach_plan
from fairseq_compress.weights.groups import chain_of, weight_modules
from fairseq_compress.weights.methods.block_dropout import BlockDropoutRule
from fairseq_compress.weights.methods.linear import LinearRule
from fairseq_compress.weights.noise import Noise
from fairseq_compress.weights.reading import parse_plan, plan_text, read_plan
from fairseq_compress.weights.rules import ActivationRule, Plan

NAMES = ["encoder.embed_tokens", "encoder.layers.0.fc1", "encoder.layers.0.fc2", "decoder.layers.0.fc1"]


def test_a_whole_plan(tmp_path):
    (tmp_path / "plan.yaml").write_text("""
weights:
  - modules: ["encoder.layers.*", "!*.fc2"]
    bits: 4
    granularity: group
    group_size: 16
    noise: {start: 0.05, end: 0.2, first_update: 10, last_update: 20, block: 4}
  - modules: ["*.embed_tokens"]
  - {modules: ["decoder.layers.*"], method: block_dropout, noise: {start: 0.1}}
activations:
  - modules: ["*.fc?"]
    decay: 0.9
""")
    plan = read_plan(str(tmp_path / "plan.yaml"))
    assert plan == Plan(
        (
            LinearRule(("encoder.layers.*", "!*.fc2"), "linear", 4, "group", 16, Noise(0.05, 0.2, 10, 20, 4)),
            LinearRule(("*.embed_tokens",)),
            BlockDropoutRule(("decoder.layers.*",), "block_dropout", Noise(0.1)),
        ),
        (ActivationRule(("*.fc?",), 8, 0.9),),
    )
    assert plan.weights[0].noise.ramp().at(15) == pytest.approx(0.125)
    assert plan.weights[2].noise.ramp().at(10**6) == 0.1
    assert parse_plan(plan_text(plan)) == plan


def test_small_numbers_as_json_writes_them():
    plan = Plan((LinearRule(("*",), noise=Noise(1e-05, 5e-324)),))
    assert "1e-05" in plan_text(plan)
    assert parse_plan(plan_text(plan)) == plan
    assert parse_plan("weights: [{modules: ['*'], noise: {start: 1e-3}}]").weights[0].noise.start == 0.001


@given(
    bits=st.integers(2, 8), start=st.floats(0, 1), end=st.none() | st.floats(0, 1), first=st.integers(0, 5),
    more=st.integers(0, 5), block=st.integers(1, 9),
)  # fmt: skip
@settings(deadline=None, max_examples=30)
def test_text_and_plan_are_one(bits, start, end, first, more, block):
    plan = Plan((LinearRule(("*",), bits=bits, noise=Noise(start, end, first, first + more, block)),))
    assert parse_plan(plan_text(plan)) == plan
    assert "\n" not in plan_text(plan)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the value: must be a table of keys, got None"),
        ("{}", "must have a rule in weights or activations"),
        ("weights: 3", "weights: must be a list, got 3"),
        ("weights: [fc1]", "weights[0]: must be a table of keys, got 'fc1'"),
        ("weights: [{}]", "weights[0].modules: is missing"),
        ("weights: [{modules: fc1}]", "weights[0].modules: must be a list, got 'fc1'"),
        ("weights: [{modules: [1]}]", "weights[0].modules[0]: must be a text, got 1"),
        ("weights: [{modules: ['*'], bits: 4.5}]", "weights[0].bits: must be a whole number, got 4.5"),
        ("weights: [{modules: ['*'], bits: true}]", "weights[0].bits: must be a whole number, got True"),
        ("weights: [{modules: ['*'], bits: 1}]", "weights[0].bits: must be in [2, 8], got 1"),
        (
            "weights: [{modules: ['*'], method: pq}]",
            "weights[0].method: must be one of block_dropout, codebook, linear, mask, product, got 'pq'",
        ),
        (
            "weights: [{modules: ['*'], granularity: group}]",
            "weights[0].group_size: must be in [1, inf) with granularity group, got 0",
        ),
        ("weights: [{modules: ['*'], noise: {start: 2}}]", "weights[0].noise.start: must be in [0, 1], got 2"),
        ("weights: [{modules: ['*'], noise: {start: .nan}}]", "weights[0].noise.start: must be in [0, 1], got nan"),
        (
            "weights: [{modules: ['*'], noise: {p: 1}}]",
            "weights[0].noise.p: unknown key; available: start, end, ",
        ),
        (
            "weights: [{modules: ['*'], noise: {first_update: 5}}]",
            "weights[0].noise.first_update: must be in [0, last_update (0)], got 5",
        ),
        (
            "weights: [{modules: ['*'], method: block_dropout}]",
            "weights[0].noise.start: must be in [0, 1) with block_dropout, got 1",
        ),
        ("activations: [{modules: ['*'], decay: 1}]", "activations[0].decay: must be in [0, 1), got 1"),
        ("weights: [", "must be YAML: while parsing"),
        ("weigths: []", "weigths: unknown key; did you mean weights? available: weights, activations"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(ConfigError) as error:
        parse_plan(text, "compression plan p.yaml")
    assert f"compression plan p.yaml: {message}" in str(error.value)
    assert "\n" not in str(error.value)


def test_all_problems_at_once():
    text = "{weights: [{modules: ['*'], bits: 1, noise: {start: 2, block: 0}}], activations: [{bits: 9}], more: 1}"
    with pytest.raises(ConfigError) as error:
        parse_plan(text)
    for part in ("more: unknown key", "noise.start", "noise.block", "activations[0].modules: is missing"):
        assert part in str(error.value)


def test_built_in_plans_have_names(tmp_path, monkeypatch):
    """A file of that name comes first, then the copy in an installed package, then the repository's folder."""
    monkeypatch.chdir(tmp_path)
    assert read_plan("int4") == read_plan(shipped("plans", "int4.yaml"))
    assert "ipq-20x" in shipped_names("plans", suffix=".yaml")
    with pytest.raises(ConfigError) as error:
        read_plan("int5")
    message = str(error.value)
    assert message.startswith("compression plan int5: neither a file nor a built-in plan; did you mean int")
    assert "available: int4, int4-noise, int8, " in message
    with pytest.raises(ConfigError, match=r"int4\.yaml: cannot be read: No such file or directory; int4 is a built-in"):
        read_plan("int4.yaml")
    with pytest.raises(ConfigError, match=r"x: not shipped in configs/plans; available: int4, "):
        shipped("plans", "x.yaml")
    installed = tmp_path / "package" / "configs" / "plans"
    installed.mkdir(parents=True)
    (installed / "int4.yaml").write_text("weights: [{modules: ['*'], bits: 3}]")
    monkeypatch.setattr("fairseq_compress.shipped.FOLDERS", (tmp_path / "package" / "configs", *FOLDERS))
    assert read_plan("int4").weights[0].bits == 3
    assert read_plan("int8").weights[0].bits == 8
    (tmp_path / "int4").write_text("weights: [{modules: ['*'], bits: 2}]")
    assert read_plan("int4").weights[0].bits == 2


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.yaml: cannot be read: No such file"):
        read_plan(str(tmp_path / "nothing.yaml"))
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"bytes\.yaml: must be text in UTF-8"):
        read_plan(str(tmp_path / "bytes.yaml"))


def test_selection():
    assert select(NAMES, ["*.fc?"], "modules") == NAMES[1:]
    assert select(NAMES, ["*", "!*.embed_tokens", "!decoder.*"], "modules") == NAMES[1:3]
    assert select(NAMES, ["decoder.*", "encoder.layers.0.fc1"], "modules") == [NAMES[1], NAMES[3]]
    for patterns, message in (
        (["fc9"], "modules: the pattern 'fc9' matches no module; there are encoder.embed_tokens, "),
        (["*.fc1", "!*.fc2"], "modules: the pattern '!*.fc2' takes no module away"),
        ([], "modules: the patterns (none) pick no module"),
        (["*.fc1", "!*"], "modules: the patterns *.fc1, !* pick no module"),
    ):
        with pytest.raises(ConfigError) as error:
            select(NAMES, patterns, "modules")
        assert message in str(error.value)


def test_a_rule_has_all_that_shares_its_weight():
    model = make_model("transformer_small")
    attach_plan(Plan((LinearRule(("decoder.embed_tokens",), bits=4), LinearRule(("*.layers.*",)))), model)
    of_table = chain_of(model.encoder.embed_tokens)
    assert of_table is chain_of(model.decoder.output_projection) is chain_of(model.decoder.embed_tokens)
    assert of_table.compression.scheme.bits == 4
    chains = [chain_of(module) for name, module in weight_modules(model).items() if ".layers." in name]
    assert {chain.compression.scheme.bits for chain in chains} == {8}


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan((LinearRule(("*.fc3",)),)), "weights[0].modules: the pattern '*.fc3' matches no module"),
        (
            Plan((LinearRule(("*embed_tokens",)), LinearRule(("decoder.output_projection",)))),
            "weights[1].modules: encoder.embed_tokens is picked by weights[0].modules already",
        ),
        (
            Plan((LinearRule(("*.fc2",), granularity="group", group_size=20),)),
            "weights[0].group_size: must divide the 48 columns, got 20 (of encoder.layers.0.fc2)",
        ),
        (Plan((), (ActivationRule(("*.fc1",)), ActivationRule(("*.fc1",)))), "fc1 is picked by activations[0]"),
        (
            Plan((), (ActivationRule(("*embed_tokens",)),)),
            "activations[0].modules: the pattern '*embed_tokens'",
        ),
    ],
)
def test_a_plan_that_does_not_fit_the_model(plan, message):
    with pytest.raises(ConfigError) as error:
        attach_plan(plan, make_model("transformer_small"))
    assert message in str(error.value)


def test_inputs_of_projections_need_our_attention():
    attach_plan(Plan((), (ActivationRule(("*.fc1", "*output_projection")),)), make_model("transformer"))
    with pytest.raises(ConfigError, match=r"self_attn\.k_proj is not called as a module by fairseq's own attention"):
        attach_plan(Plan((), (ActivationRule(("*_proj",)),)), make_model("transformer"))


def test_activations_are_quantized_in_every_layer():
    model, plain = make_model("transformer_small"), make_model("transformer_small")
    attach_plan(Plan((), (ActivationRule(("*",), decay=0.5),)), model)
    quantizers = {name: module for name, module in model.named_modules() if isinstance(module, ActivationQuantizer)}
    assert len(quantizers) == len([name for name, m in weight_modules(plain).items() if isinstance(m, torch.nn.Linear)])
    source, target = make_batch("left")
    model.load_state_dict(plain.state_dict())  # which has no ranges
    model.train()(source, lengths(source), target)
    step_ranges(model)
    ranges = {name: quantizer.largest.item() for name, quantizer in quantizers.items()}
    assert all(value > 0 for value in ranges.values())
    model.eval()(source, lengths(source), target)
    assert ranges == {name: quantizer.largest.item() for name, quantizer in quantizers.items()}
    again = make_model("transformer_small")
    attach_plan(Plan((), (ActivationRule(("*",), decay=0.5),)), again)
    again.load_state_dict(model.state_dict())
    outputs = [each.eval()(source, lengths(source), target)[0] for each in (model, again, plain)]
    assert torch.equal(outputs[0], outputs[1])
    assert 0 < (outputs[0] - outputs[2]).abs().max() < 0.5
    keys = [key for key in model.state_dict() if key not in plain.state_dict()]
    assert len(keys) == len(quantizers)
    assert "encoder.layers.0.self_attn.q_proj.input_quantizer.largest" in keys


def test_before_the_first_batch_an_input_has_its_own_range():
    quantizer = ActivationQuantizer(bits=2).eval()
    assert quantizer(torch.tensor([0.2, -0.6, 1.0])).tolist() == [0, -1, 1]
    assert quantizer(torch.zeros(0)).shape == (0,)
