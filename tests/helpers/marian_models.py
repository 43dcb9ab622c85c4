"""Random models with Marian's conventions, as folders with a checkpoint, dictionaries and a SentencePiece model."""

import argparse
import random

import torch
from fairseq import models

from fairseq_compress import register
from fairseq_compress.checkpoint.imports.imported import ImportedModel, write_imported
from fairseq_compress.corpus.vocabulary import VocabularySettings, list_pieces, train_model
from tests.unit.test_presets import make_task

SIZES = {
    "encoder_layers": 2, "decoder_layers": 2, "encoder_embed_dim": 64, "encoder_ffn_embed_dim": 128,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "share_all_embeddings": True,
}  # fmt: skip
MARIAN = {"decoder_start": "zero", "first_position": 0, "norm_eps": 1e-6, "output_bias": True}


def sentences(count=60, seed=1):
    """Lines of words from a small random lexicon."""
    draw = random.Random(seed)
    words = ["".join(draw.choice("abcdefghij") for _ in range(draw.randint(2, 6))) for _ in range(300)]
    return [" ".join(draw.choice(words) for _ in range(draw.randint(1, 12))) for _ in range(count)]


def write_random_model(folder, kind="ssru", model_type="unigram", **options):
    """Weights that give varied translations; the folder must not exist."""
    register()
    text = folder.parent / f"{model_type}.model"
    if not text.exists():
        settings = VocabularySettings(size=331, model_type=model_type)
        text.write_bytes(train_model(iter(sentences(500)), settings))
    pieces = [piece for piece, _ in list_pieces(text.read_bytes())[3:]]
    whole = SIZES | MARIAN | {"decoder_self_attention": kind} | options
    task = make_task(len(pieces) + 4, len(pieces) + 4)
    torch.manual_seed(3)
    model = models.build_model(argparse.Namespace(arch="compressed_transformer", **whole), task)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            std = parameter.size(1) ** -0.5 if "embed" in name else 2.5 * parameter.size(1) ** -0.5
            torch.nn.init.normal_(parameter, std=std)
        elif "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.3)
    bytes_and_specials = [0, 1, 3, *range(4, 4 + 256)]
    if model.decoder.output_projection.bias is not None:
        with torch.no_grad():
            model.decoder.output_projection.bias[bytes_and_specials] = -30
    state = model.state_dict()
    write_imported(ImportedModel(whole, state, (pieces, pieces), ("en", "cs"), (text, None), "random"), folder)
    return folder
