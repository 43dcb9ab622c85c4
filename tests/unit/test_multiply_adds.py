"""Multiply-adds against what the kernels of real runs multiply, and by hand."""

import pytest
import torch
from fairseq.modules import LayerNorm
from torch import nn

from fairseq_compress.errors import ConfigError
from fairseq_compress.evaluation.multiply_adds import (
    MultiplyAdds,
    decoding_multiply_adds,
    forward_multiply_adds,
    step_multiply_adds,
)
from fairseq_compress.modules.layer_sharing import share_layers
from tests.helpers.cost_models import counted, decode, encode, make_model, tokens

ARCHITECTURES = ["transformer", "compressed_transformer"]
SHAPES = {
    "as it is": {},
    "one table": {"share_all_embeddings": True},
    "target table is the output": {"share_decoder_input_output_embed": True, "encoder_layers": 1},
    "another width of the decoder": {"decoder_embed_dim": 16, "decoder_attention_heads": 4},
    "widths of the decoder's ends": {"decoder_embed_dim": 16, "decoder_input_dim": 8, "decoder_output_dim": 6},
    "learned positions, norms before": {
        "encoder_learned_pos": True, "decoder_learned_pos": True, "encoder_normalize_before": True,
        "decoder_normalize_before": True, "layernorm_embedding": True,
    },
    "fairseq's quant-noise": {"quant_noise_pq": 0.1, "quant_noise_pq_block_size": 2, "decoder_layers": 3},
}  # fmt: skip
LENGTHS = [(7, 5), (1, 6), (4, 1)]

shapes = pytest.mark.parametrize("values", SHAPES.values(), ids=SHAPES)
architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)
lengths = pytest.mark.parametrize(("source", "target"), LENGTHS)


@shapes
@architectures
@lengths
def test_a_teacher_forced_forward_multiplies_exactly_that(architecture, values, source, target):
    model = make_model(architecture, **values)
    cost = forward_multiply_adds(model, source, target)
    assert cost.total == counted(lambda: model(tokens(source), torch.tensor([source]), tokens(target)))


@shapes
@architectures
def test_every_part_multiplies_exactly_that(architecture, values):
    model = make_model(architecture, **values)
    source, target = 6, 9
    cost, short = forward_multiply_adds(model, source, target), forward_multiply_adds(model, source, 1)
    encoded = encode(model, source)
    features = torch.zeros(1, target, model.decoder.output_projection.in_features)
    of_output = counted(lambda: model.decoder.output_projection(features))
    if model.decoder.project_out_dim is not None:
        wide = torch.zeros(1, target, model.decoder.embed_dim)
        of_output += counted(lambda: model.decoder.project_out_dim(wide))
    assert cost.output == of_output
    of_one_token = (cost.embeddings - short.embeddings) // (target - 1)  # of target tokens
    of_source = cost.embeddings - of_one_token * target
    assert cost.encoder + of_source == counted(lambda: encode(model, source))
    whole = counted(lambda: model.decoder(tokens(target), encoded))
    assert cost.decoder + of_one_token * target + cost.output == whole


@shapes
@architectures
@lengths
def test_every_step_of_decoding_multiplies_exactly_that(architecture, values, source, target):
    model = make_model(architecture, **values)
    steps = decode(model, source, target)
    costs = [step_multiply_adds(model, source, t).total for t in range(1, target + 1)]
    assert costs[1:] == steps[1:]
    keys_and_values = steps[0] - costs[0]  # of the source, in the first step and no other
    width = model.encoder.layers[0].embed_dim * model.decoder.embed_dim
    assert keys_and_values == 2 * source * width * len(model.decoder.layers)
    assert decoding_multiply_adds(model, source, target).total == sum(steps) + counted(lambda: encode(model, source))


@pytest.mark.parametrize("beam", [2, 5])
@architectures
def test_hypotheses_share_the_keys_and_values_of_the_source(architecture, beam):
    model = make_model(architecture)
    cost = decoding_multiply_adds(model, 7, 5, beam=beam)
    steps = decode(model, 7, 5, beam)
    assert cost.total == sum(steps) + counted(lambda: encode(model, 7))
    assert step_multiply_adds(model, 7, 4, beam=beam).total == steps[3] == beam * step_multiply_adds(model, 7, 4).total
    assert cost.encoder == decoding_multiply_adds(model, 7, 5).encoder


def test_a_tiny_model_by_hand():
    model = make_model(
        "compressed_transformer", entries=10, encoder_layers=1, decoder_layers=1, encoder_embed_dim=4,
        decoder_embed_dim=4, encoder_ffn_embed_dim=6, decoder_ffn_embed_dim=6, encoder_attention_heads=2,
    )  # fmt: skip
    encoder = 3 * (4 * 4 * 4 + 2 * 4 * 6) + 3 * 3 * 4 * 2
    linear = 6 * 4 * 4 + 2 * 4 * 6  # a row; keys and values of the source are 2 * 4 * 4 more
    keys_and_values, cross = 3 * 2 * 4 * 4, 3 * 4 * 2
    decoder = 2 * linear + keys_and_values + 2 * cross
    assert (encoder, decoder) == (408, 432)
    assert forward_multiply_adds(model, 3, 2) == MultiplyAdds(0, 408, 432 + 2 * 2 * 4 * 2, 2 * 4 * 10)
    assert decoding_multiply_adds(model, 3, 2) == MultiplyAdds(0, 408, 432 + (1 + 2) * 4 * 2, 80)
    assert decoding_multiply_adds(model, 3, 2, beam=3) == MultiplyAdds(0, 408, 96 + 3 * (432 - 96 + 24), 240)
    assert step_multiply_adds(model, 3, 2) == MultiplyAdds(0, 0, linear + cross + 2 * 4 * 2, 40)
    assert forward_multiply_adds(model, 3, 2).total == 408 + 464 + 80


def test_layers_that_share_their_parameters_work_every_time():
    model = make_model("compressed_transformer")
    before = forward_multiply_adds(model, 5, 4)
    share_layers(model.encoder.layers, [0, 0, 0])
    share_layers(model.decoder.layers, [0, 0])
    assert forward_multiply_adds(model, 5, 4) == before


def test_a_layer_in_two_places_works_in_both():
    model = make_model("compressed_transformer")
    for layers in (model.encoder.layers, model.decoder.layers):
        layers[1] = layers[0]
    run = counted(lambda: model(tokens(5), torch.tensor([5]), tokens(4)))
    assert (
        forward_multiply_adds(model, 5, 4).total == run == forward_multiply_adds(make_model("transformer"), 5, 4).total
    )


class OtherAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.k_proj = nn.Linear(12, 12)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.LSTM(12, 12), r"got decoder\.layers\.1\.fc1 \(LSTM\): it has a matrix of its own"),
        (nn.Sequential(nn.Bilinear(2, 2, 2)), r"got decoder\.layers\.1\.fc1\.0 \(Bilinear\): it has a matrix"),
        (OtherAttention(), r"\(OtherAttention\): it looks like an attention of another kind"),
    ],
)
def test_an_unknown_module_with_a_matrix_is_an_error(module, message):
    model = make_model("compressed_transformer")
    model.decoder.layers[1].fc1 = module
    for cost in (forward_multiply_adds, decoding_multiply_adds, step_multiply_adds):
        with pytest.raises(ConfigError, match=message):
            cost(model, 3, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"adaptive_softmax_cutoff": "10,20", "decoder_output_dim": 12}, "AdaptiveSoftmax.*depend on the tokens"),
        (
            {"cross_self_attention": True, "no_cross_attention": True},
            r"self_attn .*no self-attention, and none to the source alone",
        ),
    ],
)
def test_products_that_shapes_do_not_tell_are_an_error(values, message):
    with pytest.raises(ConfigError, match=message):
        forward_multiply_adds(make_model("transformer", **values), 3, 3)


def test_a_module_beside_encoder_and_decoder_is_an_error():
    model = make_model("compressed_transformer")
    model.norm = LayerNorm(12)
    before = forward_multiply_adds(model, 3, 3)
    assert before.total > 0
    model.head = nn.Linear(12, 2)
    with pytest.raises(ConfigError, match=r"got head \(Linear\): it is neither in the encoder nor in the decoder"):
        forward_multiply_adds(model, 3, 3)


def test_lengths_start_at_one():
    model = make_model("compressed_transformer")
    for cost in (forward_multiply_adds, decoding_multiply_adds, step_multiply_adds):
        for wrong in ((0, 3), (3, 0)):
            with pytest.raises(ConfigError, match=r"must be in \[1, inf\), got 0$"):
                cost(model, *wrong)
    with pytest.raises(ConfigError, match=r"beam: must be in \[1, inf\), got -1"):
        step_multiply_adds(model, 3, 3, beam=-1)
