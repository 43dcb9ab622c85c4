"""Recurrent units in place of self-attention: against loops, step by step, and inside of fairseq's decoder layer."""

from typing import Any

import pytest
import torch
from fairseq.models.transformer import TransformerConfig
from torch import Tensor, nn

from fairseq_compress.architecture import shape as shapes
from fairseq_compress.errors import ConfigError
from fairseq_compress.modules.average_attention import AverageAttention
from fairseq_compress.modules.recurrent_state import RecurrentUnit
from fairseq_compress.modules.ssru import SSRU
from fairseq_compress.modules.transformer_layer import HookableDecoderLayer

WIDTH = 6
UNITS = {
    "ssru": lambda: SSRU(WIDTH),
    "average": lambda: AverageAttention(WIDTH, 10, 0.1, "relu"),
    "average without network": lambda: AverageAttention(WIDTH),
}
every_unit = pytest.mark.parametrize("name", UNITS)


def make(name: str, dtype: torch.dtype = torch.float64) -> RecurrentUnit:
    """A unit in evaluation, with random biases."""
    torch.manual_seed(3)
    unit = UNITS[name]()
    for parameter in unit.parameters():
        nn.init.normal_(parameter, std=0.6)
    return unit.to(dtype).eval()


def draw(length: int, batch: int, seed: int = 0) -> Tensor:
    return torch.randn(length, batch, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def padding_on(side: str, batch: int, length: int) -> Tensor:
    """0, 1, 2, ... paddings in the rows."""
    mask = torch.arange(length) >= length - torch.arange(batch)[:, None]
    return mask if side == "right" else mask.flip(1)


def by_loop(unit: Any, x: Tensor) -> Tensor:
    """The definitions, a position of a sentence (T, C) at a time."""
    state, outputs = torch.zeros(WIDTH, dtype=x.dtype), []
    for t, now in enumerate(x):
        if isinstance(unit, SSRU):
            forget = torch.sigmoid(unit.forget.weight @ now + unit.forget.bias)
            state = forget * state + (1 - forget) * (unit.project.weight @ now)
            outputs.append(state.clamp_min(0))
            continue
        average = x[: t + 1].mean(dim=0)
        if unit.ffn_embed_dim:
            inner = (unit.fc1.weight @ average + unit.fc1.bias).clamp_min(0)
            average = unit.fc2.weight @ inner + unit.fc2.bias
        gates = torch.sigmoid(unit.gates.weight @ torch.cat([now, average]) + unit.gates.bias)
        outputs.append(gates[:WIDTH] * now + gates[WIDTH:] * average)
    return torch.stack(outputs)


def run(unit: nn.Module, x: Tensor, sizes: list[int], padding: Tensor | None = None) -> Tensor:
    """Incrementally, in chunks of these sizes."""
    state: dict[str, Any] = {}
    chunks = x.split(sizes)
    masks = [None] * len(sizes) if padding is None else padding.split(sizes, dim=1)
    return torch.cat(
        [
            unit(chunk, chunk, chunk, key_padding_mask=mask, incremental_state=state)[0]
            for chunk, mask in zip(chunks, masks, strict=True)
        ]
    )


def state_bytes(state: dict[str, Any]) -> int:
    return sum(tensor.untyped_storage().nbytes() for buffer in state.values() for tensor in buffer.values())


@every_unit
def test_equals_the_definition(name: str) -> None:
    unit, x = make(name), draw(7, 3)
    output, maps = unit(x, x, x, attn_mask=torch.zeros(7, 7), need_weights=True, need_head_weights=True)
    assert maps is None
    torch.testing.assert_close(output, torch.stack([by_loop(unit, x[:, b]) for b in range(3)], dim=1))


def test_ssru_by_hand() -> None:
    unit = SSRU(1)
    unit.load_state_dict({"forget.weight": torch.zeros(1, 1), "forget.bias": torch.zeros(1),
                          "project.weight": torch.full((1, 1), 2.0)})  # fmt: skip
    output = unit(torch.tensor([1.0, -2.0, 3.0]).view(3, 1, 1))[0]  # f = 0.5: c = 1, -1.5, 2.25
    assert output.flatten().tolist() == [1.0, 0.0, 2.25]


def test_average_attention_by_hand() -> None:
    unit = AverageAttention(1)
    unit.load_state_dict({"gates.weight": torch.zeros(2, 2), "gates.bias": torch.tensor([0.0, -100.0])})
    assert unit(torch.tensor([1.0, 3.0]).view(2, 1, 1))[0].flatten().tolist() == [0.5, 1.5]  # 0.5 x
    unit.load_state_dict({"gates.weight": torch.zeros(2, 2), "gates.bias": torch.tensor([-100.0, 0.0])})
    assert unit(torch.tensor([1.0, 3.0]).view(2, 1, 1))[0].flatten().tolist() == [0.5, 1.0]  # 0.5 of the mean


@every_unit
@pytest.mark.parametrize("sizes", [[1] * 12, [5, 1, 1, 1, 4], [12], [3, 9]], ids=str)
def test_incremental_equals_the_whole_sequence(name: str, sizes: list[int]) -> None:
    for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 1e-6)):  # the definition, and what rounding adds
        unit, x = make(name, dtype), draw(12, 3).to(dtype)
        with torch.no_grad():
            torch.testing.assert_close(run(unit, x, sizes), unit(x)[0], rtol=tolerance, atol=tolerance)


@every_unit
def test_reordered_rows_go_on_from_their_parents(name: str) -> None:
    unit, x = make(name), draw(10, 4)
    order = torch.tensor([3, 0, 0, 2, 3])
    later = draw(6, 5, seed=1)
    state: dict[str, Any] = {}
    with torch.no_grad():
        for t in range(4):
            unit(x[t : t + 1], incremental_state=state)
        unit.reorder_incremental_state(state, order)
        found = torch.cat([unit(later[t : t + 1], incremental_state=state)[0] for t in range(6)])
        expected = unit(torch.cat([x[:4, order], later]))[0][4:]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


@every_unit
def test_reordering_before_the_first_step_does_nothing(name: str) -> None:
    state: dict[str, Any] = {}
    assert make(name).reorder_incremental_state(state, torch.tensor([1, 0])) == {}


@every_unit
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_leaves_the_state_alone(name: str, side: str) -> None:
    unit, x = make(name), draw(7, 3)
    padding = padding_on(side, 3, 7)
    outputs = [unit(x, key_padding_mask=padding)[0], run(unit, x, [3, 1, 2, 1], padding)]
    for b in range(3):
        kept = ~padding[b]
        for output in outputs:
            torch.testing.assert_close(output[kept, b], by_loop(unit, x[kept, b]))
    garbage = x.masked_fill(padding.t().unsqueeze(-1), 1e4)
    kept = ~padding.t()
    assert torch.equal(unit(garbage, key_padding_mask=padding)[0][kept], outputs[0][kept])


@every_unit
def test_the_state_has_one_size(name: str) -> None:
    unit, x = make(name, torch.float32), draw(50, 4).float()
    sizes, state = {}, {}
    with torch.no_grad():
        for t in range(50):
            unit(x[t : t + 1], incremental_state=state)
            sizes[t + 1] = state_bytes(state)
        unit(x, incremental_state=state)  # a chunk of 50 leaves no more
    assert sizes[3] == sizes[50] == state_bytes(state) == 4 * 4 * sum(unit.state_widths.values())


@every_unit
def test_gradients_equal_finite_differences(name: str) -> None:
    unit, x, padding = make(name), draw(4, 2).requires_grad_(), padding_on("right", 2, 4)
    assert torch.autograd.gradcheck(lambda x: unit(x, key_padding_mask=padding)[0][~padding.t()], [x])
    unit(x)[0].sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in unit.parameters())


@every_unit
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_state_in_float32(name: str, dtype: torch.dtype) -> None:
    unit, x = make(name, torch.float32), draw(20, 2).float()
    state: dict[str, Any] = {}
    with torch.autocast("cpu", dtype):
        output = unit(x, incremental_state=state)[0]
        torch.testing.assert_close(run(unit, x, [7, 1, 12]), output, rtol=0, atol=2e-2)
    assert output.dtype == torch.float32  # that of its input
    assert all(tensor.dtype == torch.float32 for buffer in state.values() for tensor in buffer.values())
    torch.testing.assert_close(output, unit(x)[0], rtol=0, atol=5e-2)
    state = {}
    assert make(name, dtype)(x.to(dtype), incremental_state=state)[0].dtype == dtype
    assert all(tensor.dtype == torch.float32 for buffer in state.values() for tensor in buffer.values())


class Layer(HookableDecoderLayer):
    unit = "ssru"

    def build_self_attention(self, *_: Any, **__: Any) -> RecurrentUnit:
        return UNITS[self.unit]()


def decoder_layer(name: str, before: bool) -> Layer:
    cfg = TransformerConfig()
    for side in (cfg.encoder, cfg.decoder):
        side.embed_dim, side.ffn_embed_dim, side.attention_heads, side.normalize_before = WIDTH, 12, 2, before
    shape = shapes.Layer(shapes.Attention("ssru"), 12, shapes.Attention("attention", 2, WIDTH // 2))
    torch.manual_seed(4)
    return type("Named", (Layer,), {"unit": name})(cfg, shape).eval()


@every_unit
@pytest.mark.parametrize("before", [True, False], ids=["pre-norm", "post-norm"])
def test_a_decoder_layer_of_fairseq_calls_it(name: str, before: bool) -> None:
    layer, x, source = decoder_layer(name, before).double(), draw(9, 3), draw(5, 3, seed=1)
    mask = torch.full((9, 9), -torch.inf).triu(1)
    state: dict[str, Any] = {}
    with torch.no_grad():
        whole = layer(x, source, self_attn_mask=mask)[0]
        steps = [layer(x[t : t + 1], source, incremental_state=state)[0] for t in range(9)]
        torch.testing.assert_close(torch.cat(steps), whole, rtol=0, atol=1e-12)
        assert torch.equal(layer(x, source, self_attn_mask=None)[0], whole)  # full_context_alignment
        shorter = layer(x[:4], source, self_attn_mask=mask[:4, :4])[0]
        torch.testing.assert_close(shorter, whole[:4], rtol=0, atol=1e-12)
        assert layer(x, source, need_attn=True)[1].shape == (3, 9, 5)  # the maps of the attention to the source
    with pytest.raises(ConfigError, match="no keys and values of attention, got prev_key, prev_value"):
        layer(x[:1], source, incremental_state=state, prev_self_attn_state=[x, x])


@every_unit
def test_a_state_dict_brings_back_the_unit(name: str) -> None:
    unit, x = make(name), draw(4, 2)
    other = UNITS[name]().double().eval()
    other.load_state_dict(unit.state_dict(), strict=True)
    assert torch.equal(other(x)[0], unit(x)[0])
    assert f"embed_dim={WIDTH}" in repr(unit)


def test_parameters_and_their_start() -> None:
    unit = SSRU(64)
    assert sum(parameter.numel() for parameter in unit.parameters()) == 2 * 64**2 + 64
    assert not unit.forget.bias.any()
    for linear in (unit.forget, unit.project):
        assert linear.weight.var().item() == pytest.approx(1 / 64, rel=0.1)
    assert sum(p.numel() for p in AverageAttention(64, 32).parameters()) == 4 * 64**2 + 128 + 2 * 64 * 32 + 96


def test_what_a_recurrent_unit_cannot_see_is_refused() -> None:
    unit, x = SSRU(WIDTH), draw(3, 2).float()
    with pytest.raises(ConfigError, match=r"key: must be the query, \(3, 2, 6\), .*cross-self.*got \(4, 2, 6\)"):
        unit(x, torch.zeros(4, 2, WIDTH))
    with pytest.raises(ConfigError, match=r"query: must be \(T, B, 6\), got \(3, 2, 5\)"):
        unit(x[..., :5])
    with pytest.raises(ConfigError, match=r"key_padding_mask: must be \(B, T\) = \(2, 3\), got \(3, 2\)"):
        unit(x, key_padding_mask=torch.zeros(3, 2, dtype=torch.bool))
    for arguments, message in (((0,), "embed_dim"), ((4, -1), "ffn_embed_dim"), ((4, 4, 1.0), "dropout"),
                               ((4, 4, 0.0, "no"), "activation: must be one of relu")):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            AverageAttention(*arguments)
