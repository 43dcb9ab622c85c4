"""The trigram embedding against its equation, by hand, and in a decoder that gives it one token at a time."""

import math
from argparse import Namespace
from typing import Any

import pytest
import torch
from fairseq.data import Dictionary
from fairseq.models.transformer import Embedding, TransformerConfig, TransformerDecoderBase
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fairseq_compress.architecture.shape import Attention, BottleneckShape, Layer
from fairseq_compress.errors import ConfigError
from fairseq_compress.modules.bottleneck_layer import BottleneckDecoderLayer
from fairseq_compress.modules.convolutional_embedding import ConvolutionalEmbedding

PAD, ENTRIES, NARROW, WIDE = 1, 9, 3, 5


def make(causal: bool, taps: int = 3) -> ConvolutionalEmbedding:
    """With no zeros anywhere, not even in the row of padding: a tied output gives it gradients."""
    torch.manual_seed(1)
    module = ConvolutionalEmbedding(nn.Embedding(ENTRIES, NARROW, PAD), WIDE, taps, causal=causal)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module.double()


def embed(module: ConvolutionalEmbedding, tokens: Tensor) -> Tensor:
    """Of whole sequences."""
    if not module.causal:
        return module(tokens)
    with module.within(tokens):
        return module(tokens)


def slow(module: ConvolutionalEmbedding, tokens: Tensor) -> Tensor:
    """One tap of one token at a time, with its own block of W."""
    first = -(module.taps - 1) if module.causal else -(module.taps // 2)
    rows = []
    for sentence in tokens.tolist():
        for t, token in enumerate(sentence):
            x = module.convolution.bias * 0 if token == PAD else module.convolution.bias
            for tap in range(module.taps) if token != PAD else ():
                place = t + first + tap
                if 0 <= place < len(sentence) and sentence[place] != PAD:
                    block = module.convolution.weight[:, tap * NARROW : (tap + 1) * NARROW]
                    x = x + block @ module.table.weight[sentence[place]]
            rows.append(x)
    return torch.stack(rows).view(*tokens.shape, WIDE)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3),
    length=st.integers(1, 6),
    taps=st.integers(1, 5),
    causal=st.booleans(),
    seed=st.integers(0, 99),
)
def test_equals_the_definition_with_gradients(batch: int, length: int, taps: int, causal: bool, seed: int) -> None:
    module = make(causal, taps if causal else taps // 2 * 2 + 1)
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, ENTRIES, (batch, length), generator=generator)
    tokens[torch.rand(tokens.shape, generator=generator) < 0.3] = PAD
    output, expected = embed(module, tokens), slow(module, tokens)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)
    factors = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    own, other = (
        torch.autograd.grad((x * factors).sum(), list(module.parameters()), materialize_grads=True, allow_unused=True)
        for x in (output, expected)
    )
    for one, two in zip(own, other, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-11)
    assert own[0][PAD].eq(0).all()


def test_a_trigram_by_hand() -> None:
    """Rows of width 1; W has 1, 10, 100 for the first, second and third token of a window, b is 0.5."""
    tokens = torch.tensor([[4, 5, 6], [PAD, 4, 5], [4, PAD, PAD]])
    expected = {
        False: [[540.5, 654.5, 65.5], [0, 540.5, 54.5], [40.5, 0, 0]],
        True: [[400.5, 540.5, 654.5], [0, 400.5, 540.5], [400.5, 0, 0]],
    }
    for causal, values in expected.items():
        table = nn.Embedding(9, 1, PAD)
        module = ConvolutionalEmbedding(table, 1, causal=causal)
        table.weight.data = torch.arange(9.0)[:, None]
        module.convolution.weight.data = torch.tensor([[1.0, 10.0, 100.0]])
        module.convolution.bias.data.fill_(0.5)
        assert embed(module, tokens).squeeze(-1).tolist() == values


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_is_as_if_it_were_not_there(causal: bool, side: str) -> None:
    module, tokens, padding = make(causal), torch.tensor([[2, 7, 5, 8]]), torch.full((1, 3), PAD)
    padded = torch.cat([padding, tokens] if side == "left" else [tokens, padding], dim=1)
    output = embed(module, padded)
    real = slice(3, None) if side == "left" else slice(0, 4)
    torch.testing.assert_close(output[:, real], embed(module, tokens))
    output[:, real] = 0.0
    assert output.eq(0).all()


@pytest.mark.parametrize("taps", [1, 2, 3, 4])
def test_the_last_tokens_within_a_sequence_are_as_in_the_whole(taps: int) -> None:
    module, tokens = make(True, taps), torch.tensor([[2, 7, 5, 8, 3], [2, 4, PAD, 6, 6]])
    whole = embed(module, tokens)
    for end in range(1, 6):
        with module.within(tokens[:, :end]):
            for first in range(end):
                torch.testing.assert_close(module(tokens[:, first:end]), whole[:, first:end])


def test_within_ends_with_an_error_too_and_may_be_nested() -> None:
    module, tokens = make(True), torch.tensor([[2, 7, 5]])
    with module.within(tokens):
        with (
            pytest.raises(ConfigError, match=r"tokens: must be the end .*\(1, 2\), got \(1, 3\)"),
            module.within(tokens[:, :2]),
        ):
            module(tokens)
        assert module(tokens).shape == (1, 3, WIDE)
    with pytest.raises(ConfigError, match="causal: must be called inside of within"):
        module(tokens)
    with pytest.raises(ConfigError, match=r"tokens: must be of shape \(B, T\), got \(3,\)"):
        module(tokens[0])
    with pytest.raises(ConfigError, match="causal: must be set"), make(False).within(tokens):
        pass


def test_one_table_is_that_of_encoder_decoder_and_output() -> None:
    table = Embedding(ENTRIES, NARROW, PAD)
    model = nn.ModuleDict({str(causal): ConvolutionalEmbedding(table, WIDE, causal=causal) for causal in (False, True)})
    model["output"] = model["True"].tied_output()
    assert sum(p.numel() for p in model.parameters()) == ENTRIES * NARROW + 2 * (3 * NARROW * WIDE + WIDE)
    assert model["output"].weight is model["False"].table.weight is table.weight
    assert (model["output"].in_features, model["output"].out_features) == (NARROW, ENTRIES)
    hidden = torch.randn(2, NARROW)
    torch.testing.assert_close(model["output"](hidden), hidden @ table.weight.t())
    other = nn.ModuleDict({"True": ConvolutionalEmbedding(Embedding(ENTRIES, NARROW, PAD), WIDE, causal=True)})
    other.load_state_dict({key: value for key, value in model.state_dict().items() if key.startswith("True.")})
    tokens = torch.tensor([[3, 4, 5, PAD]])
    assert torch.equal(embed(other["True"], tokens), embed(model["True"], tokens))


def test_initial_embeddings_have_the_variance_of_fairseq_s() -> None:
    torch.manual_seed(1)
    module = ConvolutionalEmbedding(Embedding(500, 32, PAD), 128, causal=False)
    inner = module(torch.randint(2, 500, (8, 200)))[:, 1:-1]
    assert abs(inner.std().item() * math.sqrt(128) - 1) < 0.1
    assert module.multiply_adds == 3 * 32 * 128
    assert (module.num_embeddings, module.embedding_dim, module.padding_idx) == (500, 128, PAD)
    assert "500, 128, table_width=32, taps=3, causal=False, padding_idx=1" in repr(module)


def test_bfloat16_is_near_float32() -> None:
    module, tokens = make(False).float(), torch.tensor([[3, 4, 5, PAD]])
    expected = module(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        output = module(tokens)
    assert (output.float() - expected).abs().max() < 0.05 * expected.abs().max()
    assert output[:, 3].eq(0).all()


@pytest.mark.parametrize(
    ("padding_idx", "width", "taps", "causal", "message"),
    [
        (None, 4, 3, True, "table: must have a padding_idx"),
        (PAD, 0, 3, True, "embedding_dim: must be at least 1, got 0"),
        (PAD, 4, 2, False, "taps: must be at least 1, and odd if windows are symmetric, got 2"),
        (PAD, 4, 0, True, "taps: must be at least 1, .*, got 0"),
    ],
)
def test_wrong_sizes_are_refused(padding_idx: int | None, width: int, taps: int, causal: bool, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ConvolutionalEmbedding(nn.Embedding(ENTRIES, NARROW, padding_idx), width, taps, causal=causal)


class Decoder(TransformerDecoderBase):
    """fairseq's, with bottleneck layers and the embedding told of all tokens."""

    def build_decoder_layer(self, cfg: Any, no_encoder_attn: bool = False) -> nn.Module:
        heads, inside = cfg.decoder.attention_heads, BottleneckShape(4, ffn_stack=2, norm="elementwise")
        attention = Attention("attention", heads, 4 // heads)
        return BottleneckDecoderLayer(cfg, Layer(attention, cfg.decoder.ffn_embed_dim, attention, inside))

    def extract_features(self, prev_output_tokens: Tensor, *args: Any, **options: Any) -> Any:
        with self.embed_tokens.within(prev_output_tokens):
            return super().extract_features(prev_output_tokens, *args, **options)


def test_a_decoder_of_mobile_bert_s_parts_steps_as_it_is_trained_under_reordering() -> None:
    torch.manual_seed(1)
    dictionary = Dictionary()
    for number in range(20):
        dictionary.add_symbol(f"w{number}")
    names = {"decoder_embed_dim": 8, "encoder_embed_dim": 8, "decoder_output_dim": 6, "decoder_layers": 2}
    names |= {"decoder_attention_heads": 2, "decoder_ffn_embed_dim": 8}
    table = Embedding(len(dictionary), 6, dictionary.pad())
    embedding = ConvolutionalEmbedding(table, 8, causal=True)
    cfg = TransformerConfig.from_namespace(Namespace(**names))
    decoder = Decoder(cfg, dictionary, embedding, output_projection=embedding.tied_output()).eval()
    encoded = {"encoder_out": [torch.randn(5, 1, 8).repeat(1, 3, 1)], "encoder_padding_mask": []}
    tokens, state = torch.full((3, 1), dictionary.eos()), {}
    for step in range(6):
        logits, _ = decoder(tokens, encoded, incremental_state=state)
        whole, _ = decoder(tokens, encoded)
        assert logits.shape == (3, 1, len(dictionary))
        torch.testing.assert_close(logits[:, 0], whole[:, -1], rtol=0, atol=1e-5)
        order = torch.tensor([[1, 2, 0], [0, 0, 2], [2, 1, 1]][step % 3])
        decoder.reorder_incremental_state_scripting(state, order)
        tokens = torch.cat([tokens[order], torch.randint(4, len(dictionary), (3, 1))], dim=1)
