"""A trained model without some heads, FFN units and layers, against the same model with these zeroed."""

import argparse
import json
import random

import pytest
import torch
from fairseq import models
from hypothesis import given, settings
from hypothesis import strategies as st

import fairseq_compress
from fairseq_compress.architecture.configuration import architecture_of
from fairseq_compress.architecture.reading import to_json
from fairseq_compress.errors import ConfigError
from fairseq_compress.surgery.narrow import Keep, narrow
from fairseq_compress.weights.attach import attach_plan
from fairseq_compress.weights.groups import effective_state
from fairseq_compress.weights.reading import parse_plan
from tests.helpers.structures import BATCH, KINDS, TASK, make

fairseq_compress.register()
HEADS, UNITS, CROSS_HEADS = (4, 8, 2), (12, 16, 10), 6
LARGE = {
    "encoder": {"width": 16, "layers": [
        {"self_attention": {"heads": heads, "head_width": 3}, "ffn": units}
        for heads, units in zip(HEADS, UNITS, strict=True)
    ]},
    "decoder": {"width": 16, "layers": [
        {"self_attention": {"heads": 4}, "cross_attention": {"heads": CROSS_HEADS, "head_width": 4}, "ffn": 14},
        {"self_attention": {"heads": 5, "head_width": 2}, "cross_attention": {"heads": 2}, "ffn": 9},
    ]},
}  # fmt: skip
KEPT = Keep(
    heads={
        "encoder.layers.0.self_attn": [1, 3], "encoder.layers.1.self_attn": [0, 2, 3, 6, 7],
        "encoder.layers.2.self_attn": [1], "decoder.layers.0.self_attn": [0, 1, 3],
        "decoder.layers.0.encoder_attn": [1, 2, 5],
    },
    ffn={"encoder.layers.0": [0, 3, 11], "encoder.layers.2": range(10), "decoder.layers.1": [8]},
)  # fmt: skip


def build(architecture, **options):
    """All weights are random, also biases and gains; in float64."""
    torch.manual_seed(1)
    text = architecture if isinstance(architecture, str) else to_json(architecture)
    arguments = argparse.Namespace(arch="compressed_transformer", architecture=text, dropout=0.0, **options)
    model = models.build_model(arguments, TASK).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    return model


def large(**options):
    return build(json.dumps(LARGE), **options)


def logits(model):
    with torch.no_grad():
        return model(**BATCH)[0]


def loaded(narrowed, **options):
    model = build(narrowed.architecture, **options)
    model.load_state_dict(narrowed.state, strict=True)
    return model


@torch.no_grad()
def zero_the_rest(model, keep):
    """What is not kept, one row and one column at a time."""
    for name, kept in keep.heads.items():
        attention = model.get_submodule(name)
        for head in set(range(attention.num_heads)) - set(kept):
            for row in range(head * attention.head_dim, (head + 1) * attention.head_dim):
                attention.v_proj.weight[row] = 0
                attention.v_proj.bias[row] = 0
    for name, kept in keep.ffn.items():
        for unit in set(range(model.get_submodule(name).fc2.weight.size(1))) - set(kept):
            model.get_submodule(name).fc2.weight[:, unit] = 0
    for part, kept in keep.layers.items():
        layers = getattr(model, part).layers
        for number in set(range(len(layers))) - set(kept):
            layer = layers[number]
            for branch in (layer.self_attn.out_proj, layer.fc2, getattr(layer, "encoder_attn", None)):
                branch = getattr(branch, "out_proj", branch)
                if branch is not None:
                    branch.weight.zero_()
                    branch.bias.zero_()


def test_heads_and_units_by_layer():
    model = large()
    zero_the_rest(model, KEPT)
    narrowed = narrow(model, KEPT)
    small = loaded(narrowed)
    assert [layer.self_attention.heads for layer in narrowed.architecture.encoder.layers] == [2, 5, 1]
    assert [layer.ffn for layer in narrowed.architecture.encoder.layers] == [3, 16, 10]
    first = narrowed.architecture.decoder.layers[0]
    assert (first.self_attention.heads, first.cross_attention.heads, first.cross_attention.head_width) == (3, 3, 4)
    assert small.decoder.layers[0].encoder_attn.k_proj.weight.shape == (12, 16)
    assert small.encoder.layers[0].fc1.bias.shape == (3,)
    assert architecture_of(small.cfg) == narrowed.architecture
    torch.testing.assert_close(logits(small), logits(model), atol=1e-12, rtol=0)
    assert not torch.equal(logits(large()), logits(model))


def test_layers_of_a_model_that_normalizes_before():
    options = {"encoder_normalize_before": True, "decoder_normalize_before": True}
    model = large(**options)
    keep = Keep({"encoder": [0, 2], "decoder": [1]}, KEPT.heads, KEPT.ffn)
    zero_the_rest(model, keep)
    small = loaded(narrow(model, keep), **options)
    assert (len(small.encoder.layers), len(small.decoder.layers)) == (2, 1)
    torch.testing.assert_close(logits(small), logits(model), atol=1e-12, rtol=0)


def test_the_narrowed_model_decodes_step_by_step():
    from fairseq_compress.runtimes.torch.step_decoders import step_decoder

    small = loaded(narrow(large(), KEPT))
    with torch.no_grad():
        state = step_decoder(small).start(BATCH["src_tokens"], BATCH["src_lengths"])
        expected = torch.log_softmax(logits(small), -1)
        for step in range(3):
            found = state.log_probs(BATCH["prev_output_tokens"][:, step : step + 1])
            torch.testing.assert_close(found.double(), expected[:, step], atol=1e-5, rtol=0)


def random_keep(model, seed):
    """Of each attention, network and part some, by the names that the model has now."""
    draw = random.Random(seed)

    def some(count):
        return sorted(draw.sample(range(count), draw.randint(1, count)))

    heads, units, depths = {}, {}, {}
    for part in ("encoder", "decoder"):
        layers = getattr(model, part).layers
        depths[part] = some(len(layers))
        for number, layer in enumerate(layers):
            name = f"{part}.layers.{number}"
            for attention in ("self_attn", "encoder_attn"):
                if getattr(layer, attention, None) is not None and draw.random() < 0.8:
                    heads[f"{name}.{attention}"] = some(getattr(layer, attention).num_heads)
            if draw.random() < 0.8:
                units[name] = some(layer.fc1.bias.numel())
    return Keep(depths, heads, units)


def composed(first, second):
    """The one keep that does what both do after another; names of the second are those of the narrowed model."""

    def old(name):
        part, layers, number, *rest = name.split(".")
        return ".".join([part, layers, str(first.layers[part][int(number)]), *rest])

    layers = {part: [first.layers[part][number] for number in second.layers[part]] for part in first.layers}
    numbers = []
    for before, after in ((first.heads, second.heads), (first.ffn, second.ffn)):
        later = {old(name): kept for name, kept in after.items()}
        chosen = {name: [before[name][n] for n in kept] if name in before else kept for name, kept in later.items()}
        numbers.append({**before, **chosen})
    return Keep(layers, *numbers)


@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 10**6))
def test_random_keeps_and_their_composition(seed):
    options = {"encoder_normalize_before": True, "decoder_normalize_before": True}
    model = large(**options)
    first = random_keep(model, seed)
    zero_the_rest(model, first)
    once = narrow(model, first)
    small = loaded(once, **options)
    torch.testing.assert_close(logits(small), logits(model), atol=1e-12, rtol=0)
    second = random_keep(small, seed + 1)
    twice, direct = narrow(small, second), narrow(model, composed(first, second))
    assert twice.architecture == direct.architecture
    assert twice.state.keys() == direct.state.keys()
    assert all(torch.equal(value, direct.state[key]) for key, value in twice.state.items())


@pytest.mark.parametrize("kind", ["low-rank", "factorized", "tensor-train", "shared", "bottleneck", "ssru", "average"])
def test_other_structures(kind):
    """Heads of the encoder and units of both; what shares parameters still does."""
    model = make(**KINDS[kind]).double().eval()
    bottleneck = kind == "bottleneck"
    networks = ["encoder.layers.0.ffns.0", "encoder.layers.0.ffns.1"] if bottleneck else ["encoder.layers.0"]
    keep = Keep(
        heads={"encoder.layers.0.self_attn": [1], "decoder.layers.0.encoder_attn": [0]},
        ffn={name: [0, 2, 3, 7, 20] for name in networks},
    )
    with torch.no_grad():
        attentions = [model.encoder.layers[0].self_attn, model.decoder.layers[0].encoder_attn]
        for attention, removed in zip(attentions, (0, 1), strict=True):
            rows = slice(removed * attention.head_dim, (removed + 1) * attention.head_dim)
            out = getattr(attention.out_proj, "down", attention.out_proj)
            out.weight[:, rows] = 0
        for name in networks:
            fc2 = model.get_submodule(name).fc2
            fc2 = getattr(fc2, "down", fc2)
            fc2.weight[:, [unit for unit in range(fc2.weight.size(1)) if unit not in keep.ffn[networks[0]]]] = 0
    narrowed = narrow(model, keep)
    small = loaded(narrowed)
    torch.testing.assert_close(logits(small), logits(model), atol=1e-12, rtol=0)
    numbers = [sum(parameter.numel() for parameter in each.parameters()) for each in (small, model)]
    assert numbers[0] < numbers[1]
    if kind == "shared":
        assert small.encoder.layers[0].fc1.weight is small.encoder.layers[1].fc1.weight
    tables = small.encoder.embed_tokens, small.decoder.embed_tokens
    assert tables[0] is tables[1]


def test_the_first_of_layers_that_share_may_go():
    model = make(**KINDS["shared"]).eval()
    narrowed = narrow(model, Keep({"encoder": [1]}))
    key = "encoder.layers.0.fc1.weight"
    assert torch.equal(narrowed.state[key], model.state_dict()[key])
    assert narrowed.architecture.encoder.layers[0].shared_with is None


def test_what_cannot_be_is_refused_in_one_line():
    model = large()
    for keep, message in (
        (Keep({"middle": [0]}), "layers: unknown key middle; expected one of encoder, decoder"),
        (Keep({"encoder": [0, 3]}), r"layers: encoder: must be ascending numbers in \[0, 2\], got \[0, 3\]"),
        (Keep(heads={"encoder.layers.0": [0]}), "heads: unknown key encoder.layers.0; expected one of encoder.layers"),
        (Keep(heads={"encoder.layers.0.self_attn": [1, 1]}), r"must be ascending numbers in \[0, 3\], got \[1, 1\]"),
        (Keep(ffn={"decoder.layers.1": []}), r"ffn: decoder.layers.1: must be ascending numbers in \[0, 8\], got \[\]"),
    ):
        with pytest.raises(ConfigError, match=message):
            narrow(model, keep)
    for kind, keep, message in (
        ("sparse", Keep(heads={"encoder.layers.0.self_attn": [0]}), "k_proj.values: cannot be cut, of a SparseLinear"),
        ("low-rank", Keep(ffn={"encoder.layers.1": [0]}), "matrices: fc1: rank: must be in"),
        ("shared", Keep(ffn={"encoder.layers.1": [0]}), "encoder.layers.1: must not be named, its layer shares"),
        ("bottleneck", Keep(ffn={"encoder.layers.1.ffns.0": [0]}), "must keep as many units in each network, got"),
        ("ssru", Keep(heads={"decoder.layers.0.self_attn": [0]}), "heads: unknown key decoder.layers.0.self_attn"),
    ):
        with pytest.raises(ConfigError, match=message):
            narrow(make(**KINDS[kind]), keep)
    compressed = make()
    attach_plan(parse_plan("weights: [{modules: ['*.fc1'], method: codebook, bits: 4}]", "plan"), compressed)
    with pytest.raises(ConfigError, match="cannot be cut, of a Parametrized"):
        narrow(compressed, Keep(ffn={"encoder.layers.0": [0]}))
    assert narrow(compressed, Keep({"encoder": [1]}, ffn={"encoder.layers.0": [0]}))
    compressed.load_state_dict(make().state_dict())
    effective = effective_state(compressed)
    narrowed = narrow(compressed, Keep(ffn={"encoder.layers.0": [2]}), effective).state["encoder.layers.0.fc1.weight"]
    assert torch.equal(narrowed, effective["encoder.layers.0.fc1.weight"][[2]])
