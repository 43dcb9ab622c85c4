"""The shape of a model as data: reading, the options that make it, models that are built of it."""

import argparse
import json

import pytest
import torch
from fairseq import models, options
from fairseq.models.transformer import TransformerModel, base_architecture
from torch import nn

import fairseq_compress
from fairseq_compress import shipped
from fairseq_compress.architecture.configuration import architecture_of, from_flags, implied_flags, resolve
from fairseq_compress.architecture.reading import from_json, read_architecture, to_json
from fairseq_compress.architecture.stock import why_not_plain, why_not_stock
from fairseq_compress.errors import ConfigError
from fairseq_compress.evaluation.model_cost import parameters_by_part
from fairseq_compress.evaluation.multiply_adds import decoding_multiply_adds, forward_multiply_adds
from fairseq_compress.modules.low_rank_linear import LowRankLinear
from fairseq_compress.runtimes.torch.step_decoders import GeneralDecoder, why_not_fast
from fairseq_compress.runtimes.torch.tree_decoder import TreeDecoder
from tests.helpers.cost_models import counted, tokens
from tests.helpers.structures import BATCH, KINDS, SIZES, TASK, UNEVEN, UNEVEN_DECODER, make, make_uneven

fairseq_compress.register()
UNEVENS = pytest.mark.parametrize("architecture", [UNEVEN, UNEVEN_DECODER], ids=["one decoder layer", "two"])


def changed(**stacks):
    """UNEVEN with changes in the first layer of a part, or in other keys."""
    raw = json.loads(UNEVEN)
    for key, change in stacks.items():
        (raw[key]["layers"][0] if key in ("encoder", "decoder") else raw.setdefault(key, {})).update(change)
    return json.dumps(raw)


@pytest.mark.parametrize("kind", KINDS)
def test_options_make_the_architecture_that_the_model_is_built_of(kind):
    model = make(**KINDS[kind])
    architecture = architecture_of(model.cfg)
    assert from_json(to_json(architecture)) == architecture
    assert to_json(architecture) == model.cfg.architecture
    for part in ("encoder", "decoder"):
        for number, layer in enumerate(architecture.stack(part).layers):
            built = getattr(model, part).layers[number]
            stored = {matrix.name: matrix for matrix in layer.matrices}
            for name, shape in architecture.linear_shapes(part, layer).items():
                linear = built.get_submodule(name)
                assert (linear.out_features, linear.in_features) == shape
                assert isinstance(linear, LowRankLinear) == (name in stored and stored[name].rank > 0)
            if not stored:
                names = [name for name, module in built.named_modules() if type(module) is nn.Linear]
                assert names == list(architecture.linear_shapes(part, layer))


@pytest.mark.parametrize("kind", [*KINDS, "no attention in the decoder", "no layers"])
def test_a_checkpoint_of_options_or_of_the_value_alone_is_the_same_model(kind):
    others = {"no_cross_attention": True, "decoder_self_attention": "ssru"}, {"decoder_layers": 0, "ffn_rank": 3}
    kinds = KINDS | dict(zip(["no attention in the decoder", "no layers"], others, strict=True))
    args = argparse.Namespace(arch="transformer_small", **(SIZES | kinds[kind]))
    made = []
    for _ in range(2):  # the second time options and value are there, and agree
        torch.manual_seed(1)
        made.append(models.build_model(args, TASK).state_dict())
    made.append(make_uneven(args.architecture).state_dict())
    assert list(made[0]) == list(made[1]) == list(made[2])
    for key, value in made[0].items():
        assert torch.equal(value, made[1][key])
        assert value.shape == made[2][key].shape


def test_fairseq_s_transformer_has_an_architecture():
    args = argparse.Namespace(**(SIZES | {"share_decoder_input_output_embed": True}))
    base_architecture(args)
    flat, nested = architecture_of(args), architecture_of(TransformerModel.build_model(args, TASK).cfg)
    assert flat == nested
    assert (flat.encoder.layers[1].self_attention.head_width, flat.embeddings.tying) == (8, "decoder")
    assert why_not_plain(flat) + why_not_stock(flat) == []


def test_a_file_by_its_path_or_its_shipped_name(tmp_path, monkeypatch):
    file = tmp_path / "uneven.json"
    file.write_text(UNEVEN)
    assert read_architecture(file) == from_json(UNEVEN)
    monkeypatch.setattr(shipped, "FOLDERS", (tmp_path,))
    (tmp_path / "architectures").mkdir()
    (tmp_path / "architectures" / "uneven.json").write_text(UNEVEN)
    assert read_architecture("uneven") == read_architecture("uneven.json") == from_json(UNEVEN)
    with pytest.raises(ConfigError, match=r"--architecture unevn: neither a file .*did you mean uneven\?"):
        read_architecture("unevn")
    for path, message in ((tmp_path, "cannot be read: Is a directory"), (tmp_path / "x" / "y", "cannot be read: No")):
        with pytest.raises(ConfigError, match=message):
            read_architecture(path)
    file.write_text("{")
    with pytest.raises(ConfigError, match=f"--architecture {file}: must be JSON"):
        read_architecture(file)


def test_shipped_architectures_are_read():
    names = shipped.shipped_names("architectures", suffix=".json")
    assert names
    assert all(read_architecture(name).problems() is not None for name in names)


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("[]", ["must be a table of keys"]),
        ("{}", ["encoder: is missing", "decoder: is missing"]),
        (changed(encoder={"ffn": 0}, embeddings={"rank": 3}),
         ["encoder.layers[0].ffn: must be in [1, inf), got 0", "embeddings.rank: must be in [0, 0] for plain, got 3"]),
        (changed(encoder={"self_attention": {"heads": "4"}}), ["heads: must be a whole number, got '4'"]),
        (changed(encoder={"heads": 3}), ["encoder.layers[0].heads: unknown key"]),
        (changed(encoder={"self_attention": {"heads": 3}}), ["3 heads do not divide the width 16"]),
        (changed(encoder={"self_attention": {"kind": "ssru"}}), ["must be attention in the encoder"]),
        (changed(encoder={"cross_attention": {"heads": 2}}), ["cross_attention: must be null in the encoder"]),
        (changed(decoder={"self_attention": {"kind": "ssru", "heads": 2}}), ["heads: must be in [0, 0] for ssru"]),
        (changed(decoder={"self_attention": {"kind": "ssru", "ffn": 2}}), ["ffn: requires", "kind average, got ssru"]),
        (changed(encoder={"matrices": [{"name": "fc3", "rank": 2}]}), ["fc3: must be one of self_attn.k_proj"]),
        (changed(encoder={"matrices": [{"name": "fc1", "rank": 17}]}), ["fc1: rank: must be in [1, 16]"]),
        (changed(encoder={"matrices": [{"name": "fc1"}]}), ["either a rank or a sparsity"]),
        (changed(encoder={"matrices": [{"name": "fc1", "sparsity": 0.5, "block": 16}]}), ["must divide 24 and 16"]),
        (changed(encoder={"shared_with": 1}), ["encoder.layers[0].shared_with: must be a layer before it, got 1"]),
        (changed(embeddings={"kind": "factorized"}), ["embeddings.rank: must be in [1, inf) for factorized, got 0"]),
        (changed(embeddings={"taps": 2}), ["embeddings.taps: must be 0 for plain"]),
        (UNEVEN.replace('"width": 16, "layers": [\n        {"self_attention": {"heads": 3', '"width": 12, "layers": ['
         '{"self_attention": {"heads": 3'), ["embeddings.tying: must be decoder or none", "16 and 12"]),
        (json.dumps(json.loads(UNEVEN) | {"exits": [1]}), ["exits: must be empty, got [1]"]),
        (json.dumps(json.loads(UNEVEN) | {"version": 2}), ["version: must be one of 1, got 2"]),
        (UNEVEN.replace(', "cross_attention": {"heads": 3, "head_width": 4}', ""), ["cross_attention: is missing"]),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_refused(text, messages):
    with pytest.raises(ConfigError) as error:
        from_json(text)
    for message in messages:
        assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_layers_that_share_are_written_once():
    raw = json.loads(UNEVEN)
    raw["encoder"]["layers"].append({"shared_with": 1})
    architecture = from_json(json.dumps(raw))
    assert architecture.encoder.leaders() == [0, 1, 2, 1]
    assert architecture.encoder.layers[3].self_attention.heads == 8
    assert json.loads(to_json(architecture))["encoder"]["layers"][3] == {"shared_with": 1}
    model = make_uneven(to_json(architecture))
    assert model.encoder.layers[3].fc1.weight is model.encoder.layers[1].fc1.weight
    kept = architecture.keep_layers("encoder", [1, 3, 2])
    assert kept.encoder.leaders() == [0, 0, 2]


def parse(*arguments):
    return options.parse_args_and_arch(options.get_training_parser(), ["data-bin", *arguments])


def test_a_file_sets_the_options_that_fairseq_reads(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(UNEVEN)
    args = parse("--arch", "transformer_student_tiny_ssru", "--architecture", str(file), "--dropout", "0.2")
    assert (args.encoder_layers, args.decoder_layers, args.encoder_embed_dim, args.dropout) == (3, 1, 16, 0.2)
    assert (args.encoder_attention_heads, args.encoder_ffn_embed_dim) == (8, 40)  # the largest
    assert (args.decoder_attention_heads, args.decoder_ffn_embed_dim, args.share_all_embeddings) == (3, 20, True)
    assert not hasattr(args, "decoder_self_attention")
    assert from_json(args.architecture) == from_json(UNEVEN)
    assert parse("--arch", "compressed_transformer", "--architecture", str(file)).encoder_layers == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--encoder-layers", "6"], "--encoder-layers: must be 3 as --architecture says, got 6"),
        (["--decoder-embed-dim", "8"], "--decoder-embed-dim: must be 16 as --architecture says, got 8"),
        (["--ffn-rank", "4"], "--ffn-rank: not allowed with --architecture, got 4"),
        (["--no-share-all-embeddings"], "--share-all-embeddings: must be True as --architecture says, got False"),
        (["--decoder-self-attention", "ssru"], "--decoder-self-attention: not allowed with --architecture, got ssru"),
    ],
)
def test_options_that_contradict_the_file_are_refused(arguments, message):
    with pytest.raises(ConfigError) as error:
        parse("--arch", "transformer_small", "--architecture", UNEVEN, *arguments)
    assert message in str(error.value)


def test_options_that_agree_are_taken():
    args = argparse.Namespace(**(SIZES | {"ffn_rank": 3, "share_all_embeddings": True}))
    base_architecture(args)
    args.architecture = to_json(from_flags(args))
    resolve(args)
    with pytest.raises(ConfigError, match="--ffn-rank: not allowed with --architecture, got 2"):
        resolve(argparse.Namespace(**(vars(args) | {"ffn_rank": 2})))


def test_fairseq_s_option_to_keep_layers():
    model = make_uneven(encoder_layers_to_keep="0,2")
    assert [layer.self_attn.num_heads for layer in model.encoder.layers] == [4, 2]
    assert len(architecture_of(model.cfg).encoder.layers) == 2


def test_sizes_keys_and_draws():
    model = make_uneven()
    attentions = [layer.self_attn for layer in [*model.encoder.layers, *model.decoder.layers]]
    assert [(a.num_heads, a.head_dim, a.q_proj.out_features) for a in attentions] == [
        (4, 4, 16), (8, 3, 24), (2, 4, 8), (3, 5, 15)
    ]  # fmt: skip
    cross = model.decoder.layers[0].encoder_attn
    assert (cross.q_proj.weight.shape, cross.out_proj.weight.shape) == ((12, 16), (16, 12))
    assert [layer.fc1.out_features for layer in model.encoder.layers] == [24, 40, 12]
    stock = TransformerModel.build_model(argparse.Namespace(**implied_flags(architecture_of(model.cfg)) | {
        "encoder_attention_heads": 4, "decoder_attention_heads": 4}), TASK)  # fmt: skip
    assert list(model.state_dict()) == list(stock.state_dict())
    first = make_uneven(json.dumps(json.loads(UNEVEN)), encoder_normalize_before=True)
    assert torch.equal(first.encoder.layers[1].self_attn.q_proj.weight, attentions[1].q_proj.weight)
    assert attentions[1].q_proj.weight.abs().max() <= (3 / (24 + 16)) ** 0.5  # Glorot, with gain 1 / sqrt 2 as fairseq


@UNEVENS
@pytest.mark.parametrize("before", [False, True])
def test_every_way_of_decoding_is_the_plain_forward(architecture, before):
    model = make_uneven(architecture, encoder_normalize_before=before, decoder_normalize_before=before).eval()
    assert why_not_fast(model) is None
    whole = torch.log_softmax(model(**BATCH)[0], -1)
    states = [kind(model).start(BATCH["src_tokens"], BATCH["src_lengths"]) for kind in (TreeDecoder, GeneralDecoder)]
    with torch.no_grad():
        for step in range(3):
            for state in states:
                found = state.log_probs(BATCH["prev_output_tokens"][:, step : step + 1])
                torch.testing.assert_close(found, whole[:, step], atol=1e-5, rtol=0)


def test_the_heads_against_a_loop():
    attention = make_uneven().decoder.layers[0].encoder_attn.double()
    draw = torch.Generator().manual_seed(2)
    query, key = (torch.randn(length, 1, 16, dtype=torch.float64, generator=draw) for length in (2, 5))
    output, maps = attention(query, key, key, need_head_weights=True)
    q, k, v = (p(x)[:, 0] for p, x in zip([attention.q_proj, attention.k_proj, attention.v_proj], [query, key, key],
                                          strict=True))  # fmt: skip
    heads = []
    for head in range(3):
        part = slice(4 * head, 4 * head + 4)
        weights = torch.softmax(q[:, part] @ k[:, part].t() / 2, -1)
        torch.testing.assert_close(maps[head, 0], weights)
        heads.append(weights @ v[:, part])
    torch.testing.assert_close(output[:, 0], attention.out_proj(torch.cat(heads, 1)))


@UNEVENS
def test_a_training_step_moves_every_parameter(architecture):
    model = make_uneven(architecture).train()
    model(**BATCH)[0].square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in without if not name.endswith("k_proj.bias")] == []


@UNEVENS
@pytest.mark.parametrize(("source", "target"), [(7, 5), (1, 6)])
def test_costs_are_what_the_kernels_multiply(architecture, source, target):
    model = make_uneven(architecture).eval()
    words = tokens(source, entries=30), tokens(target, entries=30)
    forward = counted(lambda: model(words[0], torch.tensor([source]), words[1]))
    assert forward_multiply_adds(model, source, target).total == forward
    encoded = model.encoder(words[0], torch.tensor([source]))
    state: dict = {}
    steps = [counted(lambda t=t: model.decoder(words[1][:, :t], encoded, state)) for t in range(1, target + 1)]
    encoding = counted(lambda: model.encoder(words[0], torch.tensor([source])))
    assert decoding_multiply_adds(model, source, target).total == encoding + sum(steps)
    counts = parameters_by_part(model)
    assert sum(sum(count.values()) for count in counts.values()) == sum(p.numel() for p in model.parameters())
    assert counts["encoder"]["ffn"] == sum(2 * 16 * units + units + 16 for units in (24, 40, 12))


@UNEVENS
def test_what_fairseq_cannot_hold_is_told(architecture):
    reasons = why_not_stock(from_json(architecture))
    assert "the layers of the encoder have 4 or 8 or 2 heads" in reasons
    assert "the layers of the encoder have 24 or 40 or 12 FFN units" in reasons
    assert "8 heads of width 3 in the encoder are not its width 16" in reasons


def test_options_that_uneven_layers_do_not_have():
    with pytest.raises(ConfigError, match="--scale-heads: requires heads that make up the width, got 3 of width 5"):
        make_uneven(scale_heads=True)
