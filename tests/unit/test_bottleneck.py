"""MobileBERT's layers against their equations, one number at a time, and against themselves in other modes."""

import math
from argparse import Namespace
from dataclasses import replace
from typing import Any

import pytest
import torch
from fairseq.models.transformer import TransformerConfig
from torch import Tensor, nn

from fairseq_compress.architecture.shape import Attention, BottleneckShape, Layer
from fairseq_compress.errors import ConfigError
from fairseq_compress.modules.bottleneck import ElementwiseAffine, make_norm
from fairseq_compress.modules.bottleneck_layer import BottleneckDecoderLayer, BottleneckEncoderLayer

OUTER, ENCODER_OUTER, INNER, HEADS = 12, 10, 8, 2


def shape(width: int, ffn_stack: int, norm: str, heads: int = HEADS, ffn: int = 6) -> Layer:
    attention = Attention("attention", heads, width // heads)
    return Layer(attention, ffn, attention, BottleneckShape(width, ffn_stack, norm))


STUDENT, TEACHER = shape(INNER, 3, "elementwise"), shape(16, 1, "layer")
STRUCTURES = pytest.mark.parametrize("structure", [STUDENT, TEACHER], ids=["student", "teacher"])


def config(**options: Any) -> TransformerConfig:
    values = {"dropout": 0.0, "activation_fn": "relu", "activation_dropout": 0.0}
    for part, width in (("encoder", ENCODER_OUTER), ("decoder", OUTER)):
        values |= {f"{part}_embed_dim": width, f"{part}_ffn_embed_dim": 6, f"{part}_attention_heads": HEADS}
    return TransformerConfig.from_namespace(Namespace(**(values | options)))


def with_random_parameters(layer: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    for parameter in layer.parameters():
        parameter.data.normal_(std=0.4, generator=generator)
    return layer.double()


def draw(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def causal_mask(length: int) -> Tensor:
    return torch.full((length, length), -math.inf, dtype=torch.float64).triu(1)


def slow_linear(linear: nn.Linear, x: Tensor) -> Tensor:
    return torch.stack([linear.weight @ row + linear.bias for row in x])


def slow_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """Of rows (N, C)."""
    if isinstance(norm, nn.LayerNorm):
        x = torch.stack([(row - row.mean()) / (((row - row.mean()) ** 2).mean() + norm.eps).sqrt() for row in x])
    return torch.stack([row * norm.weight + norm.bias for row in x])


def slow_attention(module: Any, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor) -> Tensor:
    """Of one sentence: (T, C), (S, ..), (S, ..), ``allowed`` (T, S)."""
    q, k = slow_linear(module.q_proj, query), slow_linear(module.k_proj, key)
    v, depth = slow_linear(module.v_proj, value), module.embed_dim // HEADS
    rows = []
    for t in range(len(q)):
        heads = []
        for part in (slice(h * depth, (h + 1) * depth) for h in range(HEADS)):
            places = [s for s in range(len(k)) if allowed[t, s]]
            scores = torch.stack([(q[t, part] @ k[s, part]) / math.sqrt(depth) for s in places]).exp()
            heads.append(sum(score * v[s, part] for score, s in zip(scores, places, strict=True)) / scores.sum())
        rows.append(torch.cat(heads))
    return slow_linear(module.out_proj, torch.stack(rows))


def slow_layer(layer: Any, x: Tensor, allowed: Tensor, encoded: Tensor | None = None) -> Tensor:
    """The block for one sentence (T, C), as Sun et al. draw it."""
    b = slow_norm(layer.bottleneck_in.norm, slow_linear(layer.bottleneck_in.linear, x))
    s = slow_norm(layer.bottleneck_shared.norm, slow_linear(layer.bottleneck_shared.linear, x))
    h = slow_norm(layer.self_attn_norm, b + slow_attention(layer.self_attn, s, s, x, allowed))
    if encoded is not None:
        everything = torch.ones(len(x), len(encoded))
        h = slow_norm(layer.encoder_attn_norm, h + slow_attention(layer.encoder_attn, h, encoded, encoded, everything))
    for ffn in layer.ffns:
        inner = slow_linear(ffn.fc1, h)
        h = slow_norm(ffn.norm, h + slow_linear(ffn.fc2, inner * (inner > 0)))
    return slow_norm(layer.bottleneck_out.norm, x + slow_linear(layer.bottleneck_out.linear, h))


def gradients(output: Tensor, layer: nn.Module, *inputs: Tensor) -> list[Tensor]:
    weights = torch.arange(output.numel(), dtype=output.dtype).view_as(output).sin()
    return list(torch.autograd.grad((output * weights).sum(), [*inputs, *layer.parameters()]))


@STRUCTURES
def test_an_encoder_layer_equals_the_equations_with_gradients(structure: Any) -> None:
    layer = with_random_parameters(BottleneckEncoderLayer(config(), structure))
    x = draw(5, 2, ENCODER_OUTER).requires_grad_()
    padding = torch.tensor([[False] * 5, [True, False, False, False, True]])
    mask = torch.zeros(5, 5)
    mask[2, 3] = mask[0, 1] = 1.0
    output = layer(x, padding, mask)
    allowed = [~padding[b][None, :] & (mask == 0) for b in range(2)]
    expected = torch.stack([slow_layer(layer, x[:, b], allowed[b]) for b in range(2)], dim=1)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-10)
    for own, other in zip(gradients(output, layer, x), gradients(expected, layer, x), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-7, atol=1e-8)


@STRUCTURES
def test_a_decoder_layer_equals_the_equations_with_gradients(structure: Any) -> None:
    layer = with_random_parameters(BottleneckDecoderLayer(config(), structure))
    x, encoded = draw(4, 2, OUTER).requires_grad_(), draw(3, 2, ENCODER_OUTER, seed=3).requires_grad_()
    output, maps, state = layer(x, encoded, self_attn_mask=causal_mask(4))
    allowed = causal_mask(4) == 0
    expected = torch.stack([slow_layer(layer, x[:, b], allowed, encoded[:, b]) for b in range(2)], dim=1)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-10)
    assert maps is None
    assert state is None
    for own, other in zip(gradients(output, layer, x, encoded), gradients(expected, layer, x, encoded), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-7, atol=1e-8)


def test_without_an_encoder_a_decoder_layer_is_an_encoder_layer() -> None:
    decoder = with_random_parameters(BottleneckDecoderLayer(config(), replace(STUDENT, cross_attention=None)))
    encoder = BottleneckEncoderLayer(config(encoder_embed_dim=OUTER), STUDENT).double()
    encoder.load_state_dict(decoder.state_dict(), strict=True)
    x = draw(4, 2, OUTER)
    torch.testing.assert_close(decoder(x, draw(3, 2, ENCODER_OUTER))[0], encoder(x, None), rtol=0, atol=0)


@STRUCTURES
def test_steps_with_a_reordered_beam_equal_the_teacher_forced_forward(structure: Any) -> None:
    layer = with_random_parameters(BottleneckDecoderLayer(config(), structure)).float().eval()
    length, order = 6, torch.tensor([2, 0, 0])
    x, encoded = draw(length, 3, OUTER).float(), draw(5, 1, ENCODER_OUTER, seed=3).float().repeat(1, 3, 1)
    padding = torch.tensor([[True, False, False, False, False]] * 3)
    state: dict = {}
    history = x[:0]
    for t in range(length):
        if t == 3:  # hypothesis 2 goes on in the first place, and 0 twice
            for attention in (layer.self_attn, layer.encoder_attn):
                attention.reorder_incremental_state(state, order)
            history = history[:, order]
        history = torch.cat([history, x[t : t + 1]])
        step, maps, _ = layer(x[t : t + 1], encoded, padding, state, need_head_weights=True)
        whole, whole_maps, _ = layer(
            history, encoded, padding, self_attn_mask=causal_mask(t + 1).float(), need_head_weights=True
        )
        torch.testing.assert_close(step[0], whole[t], rtol=0, atol=1e-5)
        torch.testing.assert_close(maps[:, :, 0], whole_maps[:, :, t], rtol=0, atol=1e-6)
        assert maps.shape == (HEADS, 3, 1, 5)
        assert maps[..., 0].eq(0).all()


def test_a_cache_from_outside_goes_on_where_it_was() -> None:
    layer = with_random_parameters(BottleneckDecoderLayer(config(), STUDENT)).eval()
    x, encoded = draw(3, 2, OUTER), draw(5, 2, ENCODER_OUTER, seed=3)
    whole, maps, _ = layer(x, encoded, self_attn_mask=causal_mask(3), need_attn=True)
    state: dict = {}
    for t in range(2):
        layer(x[t : t + 1], encoded, incremental_state=state)
    own, cross = (a._get_input_buffer(state) for a in (layer.self_attn, layer.encoder_attn))
    former = [[cache["prev_key"], cache["prev_value"]] for cache in (own, cross)]
    step, step_maps, _ = layer(x[2:], torch.zeros_like(encoded), None, {}, *former, need_attn=True)
    torch.testing.assert_close(step[0], whole[2])
    torch.testing.assert_close(step_maps[:, 0], maps[:, 2])
    with pytest.raises(ConfigError, match="incremental_state: must be there"):
        layer(x[2:], encoded, None, None, *former)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(side: str) -> None:
    encoder = with_random_parameters(BottleneckEncoderLayer(config(), STUDENT))
    decoder = with_random_parameters(BottleneckDecoderLayer(config(), STUDENT))
    x, y, noise = draw(3, 1, ENCODER_OUTER), draw(4, 1, OUTER), draw(2, 1, ENCODER_OUTER, seed=5)
    padded = torch.cat([noise, x] if side == "left" else [x, noise])
    real = slice(2, 5) if side == "left" else slice(0, 3)
    batch = torch.cat([padded, draw(5, 1, ENCODER_OUTER, seed=6)], dim=1)
    padding = torch.ones(2, 5, dtype=torch.bool)
    padding[0, real] = padding[1] = False
    encoded, alone = encoder(batch, padding), encoder(x, None)
    torch.testing.assert_close(encoded[real, :1], alone)
    mask = causal_mask(4)
    together = decoder(y.repeat(1, 2, 1), encoded, padding, self_attn_mask=mask)[0]
    torch.testing.assert_close(together[:, :1], decoder(y, alone, self_attn_mask=mask)[0])


def test_dropout_is_on_the_way_out_and_in_the_networks() -> None:
    layer = BottleneckEncoderLayer(config(dropout=1.0, activation_dropout=1.0), STUDENT).train()
    x = draw(4, 2, ENCODER_OUTER).float()
    torch.testing.assert_close(layer(x, None), x)  # the block is dropped, and NoNorm starts as the identity
    dropouts = [layer.bottleneck_out.dropout_module, *(ffn.activation_dropout_module for ffn in layer.ffns)]
    assert {dropout.module_name for dropout in dropouts} == {"BottleneckEncoderLayer"}
    assert torch.equal(layer.ffns[0](x[..., :INNER]), x[..., :INNER] + layer.ffns[0].fc2.bias)


def test_mobile_bert_s_block_has_as_many_parameters_as_by_hand() -> None:
    structure = shape(128, 4, "elementwise", heads=4, ffn=512)
    layer = BottleneckEncoderLayer(config(encoder_embed_dim=512), structure)
    way_in = 512 * 128 + 128 + 2 * 128  # 65,920, twice
    attention = 3 * (128 * 128 + 128) + 512 * 128 + 128 + 2 * 128  # 115,456 with its norm
    network = 128 * 512 + 512 + 512 * 128 + 128 + 2 * 128  # 131,968, four times
    way_out = 128 * 512 + 512 + 2 * 512  # 67,072
    assert 2 * way_in + attention + 4 * network + way_out == 842_240
    assert sum(parameter.numel() for parameter in layer.parameters()) == 842_240


def test_bfloat16_is_near_float32() -> None:
    layer = with_random_parameters(BottleneckDecoderLayer(config(), STUDENT)).float()
    x, encoded, mask = draw(4, 2, OUTER).float(), draw(3, 2, ENCODER_OUTER).float(), causal_mask(4).float()
    expected = layer(x, encoded, self_attn_mask=mask)[0]
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(x, encoded, self_attn_mask=mask)[0]
    assert (output.float() - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder_normalize_before": True}, "--encoder-normalize-before: .* got True"),
        ({"cross_self_attention": True}, "--cross-self-attention: not supported"),
        ({"quant_noise_pq": 0.1}, "--quant-noise-pq: not supported .* got 0.1"),
    ],
)
def test_what_such_layers_do_not_have_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BottleneckEncoderLayer(config(**options), STUDENT)
    with pytest.raises(ConfigError, match="norm: must be one of layer, elementwise, got 'batch'"):
        make_norm("batch", 4)


def test_a_norm_without_statistics_multiplies_and_adds() -> None:
    norm = ElementwiseAffine(3)
    x = torch.tensor([[1.0, 2.0, -3.0], [0.0, 4.0, 5.0]])
    assert torch.equal(norm(x), x)
    norm.load_state_dict({"weight": torch.tensor([2.0, -1.0, 0.5]), "bias": torch.tensor([1.0, 0.0, 10.0])})
    assert norm(x).tolist() == [[3.0, -2.0, 8.5], [1.0, -4.0, 12.5]]
    with pytest.raises(ConfigError, match="hidden: must have 3 features, got 1"):
        norm(x[:, :1])
    with pytest.raises(ConfigError, match="width: must be at least 1, got 0"):
        ElementwiseAffine(0)
