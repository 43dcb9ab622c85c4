"""Multiply-adds of our own layers, placed into a model by hand, against what the kernels of real runs multiply."""

import pytest
import torch
from torch import nn

from fairseq_compress.architecture.shape import Attention, BottleneckShape, Layer
from fairseq_compress.evaluation.multiply_adds import (
    decoding_multiply_adds,
    forward_multiply_adds,
    step_multiply_adds,
)
from fairseq_compress.modules.average_attention import AverageAttention
from fairseq_compress.modules.bottleneck_layer import BottleneckDecoderLayer, BottleneckEncoderLayer
from fairseq_compress.modules.convolutional_embedding import ConvolutionalEmbedding
from fairseq_compress.modules.factorized_embedding import FactorizedEmbedding
from fairseq_compress.modules.factorized_output import FactorizedOutput
from fairseq_compress.modules.low_rank_linear import LowRankLinear
from fairseq_compress.modules.sparse_linear import SparseLinear
from fairseq_compress.modules.ssru import SSRU
from tests.helpers.cost_models import ENTRIES, counted, decode, encode, make_model, tokens

C, PADDING = 12, 1


def low_rank(linear, rank):
    return LowRankLinear(linear.in_features, linear.out_features, rank)


def low_rank_everywhere(model):
    for layer in (*model.encoder.layers, *model.decoder.layers):
        layer.fc1, layer.fc2 = (low_rank(linear, 5) for linear in (layer.fc1, layer.fc2))
        for attention in filter(None, (layer.self_attn, getattr(layer, "encoder_attn", None))):
            for rank, name in enumerate(("q_proj", "k_proj", "v_proj", "out_proj"), start=2):
                setattr(attention, name, low_rank(getattr(attention, name), rank))


def ssru(model):
    for layer in model.decoder.layers:
        layer.self_attn = SSRU(C)


def average_attention(model):
    model.decoder.layers[0].self_attn = AverageAttention(C, ffn_embed_dim=17)
    model.decoder.layers[1].self_attn = AverageAttention(C)


def bottlenecks(model):
    inside = BottleneckShape(6, ffn_stack=3, norm="elementwise")
    shapes = [Layer(Attention(heads=h, head_width=6 // h), f, Attention(heads=h, head_width=6 // h), inside)
              for h, f in ((3, 20), (2, 28))]  # fmt: skip
    model.encoder.layers[1] = BottleneckEncoderLayer(model.encoder.cfg, shapes[0])
    for number in range(2):
        model.decoder.layers[number] = BottleneckDecoderLayer(model.decoder.cfg, shapes[1])


def factorized(model):
    embedding = FactorizedEmbedding(ENTRIES, C, PADDING, rank=4)
    model.encoder.embed_tokens = model.decoder.embed_tokens = embedding
    model.decoder.output_projection = FactorizedOutput.tied(embedding)


def factorized_apart(model):
    model.encoder.embed_tokens = FactorizedEmbedding(ENTRIES, C, PADDING, rank=3)
    model.decoder.output_projection = FactorizedOutput(C, ENTRIES, rank=5)


def convolutional(model):
    table = nn.Embedding(ENTRIES, 5, PADDING)
    model.encoder.embed_tokens = ConvolutionalEmbedding(table, C, taps=3, causal=False)
    model.decoder.embed_tokens = embedding = ConvolutionalEmbedding(table, C, taps=2, causal=True)
    model.decoder.project_out_dim = nn.Linear(C, 5)
    model.decoder.output_projection = embedding.tied_output()
    forward = model.decoder.forward

    def within(prev_output_tokens, *others, **named):
        with embedding.within(prev_output_tokens):
            return forward(prev_output_tokens, *others, **named)

    model.decoder.forward = within


STRUCTURES = [
    low_rank_everywhere, ssru, average_attention, bottlenecks, factorized, factorized_apart, convolutional,
]  # fmt: skip
structures = pytest.mark.parametrize("change", STRUCTURES, ids=lambda change: change.__name__)


def changed(change):
    model = make_model("compressed_transformer")
    change(model)
    return model.eval()


@structures
@pytest.mark.parametrize(("source", "target"), [(7, 5), (1, 6), (4, 1)])
def test_a_forward_and_a_decoding_multiply_exactly_that(change, source, target):
    model = changed(change)
    cost = forward_multiply_adds(model, source, target)
    assert cost.total == counted(lambda: model(tokens(source), torch.tensor([source]), tokens(target)))
    steps, of_encoder = decode(model, source, target), counted(lambda: encode(model, source))
    assert decoding_multiply_adds(model, source, target).total == sum(steps) + of_encoder
    assert [step_multiply_adds(model, source, t).total for t in range(2, target + 1)] == steps[1:]


@structures
def test_hypotheses_share_the_keys_and_values_of_the_source(change):
    model = changed(change)
    total = sum(decode(model, 6, 4, beam=3)) + counted(lambda: encode(model, 6))
    assert decoding_multiply_adds(model, 6, 4, beam=3).total == total


def test_decoding_keeps_the_table_of_a_tensor_train():
    model = make_model("compressed_transformer", tensor_train_rank=3, share_all_embeddings=True)
    model.make_generation_fast_()
    decode(model, 7, 1)  # the table is made once
    total = sum(decode(model, 7, 5)) + counted(lambda: encode(model, 7))
    assert decoding_multiply_adds(model, 7, 5).total == total
    assert decoding_multiply_adds(model, 7, 5).output == 5 * C * ENTRIES


def test_parts_by_hand():
    plain = forward_multiply_adds(changed(lambda model: None), 7, 5)
    low = forward_multiply_adds(changed(factorized), 7, 5)
    assert (plain.embeddings, plain.output) == (0, 5 * C * ENTRIES)
    assert (low.embeddings, low.output) == ((7 + 5) * 4 * C, 5 * 4 * (C + ENTRIES))
    assert (low.encoder, low.decoder) == (plain.encoder, plain.decoder)
    convolved = forward_multiply_adds(changed(convolutional), 7, 5)
    assert (convolved.embeddings, convolved.output) == (7 * 3 * 5 * C + 5 * 2 * 5 * C, 5 * (C * 5 + 5 * ENTRIES))
    recurrent = forward_multiply_adds(changed(ssru), 7, 5)
    assert plain.decoder - recurrent.decoder == 2 * (5 * (4 - 2) * C * C + 5 * 5 * 2 * C)
    assert step_multiply_adds(changed(ssru), 7, 1) == step_multiply_adds(changed(ssru), 7, 100)


def test_a_sparse_layer_counts_with_the_entries_that_it_keeps():
    model, source, target = make_model("compressed_transformer"), 7, 5
    dense = forward_multiply_adds(model, source, target)
    sparse = {}
    for side, inner in (("encoder", 20), ("decoder", 28)):
        sparse[side] = SparseLinear(C, inner, sparsity=0.75, seed=3)
        getattr(model, side).layers[1].fc1 = sparse[side]
    cost = forward_multiply_adds(model, source, target)
    assert [layer.kept for layer in sparse.values()] == [C * 20 // 4, C * 28 // 4]
    assert dense.encoder - cost.encoder == source * 3 * C * 20 // 4
    assert dense.decoder - cost.decoder == target * 3 * C * 28 // 4
    # Without make_generation_fast_ the kernel is the dense one.
    assert dense.total == counted(lambda: model(tokens(source), torch.tensor([source]), tokens(target)))
