"""Model directories: whole or not there, and refused when they are not what was written."""

import json
import os

import pytest

from fairseq_compress.corpus.segmentation.choice import Segmentation
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.export.model_writer import create_directory
from fairseq_compress.runtimes.model_directory import ModelDirectory, segmentation_files

METADATA = {
    "runtime": "onnx", "runtime_version": "1", "quantization": "int8", "checkpoint_sha256": "0",
    "languages": {"source": "en", "target": "cs"}, "positions": {"source": 9, "target": 9}, "search": {"beam": 4},
    "vocabulary": {"source_dictionary": "1", "target_dictionary": "2"},
}  # fmt: skip


def fill(folder):
    (folder / "model.bin").write_bytes(b"weights" * 100)
    (folder / "sentencepiece.model").write_bytes(b"pieces")
    return METADATA


@pytest.fixture
def directory(tmp_path):
    return create_directory(tmp_path / "model", fill)


def test_what_is_written_is_read(directory):
    again = ModelDirectory.open(directory.path)
    again.verify()
    assert again.metadata == directory.metadata
    assert again.metadata["bytes"] == 706
    assert sorted(again.metadata["files"]) == ["model.bin", "sentencepiece.model"]
    assert again.segmentation() == Segmentation(again.path / "sentencepiece.model")
    assert again.metadata["format"] == "fairseq-compress model 1"  # which older versions read
    assert os.listdir(directory.path.parent) == ["model"]
    assert directory.path.stat().st_mode & 0o777 == 0o755


def test_a_sentencepiece_model_of_each_side(tmp_path):
    def fill_both(folder):
        for side in ("source", "target"):
            (folder / f"{side}_sentencepiece.model").write_bytes(side.encode())
        return METADATA

    directory = create_directory(tmp_path / "model", fill_both)
    again = ModelDirectory.open(directory.path)
    assert again.metadata["format"] == "fairseq-compress model 2"  # which they refuse
    assert [path.read_bytes() for path in again.segmentation().paths()] == [b"source", b"target"]
    with pytest.raises(DataError, match=r"files must name sentencepiece\.model, or source_sent.* and target_sent"):
        ModelDirectory.open(create_directory(tmp_path / "none", lambda folder: METADATA).path)


MOSES = {"tokenizer": "moses", "no_escape": False, "no_dash_splits": True}


@pytest.mark.parametrize(
    ("segmentation", "files"),
    [
        ({"kind": "sentencepiece", **MOSES}, ["sentencepiece.model"]),
        ({"kind": "fastbpe", "tokenizer": "none"}, ["bpe.codes"]),
        ({"kind": "subword-nmt", **MOSES}, ["source_bpe.codes", "target_bpe.codes"]),
        ({"kind": "none", "tokenizer": "none"}, []),
    ],
)
def test_another_segmentation(tmp_path, segmentation, files):
    def fill_other(folder):
        for name in files:
            (folder / name).write_text("a b 1\n")
        return METADATA | {"segmentation": segmentation}

    again = ModelDirectory.open(create_directory(tmp_path / "model", fill_other).path)
    assert again.metadata["format"] == "fairseq-compress model 3"  # which older versions refuse
    paths = [again.path / name for name in files]
    assert again.segmentation() == Segmentation(*paths, **segmentation)
    assert again.segmentation().facts() == segmentation
    assert segmentation_files(again.segmentation()) == dict(zip(files, paths, strict=True))
    if files:
        paths[-1].unlink()
        with pytest.raises(DataError, match="is missing"):
            ModelDirectory.open(again.path)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_nothing(tmp_path, error):
    def fail(folder):
        fill(folder)
        raise error

    with pytest.raises(error):
        create_directory(tmp_path / "model", fail)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_never_replaced(directory):
    with pytest.raises(ConfigError, match="--output: must not be there yet"):
        create_directory(directory.path, fill)

    def of_two_at_once(folder):
        create_directory(directory.path.parent / "other", fill)
        return fill(folder)

    with pytest.raises(ConfigError, match="appeared meanwhile"):
        create_directory(directory.path.parent / "other", of_two_at_once)
    ModelDirectory.open(directory.path.parent / "other").verify()
    assert sorted(os.listdir(directory.path.parent)) == ["model", "other"]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--output: cannot write to"):
        create_directory(tmp_path / "file" / "model", fill)


def test_damage_is_refused(directory):
    file = directory.path / "model.bin"
    whole = file.read_bytes()
    file.write_bytes(b"W" + whole[1:])
    with pytest.raises(DataError, match=r"model\.bin: was altered"):
        ModelDirectory.open(directory.path).verify()
    file.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=r"model\.bin: must have 700 bytes, has 699 bytes"):
        ModelDirectory.open(directory.path)
    file.unlink()
    with pytest.raises(DataError, match=r"model\.bin: must have 700 bytes, is missing"):
        ModelDirectory.open(directory.path)


def test_what_is_no_model_directory(directory, tmp_path):
    with pytest.raises(DataError, match="is no model directory"):
        ModelDirectory.open(tmp_path)
    metadata = directory.path / "metadata.json"
    metadata.write_text(json.dumps(directory.metadata | {"format": "fairseq-compress model 9"}))
    with pytest.raises(
        DataError, match=r"must have the format 'fairseq-compress model 1', .*, has 'fairseq-compress model 9'"
    ):
        ModelDirectory.open(directory.path)
    metadata.write_text("{")
    with pytest.raises(DataError, match="must be JSON"):
        ModelDirectory.open(directory.path)
