"""Parameters by part and bytes at each precision, by hand, and the tables of them."""

import pytest
import torch
from torch import nn

from fairseq_compress.errors import ConfigError
from fairseq_compress.evaluation.model_cost import KINDS, bytes_by_precision, cost_lines, parameters_by_part
from fairseq_compress.modules.factorized_embedding import FactorizedEmbedding
from fairseq_compress.modules.factorized_output import FactorizedOutput
from fairseq_compress.modules.layer_sharing import share_layers
from fairseq_compress.modules.ssru import SSRU
from fairseq_compress.weights.attach import attach_plan
from fairseq_compress.weights.methods.linear import LinearRule
from fairseq_compress.weights.rules import Plan
from tests.helpers.cost_models import make_model

TINY = {
    "entries": 10, "encoder_layers": 2, "decoder_layers": 1, "encoder_embed_dim": 4, "decoder_embed_dim": 4,
    "encoder_ffn_embed_dim": 5, "decoder_ffn_embed_dim": 7, "encoder_attention_heads": 2,
}  # fmt: skip
ATTENTION = 4 * 4 * 4 + 4 * 4
BUFFERS = 2 * 4  # the versions of encoder and decoder, in float32


def tiny(**values):
    return make_model("compressed_transformer", **(TINY | values))


def ffn(inner):
    return 2 * 4 * inner + inner + 4


def numbers(model):
    return {part: [counts[kind] for kind in KINDS] for part, counts in parameters_by_part(model).items()}


def test_parameters_by_hand():
    encoder = [2 * ATTENTION, 2 * ffn(5), 2 * 2 * 2 * 4, 0]
    decoder = [2 * ATTENTION, ffn(7), 3 * 2 * 4, 0]
    assert numbers(tiny()) == {"embeddings": [0, 0, 0, 3 * 40], "encoder": encoder, "decoder": decoder}
    shared = numbers(tiny(share_all_embeddings=True))
    assert shared == {"embeddings": [0, 0, 0, 40], "encoder": encoder, "decoder": decoder}
    learned = numbers(tiny(encoder_learned_pos=True, layernorm_embedding=True, max_source_positions=3))
    assert learned["embeddings"] == [0, 0, 2 * 2 * 4, 3 * 40 + (3 + 1 + 1) * 4]


@pytest.mark.parametrize("share", [True, False])
def test_the_sum_is_that_of_all_parameters(share):
    model = tiny(share_all_embeddings=share, encoder_normalize_before=True, decoder_normalize_before=True)
    model.decoder.layers[0].self_attn = SSRU(4)
    model.head = nn.Linear(4, 3)
    assert sum(map(sum, numbers(model).values())) == sum(parameter.numel() for parameter in model.parameters())
    assert numbers(model)["head"] == [0, 0, 0, 15]
    assert numbers(model)["decoder"][0] == ATTENTION + 2 * 16 + 4


def test_layers_that_share_parameters_count_once():
    model = tiny()
    share_layers(model.encoder.layers, [0, 0])
    assert numbers(model)["encoder"] == [ATTENTION, ffn(5), 2 * 2 * 4, 0]
    assert numbers(model)["decoder"] == numbers(tiny())["decoder"]
    one = tiny(encoder_layers=1)
    assert bytes_by_precision(model) == bytes_by_precision(one)


def test_bytes_by_hand():
    """Matrices of two encoder layers, a decoder layer and one table, and vectors: the biases and norms."""
    model = tiny(share_all_embeddings=True)
    squares, ffns = 4 * (2 + 2), [(5, 4), (4, 5)] * 2 + [(7, 4), (4, 7)]
    vectors = 4 * (4 * squares + 5 + 4 + 5 + 4 + 7 + 4 + 7 * 2 * 4)
    matrices = [(4, 4)] * squares + ffns + [(10, 4)]
    entries = sum(rows * columns for rows, columns in matrices)
    scales = 4 * sum(rows for rows, _ in matrices)
    assert bytes_by_precision(model) == {
        "float32": 4 * entries + vectors + BUFFERS,
        "float16": 2 * entries + vectors // 2 + BUFFERS,
        "int8": entries + scales + vectors + BUFFERS,
        "int4": entries // 2 + scales + vectors + BUFFERS,
    }


def test_four_bits_are_rounded_up_to_bytes_in_every_tensor():
    model, wider = tiny(), tiny()
    model.encoder.layers[0].fc1, wider.encoder.layers[0].fc1 = nn.Linear(3, 3, bias=False), nn.Linear(5, 3, bias=False)
    assert bytes_by_precision(wider)["int4"] - bytes_by_precision(model)["int4"] == 8 - 5
    assert bytes_by_precision(wider)["int8"] - bytes_by_precision(model)["int8"] == 15 - 9


def test_a_matrix_of_no_linear_layer_stays_as_it_is():
    model = tiny()
    before = bytes_by_precision(model)
    model.encoder.layers[0].extra = nn.Bilinear(2, 2, 3, bias=False)
    model.encoder.register_buffer("support", torch.zeros(6, dtype=torch.int16))
    model.encoder.register_buffer("cache", torch.zeros(100), persistent=False)
    grown = {precision: size - before[precision] for precision, size in bytes_by_precision(model).items()}
    assert grown == {"float32": 48 + 12, "float16": 24 + 12, "int8": 48 + 12, "int4": 48 + 12}


def test_factors_that_are_tied_are_stored_once():
    model = tiny()
    embedding = FactorizedEmbedding(10, 4, 1, rank=3)
    model.encoder.embed_tokens = model.decoder.embed_tokens = embedding
    model.decoder.output_projection = FactorizedOutput.tied(embedding)
    assert numbers(model)["embeddings"] == [0, 0, 0, 3 * (10 + 4)]
    factors = [(10, 3), (4, 3)]
    int4 = sum((rows * columns + 1) // 2 + 4 * rows for rows, columns in factors)
    table = 10 * 4 // 2 + 4 * 10
    assert (
        bytes_by_precision(model)["int4"] == bytes_by_precision(tiny(share_all_embeddings=True))["int4"] - table + int4
    )


def test_the_tables():
    lines = cost_lines(tiny(), 3, 2, packed=1234567)
    tables = [[line.split() for line in table.split("\n")] for table in "\n".join(lines).split("\n\n")]
    parameters, work, sizes = tables
    assert parameters[0] == ["attention", "ffn", "norm", "other", "parameters", "of"]
    assert parameters[1] == ["0", "0", "0", "120", "120", "embeddings"]
    assert [row[-1] for row in parameters[1:]] == ["embeddings", "encoder", "decoder", "total"]
    assert parameters[-1][:-1] == ["320", "165", "56", "120", "661"]
    assert work[0][:5] == ["embeddings", "encoder", "decoder", "output", "total"]
    encoder = 2 * (3 * (4 * 16 + 2 * 4 * 5) + 9 * 8)
    decoder = 2 * (6 * 16 + 2 * 4 * 7) + 3 * 2 * 16 + 6 * 8
    assert [row[:5] for row in work[1:]] == [
        ["0", str(encoder), str(decoder + 4 * 8), "80", f"{encoder + decoder + 4 * 8 + 80:,}"],
        ["0", str(encoder), str(decoder + 3 * 8), "80", f"{encoder + decoder + 3 * 8 + 80:,}"],
        ["0", "0", str(6 * 16 + 2 * 4 * 7 + 3 * 8 + 2 * 8), "40", "232"],
    ]
    assert [row[0] for row in sizes[1:]] == [f"{size:,}" for size in bytes_by_precision(tiny()).values()] + [
        "1,234,567"
    ]


def test_products_that_are_not_known_leave_a_line_that_says_so():
    model = tiny()
    model.encoder.layers[0].fc1 = nn.LSTM(4, 4)
    lines = cost_lines(model, 3, 2)
    assert [line for line in lines if "not counted" in line] == [
        "not counted: multiply-adds: must be known for every module with a matrix, "
        "got encoder.layers.0.fc1 (LSTM): it has a matrix of its own"
    ]
    assert lines[0].split()[0] == "attention"


def test_wrong_arguments_are_errors():
    with pytest.raises(ConfigError, match=r"target_tokens: must be in \[1, inf\), got 0"):
        cost_lines(tiny(), 3, 0)
    model = tiny()
    attach_plan(Plan((LinearRule(("*",)),)), model)
    with pytest.raises(ConfigError, match="model: must be plain for its cost, got one with a compression plan"):
        bytes_by_precision(model)
