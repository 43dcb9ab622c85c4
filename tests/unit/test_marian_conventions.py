"""Marian's conventions in our models: the decoder's zero start, positions from 0, epsilon of norms, output bias."""

import argparse
import math

import pytest
import torch
from fairseq import models
from fairseq.sequence_generator import SequenceGenerator

from fairseq_compress import register
from fairseq_compress.architecture.configuration import architecture_of
from fairseq_compress.architecture.reading import read_architecture, to_json
from fairseq_compress.architecture.stock import why_not_stock
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.errors import ConfigError
from fairseq_compress.modules.marian_conventions import PositionsFromZero, ZeroStartEmbedding
from fairseq_compress.runtimes.torch.model import TorchModel
from fairseq_compress.runtimes.torch.step_decoders import GeneralDecoder, step_decoder
from fairseq_compress.teachers.loading import LoadedModels
from tests.unit.test_presets import make_task

ENTRIES = 40


@pytest.fixture(scope="module", autouse=True)
def registered():
    register()


def build(preset="transformer_student_tiny_bergamot", **options):
    sizes = {"encoder_layers": 1, "decoder_layers": 2, "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 24}
    args = argparse.Namespace(arch=preset, encoder_attention_heads=2, decoder_attention_heads=2, **sizes | options)
    torch.manual_seed(1)
    model = models.build_model(args, make_task(ENTRIES, ENTRIES)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


def sinusoid(position, width):
    half = width // 2
    angles = [position * math.exp(-i * math.log(10000) / (half - 1)) for i in range(half)]
    return torch.tensor([*map(math.sin, angles), *map(math.cos, angles)])


def test_positions_start_at_zero():
    model = build()
    for side in (model.encoder, model.decoder):
        assert isinstance(side.embed_positions, PositionsFromZero)
        found = side.embed_positions(torch.tensor([[5, 6, 7, 1], [5, 6, 7, 8]]))
        for position in range(3):
            torch.testing.assert_close(found[:, position], sinusoid(position, 16).expand(2, -1))
        torch.testing.assert_close(found[1, 3], sinusoid(3, 16))
        assert (found[0, 3] == 0).all()  # padding
    long = torch.full((1, 3000), 5)
    torch.testing.assert_close(model.encoder.embed_positions(long)[0, 2999], sinusoid(2999, 16), rtol=0, atol=2e-4)


def test_the_decoder_starts_with_zero_and_the_encoder_keeps_its_eos():
    model = build()
    table = model.decoder.embed_tokens
    assert isinstance(table, ZeroStartEmbedding)
    assert table.weight is model.encoder.embed_tokens.weight
    assert table.weight is model.decoder.output_projection.weight
    tokens = torch.tensor([[2, 5, 6]])
    assert (table(tokens)[0, 0] == 0).all()
    torch.testing.assert_close(table(tokens)[0, 1:], table.weight[[5, 6]])
    torch.testing.assert_close(model.encoder.embed_tokens(tokens)[0, 0], table.weight[2])
    assert not [name for name in model.state_dict() if "table" in name]


def test_epsilon_and_bias():
    model = build()
    norms = [module for module in model.modules() if hasattr(module, "normalized_shape")]
    assert norms
    assert {norm.eps for norm in norms} == {1e-6}
    assert model.decoder.output_projection.bias.shape == (ENTRIES,)


@pytest.mark.parametrize("preset", ["transformer_student_tiny_bergamot", "transformer_student_tiny_ssru_bergamot"])
def test_steps_equal_the_whole_sequence(preset):
    model = build(preset)
    source, target = torch.tensor([[5, 6, 7, 2]]), torch.tensor([[2, 8, 9, 10, 11]])
    whole = model.get_normalized_probs(model(source, torch.tensor([4]), target), True)
    for decoder in (step_decoder(model), GeneralDecoder(model)):
        with torch.no_grad():
            state = decoder.start(source, torch.tensor([4]))
            for step in range(5):
                lprobs = state.log_probs(target[:, step : step + 1])
                torch.testing.assert_close(lprobs[0], whole[0, step], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("preset", ["transformer_student_tiny_bergamot", "transformer_student_tiny_ssru_bergamot"])
def test_our_search_finds_what_fairseq_generate_finds(preset):
    model, entries = build(preset), make_task(ENTRIES, ENTRIES).target_dictionary
    source = torch.tensor([[5, 6, 7, 2], [9, 12, 2, 1]])
    sample = {"net_input": {"src_tokens": source, "src_lengths": torch.tensor([4, 3])}}
    generator = SequenceGenerator([model], entries, beam_size=3, max_len_b=9)
    expected = [[h["tokens"][:-1].tolist() for h in found] for found in generator.generate([model], sample)]
    loaded = LoadedModels([model], entries, entries, "en", "cs", {})
    found = TorchModel(loaded, SearchOptions(beam=3, max_len_b=9), 3).search([[5, 6, 7, 2], [9, 12, 2]])
    assert [[list(hypothesis[1]) for hypothesis in each] for each in found] == expected


def test_a_training_step_changes_all_but_the_decoders_row_of_eos():
    model = build(share_all_embeddings=False, share_decoder_input_output_embed=False)
    out = model(torch.tensor([[5, 6, 2]]), torch.tensor([3]), torch.tensor([[2, 8, 9]]))[0]
    out.square().sum().backward()
    gradient = model.decoder.embed_tokens.weight.grad
    assert (gradient[2] == 0).all()
    assert (gradient[[8, 9]] != 0).any(1).all()


def test_the_architecture_keeps_the_options():
    model = build()
    architecture = architecture_of(model.cfg)
    found = (architecture.decoder_start, architecture.first_position, architecture.norm_eps, architecture.output_bias)
    assert found == ("zero", 0, 1e-6, True)
    assert read_architecture(to_json(architecture)) == architecture
    assert len(why_not_stock(architecture)) == 4
    assert why_not_stock(architecture_of(build("transformer_student_tiny").cfg)) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder_start": "one"}, "--decoder-start: must be one of eos, zero, got 'one'"),
        ({"first_position": 1}, "--first-position: must be one of 2, 0, got 1"),
        ({"encoder_learned_pos": True}, "--first-position: must be 2 with learned positions, got 0"),
        ({"embedding_rank": 4}, "decoder_start, output_bias: must be eos and false unless embeddings are plain"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        build(**options)
