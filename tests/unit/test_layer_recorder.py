"""A look inside of running transformers: the same in fairseq's and in ours, and nothing is left behind."""

import argparse
from types import SimpleNamespace

import pytest
import torch
from fairseq import models
from fairseq.data import Dictionary
from fairseq.modules import MultiheadAttention

import fairseq_compress
from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.losses.attention_maps import forbidden_keys, log_maps, maps_of
from fairseq_compress.functional.losses.outputs import Projected
from fairseq_compress.models.layer_recorder import KINDS, recomputes_layers, recording, sizes_of
from fairseq_compress.models.student_output import student_output

fairseq_compress.register()
DICTIONARY = Dictionary()
for number in range(40 - len(DICTIONARY)):
    DICTIONARY.add_symbol(f"w{number}")
TASK = SimpleNamespace(source_dictionary=DICTIONARY, target_dictionary=DICTIONARY)
PAD = DICTIONARY.pad()
SOURCE = torch.randint(4, 40, (3, 6), generator=torch.Generator().manual_seed(1))
SOURCE[1, :2] = PAD  # on the left, as fairseq pads sources
PREVIOUS = torch.randint(4, 40, (3, 5), generator=torch.Generator().manual_seed(2))
PREVIOUS[0, 3:] = PAD
NET_INPUT = {"src_tokens": SOURCE, "src_lengths": torch.tensor([6, 4, 6]), "prev_output_tokens": PREVIOUS}
LAYERS = [("encoder", 0), ("encoder", 1), ("decoder", 0), ("decoder", 2)]
ATTENTION = [("encoder", 1), ("decoder", 0), ("cross", 2)]


def make_model(architecture="transformer_small", **values):
    small = {
        "encoder_layers": 2, "decoder_layers": 3, "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 24,
        "decoder_embed_dim": 16, "decoder_ffn_embed_dim": 24, "encoder_attention_heads": 2,
        "decoder_attention_heads": 4, "dropout": 0.0, "share_all_embeddings": False,
    }  # fmt: skip
    torch.manual_seed(5)
    return models.build_model(argparse.Namespace(arch=architecture, **(small | values)), TASK)


def hooks(model):
    return [
        hook
        for module in model.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    ]


def look(model, **values):
    with recording(model, LAYERS, ATTENTION, last=True) as recorded:
        output = model(**NET_INPUT, **values)
    return recorded, output


@pytest.mark.parametrize("values", [{}, {"encoder_normalize_before": True, "decoder_normalize_before": True}])
def test_stock_and_ours_show_the_same(values):
    stock, ours = make_model("transformer", **values), make_model(**values)
    ours.load_state_dict(stock.state_dict())
    before = [hooks(model) for model in (stock, ours)]
    plain = stock.eval()(**NET_INPUT)[0]
    (one, output), (other, _) = look(stock), look(ours.eval())
    assert torch.equal(output[0], plain)
    for part in ("layers", "last"):
        assert getattr(one, part).keys() == getattr(other, part).keys()
        for key, hidden in getattr(one, part).items():
            torch.testing.assert_close(hidden, getattr(other, part)[key], msg=str(key))
    assert one.attention.keys() == other.attention.keys() == set(ATTENTION)
    for site, (query, key, heads) in one.attention.items():
        torch.testing.assert_close(query, other.attention[site].query)
        torch.testing.assert_close(key, other.attention[site].key)
        assert heads == other.attention[site].heads == (2 if site[0] == "encoder" else 4)
    assert [hooks(model) for model in (stock, ours)] == before


@pytest.mark.parametrize("architecture", ["transformer", "transformer_small"])
def test_maps_are_those_of_the_attention(architecture):
    """Against ``need_head_weights=True``, at queries that are not padding."""
    model, calls = make_model(architecture).eval(), {}
    attentions = {
        ("encoder", 1): model.encoder.layers[1].self_attn,
        ("decoder", 0): model.decoder.layers[0].self_attn,
        ("cross", 2): model.decoder.layers[2].encoder_attn,
    }
    handles = [
        attention.register_forward_pre_hook(
            lambda module, inputs, named, site=site: calls.__setitem__(site, named), with_kwargs=True
        )
        for site, attention in attentions.items()
    ]
    recorded, _ = look(model)
    for handle in handles:
        handle.remove()
    for site, attention in attentions.items():
        named = calls[site] | {"need_weights": True, "need_head_weights": True, "incremental_state": {}}
        named.pop("static_kv", None)
        want = MultiheadAttention.forward(attention, **named)[1].transpose(0, 1)  # (B, H, T, S)
        keys = PREVIOUS if site[0] == "decoder" else SOURCE
        queries = PREVIOUS if KINDS[site[0]] == "decoder" else SOURCE
        forbidden = forbidden_keys(keys.eq(PAD), causal=site[0] == "decoder")
        got = maps_of(log_maps(*recorded.attention[site], forbidden), forbidden)
        kept = queries.ne(PAD)[:, None, :, None]
        torch.testing.assert_close(got * kept, want * kept, msg=str(site))
        torch.testing.assert_close((got * kept).sum(-1), kept.expand(*got.shape[:3], 1).squeeze(-1).float())


def test_the_last_states_are_what_the_next_part_reads():
    for values in ({}, {"decoder_normalize_before": True, "encoder_normalize_before": True}):
        model = make_model(**values).eval()
        recorded, _ = look(model)
        encoded = model.encoder(SOURCE, NET_INPUT["src_lengths"])["encoder_out"][0]
        features = model(**NET_INPUT, features_only=True)[0]
        assert torch.equal(recorded.last["encoder"], encoded)
        assert torch.equal(recorded.last["decoder"], features.transpose(0, 1))
    narrow = make_model("transformer", decoder_output_dim=12).eval()
    recorded, _ = look(narrow)
    assert torch.equal(recorded.last["decoder"], narrow(**NET_INPUT, features_only=True)[0].transpose(0, 1))
    assert sizes_of(narrow).last == {"encoder": 16, "decoder": 12}


def test_the_short_way_to_the_loss_stays_open():
    model = make_model()
    with recording(model, LAYERS, ATTENTION, last=True):
        assert isinstance(student_output(model, NET_INPUT, "hidden"), Projected)


@pytest.mark.parametrize("fail", ["forward", "site"])
def test_no_hook_outlives_an_exception(fail):
    model = make_model("transformer")
    before = hooks(model)
    sites = [*LAYERS, ("decoder", 9)] if fail == "site" else LAYERS
    expected = IndexError if fail == "site" else RuntimeError
    with pytest.raises(expected), recording(model, sites, ATTENTION, last=True):
        raise RuntimeError("in the forward")
    assert hooks(model) == before


def test_each_projection_runs_once():
    """Quantization of our projections must not draw or observe twice."""
    model, calls = make_model(), []
    for layer in model.decoder.layers:
        layer.encoder_attn.q_proj.register_forward_hook(lambda *_: calls.append(1))
    look(model)
    assert len(calls) == 3


@pytest.mark.parametrize("architecture", ["transformer", "transformer_small"])
def test_recomputed_layers_give_the_same_gradient(architecture):
    """The forward that runs again in the backward pass is not recorded a second time."""
    gradients = []
    for values in ({}, {"checkpoint_activations": True}):
        model = make_model(architecture, **values)
        assert recomputes_layers(model) == bool(values)
        with recording(model, LAYERS) as recorded:
            model(**NET_INPUT)
            kept = dict(recorded.layers)
            sum(hidden.square().sum() for hidden in recorded.layers.values()).backward()
        assert all(recorded.layers[site] is hidden for site, hidden in kept.items())
        gradients.append([p.grad for p in model.encoder.layers.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_autocast_shows_its_types():
    for architecture in ("transformer", "transformer_small"):
        with torch.autocast("cpu", torch.bfloat16):
            recorded, _ = look(make_model(architecture))
        assert {each.query.dtype for each in recorded.attention.values()} == {torch.bfloat16}


def test_a_layer_that_did_not_run_is_an_error():
    model = make_model(encoder_layerdrop=0.9999).train()
    with pytest.raises(ConfigError, match=r"every layer must run to be learned from, got none of .*encoder"):
        look(model)


def test_sizes():
    sizes = sizes_of(make_model())
    assert sizes.layers == {"encoder": 2, "decoder": 3}
    assert sizes.widths == sizes.last == {"encoder": 16, "decoder": 16}
    assert sizes.heads == {"encoder": [2, 2], "decoder": [4, 4, 4], "cross": [4, 4, 4]}
    assert sizes_of(make_model("transformer", no_cross_attention=True)).heads["cross"] == []
    assert sizes_of(make_model("transformer", cross_self_attention=True)).heads["decoder"] == []
    with pytest.raises(ConfigError, match=r"must be a transformer with encoder.layers and decoder.layers, got Linear"):
        sizes_of(torch.nn.Linear(2, 2))
