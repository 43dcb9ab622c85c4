"""The sizes of an exported model, of every runtime: its weights are the files that hold them."""

import pytest

from fairseq_compress.checkpoint.materialize import model_values
from fairseq_compress.evaluation.sizes import checkpoint_facts
from fairseq_compress.export.model_writer import create_directory
from fairseq_compress.export.onnx_format import write_model
from fairseq_compress.runtimes import RUNTIMES, exported
from tests.unit.test_beam_search import build
from tests.unit.test_model_directory import METADATA

VOCABULARIES = ["source_sentencepiece.model", "target_sentencepiece.model", "shared_vocabulary.json", "config.json"]
ARCHITECTURE = {"arch": "transformer", "encoder_layers": 3, "decoder_layers": 1, "encoder_embed_dim": 16}


@pytest.mark.parametrize("name", exported())
def test_vocabularies_are_no_weights(name, tmp_path):
    def fill(folder):
        for number, file in enumerate((*RUNTIMES[name].weight_files, *VOCABULARIES)):
            (folder / file.replace("*", "encs")).write_bytes(bytes(2**number))
        own = {"runtime": name, "architecture": ARCHITECTURE, "parameters": 30, "training": {"updates": 7}}
        return METADATA | own

    directory = create_directory(tmp_path / "model", fill)
    facts = checkpoint_facts(directory.path)
    assert facts["bytes"] == 2 ** len(RUNTIMES[name].weight_files) - 1
    assert facts["bytes_on_disk"] == sum(file.stat().st_size for file in directory.path.iterdir())
    assert facts["bytes_float32"] == 120
    assert (facts["architecture"], facts["runtime"], facts["quantization"]) == ("transformer", name, "int8")
    assert [facts[name] for name in ("encoder_layers", "decoder_layers", "width", "updates")] == [3, 1, 16, 7]


@pytest.mark.parametrize("learned", [False, True])
def test_every_file_of_a_runtime_is_weights_or_vocabulary(learned, tmp_path):
    model = build(encoder_learned_pos=learned, decoder_learned_pos=learned)
    entries = model.decoder.dictionary
    write_model(tmp_path, model, model_values(model.args), entries, entries, "float32", None)
    names = {file.name for file in tmp_path.iterdir()}
    assert names - set(RUNTIMES["onnx"].weight_files) == {"shared_vocabulary.json"}
    assert {name for name in RUNTIMES["onnx"].weight_files if learned or not name.endswith(".npy")} <= names
