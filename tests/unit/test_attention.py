"""Our attention against a slow loop, and against fairseq's with equal weights."""

import math

import pytest
import torch
from fairseq.modules import MultiheadAttention
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fairseq_compress.errors import ConfigError
from fairseq_compress.modules import attention
from fairseq_compress.modules.attention import HookableMultiheadAttention, mark_causal

WIDTH, HEADS = 16, 4
ROLES = {"self": {"self_attention": True}, "cross": {"encoder_decoder_attention": True}, "general": {}}


def make_pair(role: str, **options: object) -> tuple[HookableMultiheadAttention, MultiheadAttention]:
    """Ours and fairseq's with the same random weights and, other than fairseq's start, random biases."""
    torch.manual_seed(1)
    theirs = MultiheadAttention(WIDTH, HEADS, **ROLES[role], **options)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    ours = HookableMultiheadAttention(WIDTH, HEADS, **ROLES[role], **options)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours.eval(), theirs.eval()


def padding_mask(side: str, batch: int, length: int) -> Tensor | None:
    """True at 0, 1, 2, ... paddings on the given side of each row; no mask at all for "none"."""
    if side == "none":
        return None
    mask = torch.arange(length) >= length - torch.arange(batch)[:, None]
    return mask if side == "right" else mask.flip(1)


def causal_mask(length: int) -> Tensor:
    return torch.full((length, length), -math.inf).triu(1)


def loop_attention(module: torch.nn.Module, query: Tensor, key: Tensor, forbidden: Tensor) -> tuple[Tensor, Tensor]:
    """The definition, one score at a time, with ``forbidden`` ``(B, T, S)``: the output and maps ``(H, B, T, S)``."""
    q, k, v = module.q_proj(query), module.k_proj(key), module.v_proj(key)
    depth = WIDTH // HEADS
    maps = torch.zeros(HEADS, query.size(1), query.size(0), key.size(0), dtype=query.dtype)
    attended = torch.zeros_like(q)
    for h in range(HEADS):
        part = slice(h * depth, (h + 1) * depth)
        for b in range(query.size(1)):
            for t in range(query.size(0)):
                allowed = [s for s in range(key.size(0)) if not forbidden[b, t, s]]
                scores = [math.exp(float(q[t, b, part] @ k[s, b, part]) / math.sqrt(depth)) for s in allowed]
                for s, score in zip(allowed, scores, strict=True):
                    maps[h, b, t, s] = score / sum(scores)
                    attended[t, b, part] += maps[h, b, t, s] * v[s, b, part]
    return module.out_proj(attended), maps


@settings(max_examples=25, deadline=None)
@given(
    tgt_len=st.integers(1, 4),
    src_len=st.integers(1, 5),
    batch=st.integers(1, 3),
    seed=st.integers(0, 100),
    maps=st.booleans(),
)
def test_equals_the_definition_in_float64(tgt_len: int, src_len: int, batch: int, seed: int, maps: bool) -> None:
    module = make_pair("cross")[0].double()
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(tgt_len, batch, WIDTH, generator=generator, dtype=torch.float64)
    key = torch.randn(src_len, batch, WIDTH, generator=generator, dtype=torch.float64)
    padding = torch.rand(batch, src_len, generator=generator) < 0.4
    mask = torch.rand(tgt_len, src_len, generator=generator) < 0.3
    with torch.no_grad():
        output, weights = module(
            query, key, key, padding, need_weights=maps, need_head_weights=maps, attn_mask=mask, static_kv=True
        )
        expected, expected_maps = loop_attention(module, query, key, padding[:, None] | mask)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)
    if maps:
        torch.testing.assert_close(weights, expected_maps, rtol=0, atol=1e-12)


FAIRSEQ_CASES = [
    (role, side, causal, need_weights)
    for role in ROLES
    for side in ("none", "right", "left")
    for causal in (("no", "plain", "marked") if role == "self" else ("no",))
    for need_weights in (False, True)
    # Not where fairseq gives NaN: maps of queries whose only keys so far are padding.
    if not (side == "left" and causal != "no" and need_weights)
]


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")  # fairseq's call
@pytest.mark.parametrize(("role", "side", "causal", "need_weights"), FAIRSEQ_CASES)
def test_equals_fairseq_with_gradients(role: str, side: str, causal: str, need_weights: bool) -> None:
    pair = make_pair(role)
    tgt_len, batch = 5, 3
    src_len = tgt_len if role == "self" else 7
    query, key = torch.randn(tgt_len, batch, WIDTH), torch.randn(src_len, batch, WIDTH)
    options = {"key_padding_mask": padding_mask(side, batch, src_len), "need_weights": need_weights}
    if causal != "no":
        options["attn_mask"] = mark_causal(causal_mask(tgt_len)) if causal == "marked" else causal_mask(tgt_len)
    outputs, maps, gradients = [], [], []
    for module in pair:
        q, k = query.clone().requires_grad_(), key.clone().requires_grad_()
        k = q if role == "self" else k
        output, weights = module(q, k, k, static_kv=role == "cross", **options)
        output.square().sum().backward()
        outputs.append(output)
        maps.append(weights)
        gradients.append({"query": q.grad, **{name: p.grad for name, p in module.named_parameters()}})
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-5)
    torch.testing.assert_close(*maps, rtol=0, atol=1e-6)
    for name, own in gradients[0].items():
        # A bias of the keys moves all scores of a query alike: its exact gradient is 0, and what is there is rounding.
        scale = gradients[1]["k_proj.weight" if name == "k_proj.bias" else name].abs().max()
        assert (own - gradients[1][name]).abs().max() <= 1e-4 * scale, name


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("side", ["none", "right", "left"])
def test_every_step_of_incremental_decoding_equals_the_teacher_forced_forward(side: str, need_weights: bool) -> None:
    ours, _ = make_pair("self")
    length, batch = 6, 3
    x, padding = torch.randn(length, batch, WIDTH), padding_mask(side, batch, length)
    whole, maps = ours(x, x, x, padding, attn_mask=causal_mask(length), need_head_weights=need_weights)
    state: dict = {}
    for t in range(length):
        step_padding = None if padding is None or not padding[:, t].any() else padding[:, t : t + 1]
        step, step_maps = ours(
            x[t : t + 1], None, None, step_padding, state, need_weights=False, need_head_weights=need_weights
        )
        torch.testing.assert_close(step[0], whole[t], rtol=0, atol=1e-5)
        if need_weights:
            torch.testing.assert_close(step_maps[:, :, 0], maps[:, :, t, : t + 1], rtol=0, atol=1e-6)
    saved = ours._get_input_buffer(state)
    assert saved["prev_key"].shape == saved["prev_value"].shape == (batch, HEADS, length, WIDTH // HEADS)


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("repeated", [True, False])
def test_static_keys_of_a_beam_equal_fairseq(beam: int, repeated: bool, need_weights: bool) -> None:
    """With ``set_beam_size`` keys are kept once a sentence, given once a sentence or once a hypothesis."""
    batch, src_len = 4, 7
    key, padding = torch.randn(src_len, batch, WIDTH), padding_mask("right", batch, src_len)
    if repeated:
        key, padding = key.repeat_interleave(beam, dim=1), padding.repeat_interleave(beam, dim=0)
    steps = [torch.randn(1, batch * beam, WIDTH) for _ in range(2)] + [torch.randn(1, 2 * beam, WIDTH)]
    keep = torch.cat([torch.arange(beam), torch.arange(2 * beam, 3 * beam).flip(0)])  # sentences 0 and 2 go on
    results = []
    for module in make_pair("cross"):
        module.set_beam_size(beam)
        state: dict = {}
        outputs = []
        for number, query in enumerate(steps):
            if number == 2:
                module.reorder_incremental_state(state, keep)
                assert module._get_input_buffer(state)["prev_key"].size(0) == 2
            outputs.append(module(query, key, key, padding, state, need_weights=need_weights, static_kv=True))
        results.append(outputs)
    for (own, own_maps), (other, other_maps) in zip(*results, strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=1e-5)
        torch.testing.assert_close(own_maps, other_maps, rtol=0, atol=1e-6)


@pytest.mark.parametrize("need_weights", [False, True])
def test_a_wholly_padded_row_gives_no_nan(need_weights: bool) -> None:
    ours, _ = make_pair("self")
    x = torch.randn(4, 3, WIDTH, requires_grad=True)
    padding = torch.zeros(3, 4, dtype=torch.bool)
    padding[1] = True
    output, maps = ours(x, x, x, padding, need_weights=need_weights, attn_mask=causal_mask(4))
    torch.testing.assert_close(output[:, 1], ours.out_proj(torch.zeros(4, WIDTH)))
    output.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in [x, *ours.parameters()])
    if need_weights:
        assert maps[1].eq(0).all()
        torch.testing.assert_close(maps[::2].sum(-1), torch.ones(2, 4))


def test_an_additive_mask_is_added_and_a_boolean_one_forbids() -> None:
    ours, theirs = make_pair("self")
    x, bias = torch.randn(4, 2, WIDTH), torch.randn(4, 4)
    for need_weights in (False, True):
        own = ours(x, x, x, need_weights=need_weights, attn_mask=bias)[0]
        torch.testing.assert_close(own, theirs(x, x, x, need_weights=need_weights, attn_mask=bias)[0])
    causal = causal_mask(4)
    for mask in (causal < 0, (causal < 0).byte()):
        own = ours(x, x, x, need_weights=False, attn_mask=mask)[0]
        torch.testing.assert_close(own, ours(x, x, x, need_weights=False, attn_mask=causal)[0])


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("incremental", [False, True])
@pytest.mark.parametrize("role", ["self", "cross", "general"])
def test_each_projection_is_called_once_and_its_output_left_alone(
    role: str, incremental: bool, need_weights: bool
) -> None:
    ours, _ = make_pair(role)
    seen: list[tuple[str, Tensor, Tensor]] = []
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        ours.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: seen.append((name, output, output.clone()))
        )
    x = torch.randn(1, 2, WIDTH)
    ours(x, x, x, None, {} if incremental else None, need_weights=need_weights, static_kv=role == "cross")
    assert sorted(name for name, _, _ in seen) == ["k_proj", "out_proj", "q_proj", "v_proj"]
    for name, output, copy in seen:
        assert torch.equal(output, copy), name


@pytest.mark.parametrize("length", [32, 300])  # the explicit form, and the fused kernel of torch
def test_dropout_drops_that_share_of_the_weights(length: int) -> None:
    """With zero queries all weights are 1 / S, and one-hot values show each of them in the output."""
    probability = 0.25
    module = HookableMultiheadAttention(length, 1, dropout=probability, self_attention=True, bias=False).train()
    torch.nn.init.zeros_(module.q_proj.weight)
    for projection in (module.v_proj, module.out_proj):
        torch.nn.init.eye_(projection.weight)
    x = torch.eye(length)[:, None].repeat(1, 200 if length < 100 else 2, 1)
    weights, _ = module(x, x, x, need_weights=False)
    dropped = weights.eq(0)
    assert abs(dropped.float().mean().item() - probability) < 0.01
    torch.testing.assert_close(weights[~dropped], torch.full_like(weights[~dropped], 1 / length / (1 - probability)))
    assert module.eval()(x, x, x, need_weights=False)[0].gt(0).all()


@pytest.mark.parametrize("mode", ["autocast", torch.bfloat16, torch.float16])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_low_precision_is_near_float32(
    mode: str | torch.dtype, fused: bool, need_weights: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _ = make_pair("self")
    x, padding = torch.randn(5, 3, WIDTH), padding_mask("right", 3, 5)
    mask = causal_mask(5)
    expected, _ = ours(x, x, x, padding, attn_mask=mask)
    monkeypatch.setattr(attention, "_explicit_is_faster", lambda *_: not fused)
    with torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"):
        if mode != "autocast":
            ours, x, mask = ours.to(mode), x.to(mode), mask.to(mode)
        output, maps = ours(x, x, x, padding, attn_mask=mask, need_weights=need_weights)
    assert output.dtype == (torch.bfloat16 if mode == "autocast" else mode)
    assert (output.float() - expected).abs().max() < 0.05 * expected.abs().max()
    assert maps is None or maps.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "value"),
    [("add_bias_kv", True), ("add_zero_attn", True), ("xformers_att_config", "{'name': 'linformer'}")],
)
def test_unsupported_options_are_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        HookableMultiheadAttention(WIDTH, HEADS, **{name: value})


def test_wrong_heads_and_before_softmax_are_refused() -> None:
    for heads in (3, 0, -4):
        with pytest.raises(ConfigError, match=f"num_heads: must divide embed_dim = {WIDTH}, got {heads}"):
            HookableMultiheadAttention(WIDTH, heads)
    x = torch.randn(2, 1, WIDTH)
    with pytest.raises(ConfigError, match="before_softmax"):
        make_pair("self")[0](x, x, x, before_softmax=True)


def test_a_source_without_padding_is_cached_without_a_mask() -> None:
    ours, _ = make_pair("cross")
    query, key = torch.randn(1, 3, WIDTH), torch.randn(5, 3, WIDTH)
    for kept in (True, False):
        padding = padding_mask("right", 3, 5) & kept
        state: dict = {}
        steps = [ours(query, key, key, padding, state, need_weights=False, static_kv=True)[0] for _ in range(2)]
        assert (ours._get_input_buffer(state)["prev_key_padding_mask"] is not None) == kept
        expected, _ = ours(query, key, key, padding, need_weights=False, static_kv=True)
        for step in steps:
            torch.testing.assert_close(step, expected)
