"""The architectures: sizes, overriding values from the command line and from hydra."""

import argparse
from types import SimpleNamespace

import pytest
import torch
from fairseq import models, options
from fairseq.data import Dictionary
from omegaconf import OmegaConf

from fairseq_compress.errors import ConfigError
from fairseq_compress.models import presets
from fairseq_compress.models.compressed_transformer import CompressedTransformerModel
from fairseq_compress.models.presets import PRESETS
from fairseq_compress.modules.attention import HookableMultiheadAttention
from fairseq_compress.modules.factorized_embedding import FactorizedEmbedding
from fairseq_compress.modules.low_rank_linear import LowRankLinear
from fairseq_compress.modules.ssru import SSRU


def make_task(source_size: int, target_size: int) -> SimpleNamespace:
    """A stand-in for a task: what a model asks of one is its dictionaries."""
    dictionaries = []
    for size in (source_size, target_size):
        dictionary = Dictionary()
        for number in range(size - len(dictionary)):
            dictionary.add_symbol(f"w{number}")
        dictionaries.append(dictionary)
    return SimpleNamespace(source_dictionary=dictionaries[0], target_dictionary=dictionaries[1])


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("transformer_small", 13_721_600),
        ("transformer_student_tiny", 17_138_688),
        ("transformer_student_base_memory", 32_401_152),
        ("transformer_student_base", 43_706_368),
        ("transformer_student_deep", 58_416_640),
    ],
)
def test_presets_have_their_documented_size(name: str, count: int) -> None:
    preset = PRESETS[name]
    with torch.device("meta"):  # shapes only
        model = models.build_model(argparse.Namespace(arch=name), make_task(32_000, 32_000))
    assert isinstance(model, CompressedTransformerModel)
    assert sum(p.numel() for p in model.parameters()) == count
    assert f"{count:,}" in presets.__doc__
    for side, layers in ((model.encoder, preset.encoder_layers), (model.decoder, preset.decoder_layers)):
        assert len(side.layers) == layers
        assert side.embed_tokens.weight is model.decoder.output_projection.weight
    attentions = [m for m in model.modules() if isinstance(m, HookableMultiheadAttention)]
    assert {m.num_heads for m in attentions} == {preset.attention_heads}
    assert len(attentions) == preset.encoder_layers + 2 * preset.decoder_layers


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("transformer_student_tiny_ssru", 16_875_008),
        ("transformer_student_base_memory_ssru", 31_216_896),
        ("transformer_student_base_ssru", 42_654_720),
        ("transformer_bottleneck", 16_676_352),
        ("transformer_inverted_bottleneck", 201_994_240),
    ],
)
def test_presets_of_another_structure_have_their_documented_size(name: str, count: int) -> None:
    with torch.device("meta"):
        model = models.build_model(argparse.Namespace(arch=name), make_task(32_000, 32_000))
    assert sum(p.numel() for p in model.parameters()) == count
    assert f"{count:,}" in presets.__doc__
    kinds = {type(layer.self_attn) for layer in model.decoder.layers}
    assert kinds == ({SSRU} if name.endswith("ssru") else {HookableMultiheadAttention})


def parse_training_options(*arguments: str) -> argparse.Namespace:
    return options.parse_args_and_arch(options.get_training_parser(), ["data-bin", *arguments])


def test_the_command_line_overrides_a_preset() -> None:
    args = parse_training_options(
        "--arch", "transformer_student_tiny", "--decoder-layers", "1", "--encoder-embed-dim", "64", "--dropout", "0.3",
        "--encoder-attention-heads", "4",
    )  # fmt: skip
    assert (args.encoder_layers, args.decoder_layers, args.dropout) == (6, 1, 0.3)
    assert (args.encoder_embed_dim, args.decoder_embed_dim) == (64, 64)  # the decoder follows, as in fairseq
    assert (args.encoder_ffn_embed_dim, args.decoder_ffn_embed_dim) == (1536, 1536)
    assert (args.encoder_attention_heads, args.decoder_attention_heads) == (4, 8)
    assert args.share_all_embeddings
    assert not parse_training_options("--arch", "transformer_small", "--no-share-all-embeddings").share_all_embeddings
    plain = parse_training_options("--arch", "compressed_transformer")
    stock = vars(parse_training_options("--arch", "transformer")) | {"arch": "compressed_transformer"}
    assert vars(plain) == stock


def test_hydra_values_build_a_preset() -> None:
    cfg = OmegaConf.create({"_name": "transformer_student_tiny", "decoder_layers": 1, "encoder_embed_dim": 64})
    model = models.build_model(cfg, make_task(60, 60))
    assert isinstance(model, CompressedTransformerModel)
    assert (len(model.encoder.layers), len(model.decoder.layers)) == (6, 1)
    assert model.encoder.layers[0].fc1.weight.shape == (1536, 64)
    nested = OmegaConf.create({"_name": "transformer_student_tiny", "encoder": {"layers": 2}})
    with pytest.raises(ConfigError, match=r"model\.encoder: give flat values"):
        models.build_model(nested, make_task(60, 60))


def test_hydra_values_build_a_structure() -> None:
    """fairseq drops, without a word, the values of hydra that its own configuration of a transformer does not have."""
    small = {"encoder_layers": 1, "decoder_layers": 1, "encoder_embed_dim": 32, "encoder_ffn_embed_dim": 48}
    cfg = OmegaConf.create({"_name": "transformer_student_tiny_ssru", "embedding_rank": 8, "ffn_rank": 4, **small})
    OmegaConf.set_struct(cfg, True)  # as fairseq-hydra-train hands it over
    model = models.build_model(cfg, make_task(60, 60))
    assert isinstance(model.decoder.layers[0].self_attn, SSRU)
    assert isinstance(model.encoder.embed_tokens, FactorizedEmbedding)
    assert isinstance(model.encoder.layers[0].fc1, LowRankLinear)
    assert (cfg.max_source_positions, cfg.share_decoder_input_output_embed) == (1024, True)
    again = models.build_model(cfg, make_task(60, 60))  # as from its checkpoint
    again.load_state_dict(model.state_dict(), strict=True)


def test_shared_embeddings_need_a_joined_dictionary() -> None:
    two = make_task(60, 70)
    with pytest.raises(ConfigError, match=r"joined dictionary .* 60 entries .* 70"):
        models.build_model(argparse.Namespace(arch="transformer_small"), two)
    model = models.build_model(argparse.Namespace(arch="transformer_small", share_all_embeddings=False), two)
    assert len(model.encoder.embed_tokens.weight) == 60
    assert len(model.decoder.output_projection.weight) == 70
