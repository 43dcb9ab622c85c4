"""Folders of transformers that are made by hand: positions, tables, sharded files, and every refusal."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fairseq_compress.checkpoint.imports.huggingface_vocabulary import Vocabulary, multilingual_vocabulary, reordered
from fairseq_compress.checkpoint.imports.huggingface_weights import marian_positions
from fairseq_compress.cli.main import main
from tests.helpers.huggingface_models import LINES, write_sentencepiece

WIDTH, FFN, POSITIONS = 8, 12, 16
LANGUAGES = ("--source-lang", "en", "--target-lang", "cs")


def layer(name: str, cross: bool) -> dict[str, torch.Tensor]:
    attentions = ("self_attn", "encoder_attn") if cross else ("self_attn",)
    shapes: dict[str, tuple[int, ...]] = {"fc1.weight": (FFN, WIDTH), "fc1.bias": (FFN,)}
    shapes |= {"fc2.weight": (WIDTH, FFN), "fc2.bias": (WIDTH,)}
    for attention in attentions:
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= {f"{attention}.{projection}.weight": (WIDTH, WIDTH), f"{attention}.{projection}.bias": (WIDTH,)}
    for norm in (*(f"{attention}_layer_norm" for attention in attentions), "final_layer_norm"):
        shapes |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    return {f"{name}.{key}": torch.randn(shape) for key, shape in shapes.items()}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with MarianMT."""
    folder = tmp_path_factory.mktemp("original")
    torch.manual_seed(1)
    pieces = write_sentencepiece(folder / "source.spm", LINES["en"] + LINES["cs"], 320)
    (folder / "target.spm").write_bytes((folder / "source.spm").read_bytes())
    entries = ["</s>", "<unk>", *pieces, "<pad>"]
    weights = {
        "model.shared.weight": torch.randn(len(entries), WIDTH),
        "final_logits_bias": torch.randn(1, len(entries)),
    }
    weights |= layer("model.encoder.layers.0", False) | layer("model.decoder.layers.0", True)
    save_file(weights, folder / "model.safetensors")
    config: dict[str, Any] = {
        "model_type": "marian", "d_model": WIDTH, "activation_function": "swish", "scale_embedding": True,
        "max_position_embeddings": POSITIONS, "pad_token_id": len(entries) - 1, "eos_token_id": 0,
        "decoder_start_token_id": len(entries) - 1,
    }  # fmt: skip
    config |= {f"{part}_{name}": value for part in ("encoder", "decoder")
               for name, value in (("layers", 1), ("attention_heads", 2), ("ffn_dim", FFN))}  # fmt: skip
    write_json(folder / "config.json", config)
    write_json(folder / "vocab.json", {entry: number for number, entry in enumerate(entries)})
    write_json(folder / "tokenizer_config.json", {"source_lang": "en", "target_lang": "cs"})
    return folder


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "model"
    copy.mkdir()
    for file in original.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def run(folder: Path, *options: str) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return main(["import", str(folder), str(folder.parent / "output"), *options])


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder.parent / "output" / "model.pt", weights_only=False)["model"]
    return state


def configure(folder: Path, name: str = "config.json", **values: Any) -> None:
    write_json(folder / name, json.loads((folder / name).read_text(encoding="utf-8")) | values)


def change_weights(folder: Path, change: Any) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def test_positions_are_sines_and_cosines_by_hand():
    table = marian_positions(3, 4)
    expected = [[0, 0, 1, 1], [np.sin(1), np.sin(0.01), np.cos(1), np.cos(0.01)]]
    np.testing.assert_allclose(table[:2], expected, atol=1e-7)


def test_order_of_a_dictionary():
    vocabulary = Vocabulary(["</s>", "<unk>", "a", "b", "<pad>"], Path("vocab.json"))
    assert vocabulary.order() == [None, 4, 0, 1, 2, 3]
    assert vocabulary.ordered() == ["a", "b"]
    assert vocabulary.number("b") == 5
    assert reordered(torch.arange(5.0), vocabulary.order(), -1.0).tolist() == [-1, 4, 0, 1, 2, 3]


def test_weights_have_the_order_of_the_dictionary(folder, capfd):
    assert run(folder) == 0
    assert "MarianMT, en to cs" in capfd.readouterr().err
    before, after = load_file(folder / "model.safetensors"), weights_of(folder)
    table, entries = after["encoder.embed_tokens.weight"], (folder.parent / "output" / "dict.en.txt").read_text()
    assert torch.equal(table[4:], before["model.shared.weight"][2:-1])
    assert torch.equal(table[0], torch.zeros(WIDTH))
    assert table.data_ptr() == after["decoder.output_projection.weight"].data_ptr()
    assert len(entries.splitlines()) == len(table) - 4
    assert not (folder.parent / "output" / "target_sentencepiece.model").exists(), "both sides have one model"


def test_first_input_of_the_decoder_is_that_of_the_start_symbol(folder):
    assert run(folder) == 0
    before, after = load_file(folder / "model.safetensors"), weights_of(folder)
    first = WIDTH**0.5 * after["decoder.embed_tokens.weight"][2] + after["decoder.embed_positions.weight"][2]
    expected = WIDTH**0.5 * before["model.shared.weight"][-1] + marian_positions(1, WIDTH)[0]
    torch.testing.assert_close(first, expected)
    torch.testing.assert_close(after["decoder.embed_positions.weight"][3:], marian_positions(POSITIONS, WIDTH)[1:])


def test_files_with_an_index_and_half_precision(folder):
    assert run(folder) == 0
    whole = weights_of(folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, keys in parts.items():
        save_file({key: weights[key].to(torch.bfloat16) for key in keys}, folder / file)
    table = {key: file for file, keys in parts.items() for key in keys}
    write_json(folder / "model.safetensors.index.json", {"weight_map": table})
    (folder.parent / "output").rename(folder.parent / "first")
    assert run(folder) == 0
    for key, weight in weights_of(folder).items():
        assert weight.dtype is torch.float32
        torch.testing.assert_close(weight, whole[key], atol=0.05, rtol=0.02)


def test_languages_of_the_tokenizer_can_be_replaced(folder):
    assert run(folder, "--source-lang", "eng", "--target-lang", "ces") == 0
    assert (folder.parent / "output" / "dict.eng.txt").is_file()


def test_tokens_of_nllb_without_tokenizer_files(folder, tmp_path):
    """The pieces are one row further than in the SentencePiece model, the languages behind them."""
    write_json(folder / "special_tokens_map.json", {"additional_special_tokens": ["ces_Latn", {"content": "eng_Latn"}]})
    (folder / "vocab.json").unlink()
    vocabulary = multilingual_vocabulary(folder, folder / "source.spm", 330)
    assert vocabulary.symbols[:4] == ["<s>", "<pad>", "</s>", "<unk>"]
    assert vocabulary.place("<0x00>") == 4
    assert [vocabulary.place(code) for code in ("ces_Latn", "eng_Latn")] == [321, 322]
    assert vocabulary.symbols[323] == "madeupword0323"


WRONG_VALUES = {
    "model_type": ("bart", "model_type: must be one of marian, m2m_100, got 'bart'"),
    "activation_function": ("quick_gelu", "activation_function: must be one of relu, swish, "),
    "normalize_before": (True, "normalize_before: must be one of False, got True"),
    "encoder_attention_heads": (3, "encoder_attention_heads: must divide d_model (8), got 3"),
    "decoder_layers": (None, "decoder_layers: must be a whole number in [1, inf), got None"),
    "decoder_start_token_id": (-1, "decoder_start_token_id: must be in [0, "),
    "pad_token_id": (5, "pad_token_id: must be "),
    "quantization_config": ({}, "quantization_config: must not be there"),
}


@pytest.mark.parametrize("name", WRONG_VALUES)
def test_values_that_we_lack_are_one_line(folder, capfd, name):
    value, message = WRONG_VALUES[name]
    configure(folder, **{name: value})
    assert_refused(folder, capfd, message)


def test_tokens_of_nllb_behind_the_sentence(folder, capfd):
    configure(folder, model_type="m2m_100")
    (folder / "source.spm").rename(folder / "sentencepiece.bpe.model")
    write_json(folder / "tokenizer_config.json", {"legacy_behaviour": True})
    assert_refused(folder, capfd, "tokenizer_config.json: legacy_behaviour: must be false")


def test_a_pickle_next_to_the_weights_is_ignored(folder):
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    assert run(folder) == 0


def test_pickles_are_not_read(folder, capfd):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert_refused(folder, capfd, "pytorch_model.bin is a pickle", "save_pretrained(")


def add_weight(weights):
    weights["model.encoder.layers.0.adapter.weight"] = torch.zeros(2)


def add_part(weights):
    weights["model.adapter.weight"] = torch.zeros(2)


WRONG_WEIGHTS = {
    "another layer": (add_weight, "encoder.layers.0.adapter.weight"),
    "another part": (add_part, "model.adapter.weight: is no weight of MarianMT"),
    "missing": (lambda weights: weights.pop("model.decoder.layers.0.fc1.bias"), "decoder.layers.0.fc1.bias"),
    "no table": (lambda weights: weights.pop("model.shared.weight"), "model.encoder.embed_tokens.weight: must be in"),
    "integers": (
        lambda weights: weights.update({"final_logits_bias": torch.zeros(1, 4, dtype=torch.int8)}),
        "final_logits_bias: must be of the type float16, bfloat16, float32, float64, got int8",
    ),
}


@pytest.mark.parametrize("name", WRONG_WEIGHTS)
def test_weights_that_we_lack_are_one_line(folder, capfd, name):
    change, message = WRONG_WEIGHTS[name]
    change_weights(folder, change)
    assert_refused(folder, capfd, message)


@pytest.mark.parametrize("content", [b"", b"\x08", b"\xff" * 100])
def test_damaged_weights(folder, capfd, content):
    (folder / "model.safetensors").write_bytes(content)
    assert_refused(folder, capfd, "model.safetensors: is damaged")


@pytest.mark.parametrize("name", ["../other.safetensors", "missing.safetensors"])
def test_index_with_a_wrong_file(folder, capfd, name):
    (folder / "model.safetensors").unlink()
    write_json(folder / "model.safetensors.index.json", {"weight_map": {"model.shared.weight": name}})
    assert_refused(folder, capfd, "weight_map must name" if "/" in name else "missing.safetensors: cannot be read")


@pytest.mark.parametrize("name", ["config.json", "vocab.json", "tokenizer_config.json"])
def test_damaged_tables(folder, capfd, name):
    (folder / name).write_text("[1, 2")
    assert_refused(folder, capfd, f"{name}: is damaged: it must be JSON")


def test_languages_must_be_known(folder, capfd):
    (folder / "tokenizer_config.json").unlink()
    assert_refused(folder, capfd, "--source-lang, --target-lang: must be given")


def test_vocabulary_with_several_targets(folder, capfd):
    vocabulary = json.loads((folder / "vocab.json").read_text())
    last = [entry for entry in vocabulary if entry.startswith("<0x")][-2:]
    renamed = {f">>{code}<<": vocabulary.pop(entry) for code, entry in zip(("deu", "ces"), last, strict=True)}
    write_json(folder / "vocab.json", vocabulary | renamed)
    assert_refused(folder, capfd, "--target-lang: must be one of the model's languages (deu, ces), got cs")


def test_missing_and_other_subwords(folder, capfd):
    (folder / "target.spm").unlink()
    assert_refused(folder, capfd, "target.spm: no such file; --sentencepiece-model, or ")
    write_sentencepiece(folder / "other.spm", ["ein anderer Text", "mit anderen Wörtern"], 280)
    assert run(folder, "--sentencepiece-model", str(folder / "other.spm")) == 1
    assert "other.spm: does not belong to " in capfd.readouterr().err


def assert_refused(folder: Path, capfd: Any, *messages: str) -> None:
    """One line, and nothing is left."""
    assert run(folder) == 1
    error = capfd.readouterr().err
    for message in messages:
        assert message in error, error
    assert error.startswith("fairseq-compress import: error: ")
    assert error.count("\n") == 1
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
