"""A small model with Marian's conventions that is trained for seconds: each piece of the source becomes another piece.

It knows its answers: the logit of the best piece is far above the next, unlike that of random weights. So two engines
that round differently still give the same text.
"""

import argparse
import random

import torch
from fairseq import models
from torch.nn.functional import cross_entropy

from fairseq_compress import register
from fairseq_compress.checkpoint.imports.imported import ImportedModel, write_imported
from fairseq_compress.corpus.segmentation.sentencepiece_model import open_model
from fairseq_compress.corpus.vocabulary import VocabularySettings, train_model
from tests.helpers.marian_models import MARIAN, SIZES, sentences
from tests.unit.test_presets import make_task

LONGEST, UPDATES, BATCH, RATE, WARM_UP = 14, 500, 64, 3e-3, 100
ENTRIES = 4  # of a dictionary before the first piece


def cipher_lines(count, seed):
    """One or two words; every third line is two sentences."""
    lines = [" ".join(line.split()[:2]) for line in sentences(count, seed)]
    return [f"{line.title().replace(' ', '. ')}." if place % 3 == 0 else line for place, line in enumerate(lines)]


def write_cipher_model(folder, **options):
    """A checkpoint, dictionaries and a SentencePiece model; the folder must not exist."""
    register()
    text = folder.parent / "cipher.model"
    text.write_bytes(train_model(iter(cipher_lines(1500, 1)), VocabularySettings(size=350, model_type="unigram")))
    vocabulary = open_model(text)
    pieces = [vocabulary.id_to_piece(index) for index in range(3, len(vocabulary))]
    bytes_first = sum(vocabulary.is_byte(index) for index in range(3, len(vocabulary)))
    whole = (
        SIZES | MARIAN | {"decoder_self_attention": "ssru", "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0}
    )
    whole |= options
    torch.manual_seed(1)
    task = make_task(len(pieces) + ENTRIES, len(pieces) + ENTRIES)
    model = models.build_model(argparse.Namespace(arch="compressed_transformer", **whole), task)
    _train(model, range(ENTRIES + bytes_first, ENTRIES + len(pieces)), task.target_dictionary.eos())
    state = model.state_dict()
    write_imported(ImportedModel(whole, state, (pieces, pieces), ("en", "cs"), (text, None), "cipher"), folder)
    return folder


def _train(model, entries, eos):
    draw, count = random.Random(1), len(entries)
    cipher = torch.randperm(count)
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.98))
    for update in range(UPDATES):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (update + 1) / WARM_UP) * (1 - update / UPDATES) ** 0.5
        length = draw.randint(1, LONGEST)
        tokens, end = torch.randint(count, (BATCH, length)), torch.full((BATCH, 1), eos)
        source = torch.cat([tokens + entries[0], end], 1)
        target = torch.cat([cipher[tokens] + entries[0], end], 1)
        logits, _ = model(source, torch.full((BATCH,), length + 1), torch.cat([end, target[:, :-1]], 1))
        optimizer.zero_grad()
        cross_entropy(logits.flatten(0, 1), target.flatten()).backward()
        optimizer.step()
    model.eval()
