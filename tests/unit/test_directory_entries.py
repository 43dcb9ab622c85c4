"""The dictionaries of a model directory: pieces of its SentencePiece model by number, others as strings."""

import io
import json
import os

import pytest
import sentencepiece

from fairseq_compress.decoding.vocabulary import read_symbols, write_symbols
from fairseq_compress.errors import DataError
from fairseq_compress.export.model_writer import create_directory
from tests.unit.test_model_directory import METADATA

LINES = ["a dog runs in the park", "two dogs and one man talk", "the man reads an old book"] * 4


@pytest.fixture(scope="module")
def model():
    """A SentencePiece model of 30 pieces, as bytes, and its pieces."""
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=made, vocab_size=30, minloglevel=2
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())
    return made.getvalue(), [processor.id_to_piece(number) for number in range(len(processor))]


def dictionary(pieces):
    return ["<s>", "<pad>", "</s>", "<unk>", *pieces[3:], "madeupword0000"]


def test_pieces_in_order_are_a_pair(model, tmp_path):
    (tmp_path / "sentencepiece.model").write_bytes(model[0])
    symbols = dictionary(model[1])
    write_symbols(tmp_path, symbols, symbols)
    assert sorted(os.listdir(tmp_path)) == ["sentencepiece.model", "shared_entries.json"]
    text = (tmp_path / "shared_entries.json").read_text(encoding="utf-8")
    assert text == '[1,"<pad>",2,0,[3,29],"madeupword0000"]'
    assert read_symbols(tmp_path, "source") == read_symbols(tmp_path, "target") == symbols


def test_any_order_and_strangers(model, tmp_path):
    (tmp_path / "sentencepiece.model").write_bytes(model[0])
    source = [*dictionary(model[1][:3] + model[1][:2:-1]), "[3,4]", "7"]
    target = ["<s>", "<pad>", "</s>", "<unk>", "zcela", "jiná", "slova"]
    write_symbols(tmp_path, source, target)
    assert sorted(os.listdir(tmp_path)) == ["sentencepiece.model", "source_entries.json", "target_entries.json"]
    assert read_symbols(tmp_path, "source") == source
    assert read_symbols(tmp_path, "target") == target


def test_each_side_has_its_model(model, tmp_path):
    (tmp_path / "target_sentencepiece.model").write_bytes(model[0])
    source, target = ["<s>", "<pad>", "</s>", "<unk>", "a"], dictionary(model[1])
    write_symbols(tmp_path, source, target)
    names = ["source_vocabulary.json", "target_entries.json", "target_sentencepiece.model"]
    assert sorted(os.listdir(tmp_path)) == names
    assert (read_symbols(tmp_path, "source"), read_symbols(tmp_path, "target")) == (source, target)


def test_without_a_model_all_are_strings(model, tmp_path):
    symbols = dictionary(model[1])
    write_symbols(tmp_path, symbols, symbols)
    assert json.loads((tmp_path / "shared_vocabulary.json").read_text(encoding="utf-8")) == symbols
    assert read_symbols(tmp_path, "target") == symbols


@pytest.mark.parametrize(
    "entries",
    ['["<s>", 30]', '["<s>", -1]', "[[0, 30]]", "[[4, 3]]", "[[1, 2, 3]]", "[true]", "[1.0]", "[null]", '[["a", "b"]]'],
)
def test_damaged_numbers(entries, model, tmp_path):
    (tmp_path / "sentencepiece.model").write_bytes(model[0])
    (tmp_path / "shared_entries.json").write_text(entries)
    rule = r"shared_entries\.json: is damaged: it must be a list of strings, and numbers and pairs of .* in \[0, 30\)"
    with pytest.raises(DataError, match=rule):
        read_symbols(tmp_path, "source")


def test_damaged_files(tmp_path):
    (tmp_path / "shared_entries.json").write_text("[[0, 3]]")
    with pytest.raises(DataError, match="requires the SentencePiece model of the directory, it is not there"):
        read_symbols(tmp_path, "source")
    (tmp_path / "shared_entries.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match="is damaged: it must be a list of strings"):
        read_symbols(tmp_path, "source")
    (tmp_path / "shared_entries.json").unlink()
    with pytest.raises(DataError, match=r"source_vocabulary\.json: is damaged"):
        read_symbols(tmp_path, "source")


def test_older_versions_refuse_the_directory(model, tmp_path):
    def fill(folder):
        (folder / "sentencepiece.model").write_bytes(model[0])
        write_symbols(folder, dictionary(model[1]), dictionary(model[1]))
        return METADATA

    assert create_directory(tmp_path / "model", fill).metadata["format"] == "fairseq-compress model 4"
