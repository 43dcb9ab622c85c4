"""Tiny models of every structure, and a batch for them."""

import argparse
from types import SimpleNamespace

import torch
from fairseq import models
from fairseq.data import Dictionary

import fairseq_compress.models as our_models  # noqa: F401 - registers them

DICTIONARY = Dictionary()
for number in range(30 - len(DICTIONARY)):
    DICTIONARY.add_symbol(f"w{number}")
TASK = SimpleNamespace(source_dictionary=DICTIONARY, target_dictionary=DICTIONARY)
SIZES = {
    "encoder_layers": 2, "decoder_layers": 1, "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 24, "dropout": 0.0,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2,
}  # fmt: skip
BATCH = {
    "src_tokens": torch.tensor([[5, 6, 7, 8, 2], [9, 10, 2, 1, 1]]), "src_lengths": torch.tensor([5, 3]),
    "prev_output_tokens": torch.tensor([[2, 11, 12, 13], [2, 14, 15, 1]]),
}  # fmt: skip
KINDS = {
    "factorized": {"embedding_rank": 4},
    "factorized, apart": {"embedding_rank": 4, "share_all_embeddings": False},
    "tensor-train": {"tensor_train_rank": 3, "tensor_train_modes": "4,3,3:4,2,2"},
    "tensor-train, apart": {"tensor_train_rank": 3, "share_all_embeddings": False},
    "convolution": {"embedding_rank": 6, "embedding_convolution": 3},
    "low-rank": {"ffn_rank": 3, "attention_rank": 2, "linear_ranks": "encoder.layers.1.fc?=5"},
    "sparse": {"sparsity": 0.5, "sparse_block": 8},
    "ssru": {"decoder_self_attention": "ssru"},
    "average": {"decoder_self_attention": "average", "average_attention_ffn": 12},
    "shared": {"encoder_layer_groups": 1},
    "bottleneck": {"bottleneck_width": 8, "ffn_stack": 2, "bottleneck_norm": "elementwise"},
    "several": {"embedding_rank": 4, "ffn_rank": 3, "encoder_layer_groups": 1, "decoder_self_attention": "ssru"},
}

# Heads and FFN units that differ by layer, heads whose width is not the model's over their number.
UNEVEN = """{
    "encoder": {"width": 16, "layers": [
        {"self_attention": {"heads": 4}, "ffn": 24},
        {"self_attention": {"heads": 8, "head_width": 3}, "ffn": 40},
        {"self_attention": {"heads": 2, "head_width": 4}, "ffn": 12}]},
    "decoder": {"width": 16, "layers": [
        {"self_attention": {"heads": 3, "head_width": 5}, "cross_attention": {"heads": 3, "head_width": 4}, "ffn": 20}
    ]}}"""
UNEVEN_DECODER = UNEVEN.replace(
    '"ffn": 20}', '"ffn": 20}, {"self_attention": {"heads": 2}, "cross_attention": {"heads": 1}, "ffn": 9}'
)


def make(**values):
    torch.manual_seed(1)
    return models.build_model(argparse.Namespace(arch="transformer_small", **(SIZES | values)), TASK)


def make_uneven(architecture=UNEVEN, **values):
    """A model of an architecture, whose biases are not zero."""
    torch.manual_seed(1)
    model = models.build_model(
        argparse.Namespace(arch="transformer_small", architecture=architecture, dropout=0.0, **values), TASK
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.3)
    return model
