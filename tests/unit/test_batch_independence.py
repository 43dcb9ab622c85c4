"""A sentence's translation and scores do not depend on the sentences that are translated with it, to the last bit."""

import random
from collections import defaultdict

import pytest

from fairseq_compress.checkpoint.materialize import model_values
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.export.onnx.precisions import PRECISIONS, Storage
from fairseq_compress.export.onnx_format import write_model
from fairseq_compress.export.stored_weights import StoredWeights
from fairseq_compress.runtimes.model_directory import ModelDirectory
from fairseq_compress.runtimes.onnx.model import OnnxModel
from tests.unit.test_beam_search import build, sentences

DEPENDENT = {"int8_batch"}
SHAPE = {
    "encoder_embed_dim": 48, "encoder_ffn_embed_dim": 96, "decoder_layers": 1, "share_all_embeddings": True,
    "words": 300, "peak": 1.2,
}  # fmt: skip
OPTIONS = {
    "blocks of 16": {"group_size": 16}, "groups of 64": {"group_size": 64}, "zeros": {"asymmetric": True},
    "encoder in int8": {"encoder": "int8"},
}  # fmt: skip
KINDS = [(kind, "") for kind in PRECISIONS if kind != "plan"] + [
    *(("int4", name) for name in OPTIONS),
    ("int8_block", "blocks of 16"),
]


@pytest.fixture(scope="module")
def model():
    return build(2, **SHAPE)


@pytest.fixture(scope="module")
def text(model):
    entries = model.decoder.dictionary
    return [[entries[token] for token in sentence[:-1]] for sentence in sentences(200, words=300)]


def opened(folder, model, kind, options, beam, threads):
    if not folder.exists():
        folder.mkdir()
        ranges = defaultdict(lambda: (-6.0, 6.0))
        storage, entries = Storage(StoredWeights(), ranges, **OPTIONS.get(options, {})), model.decoder.dictionary
        opened.onnx[folder] = write_model(folder, model, model_values(model.args), entries, entries, kind, storage)
    directory = ModelDirectory(folder, {"onnx": opened.onnx[folder], "positions": {"source": 60, "target": 60}})
    return OnnxModel(directory, SearchOptions(beam=beam, max_len_b=14), beam, threads)


opened.onnx = {}


def outputs(model, text):
    return [[(best.score, best.output) for best in each] for each in model.translate(text)]


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_every_batching_gives_the_same_bits(kind, options, beam, model, text, tmp_path):
    one = opened(tmp_path / "m", model, kind, options, beam, 1)
    alone = [outputs(one, [sentence])[0] for sentence in text]
    order = random.Random(3).sample(range(len(text)), len(text))
    shuffled = [text[place] for place in order]
    whole = {
        "as they are": outputs(one, text),
        "two threads": outputs(opened(tmp_path / "m", model, kind, options, beam, 2), text),
        "in pairs": [each for at in range(0, len(text), 2) for each in outputs(one, text[at : at + 2])],
        "in another order": [found for _, found in sorted(zip(order, outputs(one, shuffled), strict=True))],
    }
    different = {name: sum(a != b for a, b in zip(found, alone, strict=True)) for name, found in whole.items()}
    if kind in DEPENDENT:
        assert different["as they are"] > 20
    else:
        assert different == dict.fromkeys(whole, 0)
