"""The packed checkpoint: what comes back, what every byte is for, and files that are refused."""

import argparse
import json
import os
import random
import struct

import fairseq  # noqa: F401 - before the plugin, which is registered then
import pytest
import torch
from safetensors.torch import load_file, save_file

from fairseq_compress.checkpoint.load import load_state
from fairseq_compress.checkpoint.packed_file import (
    PackedModel,
    is_packed,
    packed_bytes,
    read_packed,
    size_table,
    unpacked_weights,
)
from fairseq_compress.errors import CheckpointError
from fairseq_compress.evaluation.sizes import size_lines
from fairseq_compress.functional.quantization.linear import LinearScheme, fake_quantize
from fairseq_compress.weights.methods.linear import pack_linear
from fairseq_compress.weights.packed import Packed, pack_plain, unpack

CFG = {
    "task": {"_name": "translation", "langs": ["en", "cs"]},
    "model": argparse.Namespace(arch="x", dropout=0.1, p=None),
}


def example():
    torch.manual_seed(1)
    table, matrix = torch.randn(10, 8), torch.randn(6, 16)
    weights = {
        "table.weight": pack_linear(table, LinearScheme(8)),
        "fc.weight": pack_linear(matrix, LinearScheme(4, "group", 8)),
        "fc.bias": pack_plain(torch.randn(6)),
        "version": pack_plain(torch.tensor([3.0])),
        "count": pack_plain(torch.tensor(7)),
    }
    return PackedModel(CFG, weights, {"output.weight": "table.weight"}), table, matrix


@pytest.fixture
def packed(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(packed_bytes(example()[0]))
    return path


def test_what_comes_back(packed):
    model, table, matrix = example()
    again = read_packed(packed)
    assert again.cfg == model.cfg
    assert again.ties == model.ties
    weights = unpacked_weights(packed, again)
    assert set(weights) == {*model.weights, "output.weight"}
    assert torch.equal(weights["table.weight"], fake_quantize(table, LinearScheme(8)))
    assert torch.equal(weights["fc.weight"], fake_quantize(matrix, LinearScheme(4, "group", 8)))
    assert torch.equal(weights["fc.bias"], model.weights["fc.bias"].tensors[""])
    assert weights["output.weight"] is weights["table.weight"]
    assert weights["count"].item() == 7
    assert weights["count"].dtype == torch.int64


def test_the_table_adds_up_to_the_file(packed):
    model = example()[0]
    entries = size_table(model, os.path.getsize(packed))
    assert sum(entry.bytes for entry in entries) == os.path.getsize(packed)
    sizes = {entry.name: entry.bytes for entry in entries}
    assert sizes["table.weight"] == 10 * 8 + 10 * 4
    assert sizes["fc.weight"] == 6 * 16 // 2 + 6 * 2 * 2
    assert sizes["fc.bias"] == 24
    (length,) = struct.unpack("<Q", packed.read_bytes()[:8])
    assert sizes["(header)"] == 8 + length
    lines = size_lines(entries)
    assert lines[-1].split()[0].replace(",", "") == str(os.path.getsize(packed))
    assert next(line for line in lines if "fc.weight" in line).split()[:2] == ["72", "6.00"]
    assert sum(int(line.split()[0].replace(",", "")) for line in lines[1:-1]) == os.path.getsize(packed)


def test_the_same_model_gives_the_same_bytes():
    assert packed_bytes(example()[0]) == packed_bytes(example()[0])


def test_nothing_is_pickled(packed):
    assert is_packed(packed)
    assert b"pickle" not in packed.read_bytes()
    assert set(load_file(packed)) >= {"table.weight:integers", "table.weight:inverse_scales", "fc.bias"}


@pytest.mark.parametrize("share", [0, 0.0001, 0.3, 0.7, 0.999])
def test_a_truncated_file_is_refused(share, packed):
    whole = packed.read_bytes()
    packed.write_bytes(whole[: min(int(len(whole) * share), len(whole) - 1)])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: truncated, or no packed checkpoint") as error:
        read_packed(packed)
    assert "\n" not in str(error.value)


def test_every_altered_byte_is_refused(packed):
    whole, draw = packed.read_bytes(), random.Random(1)
    model = read_packed(packed)
    for place in [*range(9), *(draw.randrange(len(whole)) for _ in range(400))]:
        altered = bytearray(whole)
        altered[place] ^= 1 << draw.randrange(8)
        packed.write_bytes(altered)
        try:
            again = read_packed(packed)
        except CheckpointError as error:
            assert "\n" not in str(error)  # noqa: PT017 - it need not be raised, see below
        else:  # a space of the header's padding became another space, an escape the letter that it stands for
            assert again.cfg == model.cfg
            assert all(
                torch.equal(tensor, model.weights[name].tensors[part])
                for name, weight in again.weights.items()
                for part, tensor in weight.tensors.items()
            )


def test_other_safetensors_and_other_versions(packed, tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"must have the format 'fairseq-compress packed 3', has None"):
        read_packed(tmp_path / "other.safetensors")
    packed.write_bytes(packed.read_bytes().replace(b"compress packed 3", b"compress packed 4"))
    with pytest.raises(CheckpointError, match="has 'fairseq-compress packed 4'"):
        load_state(packed)
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        read_packed(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "zip"}, "kind: must be one of plain, codes, linear, masked"),
        (
            {"spec": {"bits": 8, "granularity": "row", "group_size": 0, "shape": [3, 8]}},
            "integers: must be 24 numbers",
        ),
        ({"spec": {"bits": 9, "granularity": "row", "group_size": 0, "shape": [10, 8]}}, r"bits: must be in \[2, 8\]"),
        ({"spec": {"shape": [10, 8]}}, "'bits'"),
    ],
)
def test_a_weight_that_does_not_fit_its_description(change, message, tmp_path):
    weight = example()[0].weights["table.weight"]._replace(**change)
    with pytest.raises(CheckpointError, match=rf"x\.pt: w: .*{message}"):
        unpacked_weights("x.pt", PackedModel({}, {"w": weight}, {}))


def test_unpack_needs_a_known_kind():
    with pytest.raises(ValueError, match="kind: must be one of plain, codes, linear, masked, got 'x'"):
        unpack(Packed("x", {}, {}))


def test_a_checkpoint_of_fairseq_is_not_packed(tmp_path):
    torch.save({"model": {}}, tmp_path / "c.pt")
    assert not is_packed(tmp_path / "c.pt")
    assert not is_packed(tmp_path / "none.pt")
    assert json.dumps(CFG["task"])
