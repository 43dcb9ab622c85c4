"""Marian's model files: what is written is read, npz too, and damaged ones are one line."""

import struct

import numpy as np
import pytest

from fairseq_compress.errors import DataError
from fairseq_compress.work.marian_file import CONFIGURATION, Quantized, parse, quantize, read_marian, serialize

DRAW = np.random.default_rng(1)
ITEMS = {
    "Wemb": quantize(DRAW.normal(size=(24, 8)).astype(np.float32)),
    "encoder_l1_self_Wq": quantize(DRAW.normal(size=(8, 16)).astype(np.float32)),
    "encoder_l1_self_bq": DRAW.normal(size=(1, 16)).astype(np.float32),
}


def test_what_is_written_is_read():
    found = parse(serialize(ITEMS, "a: 1\n"))
    assert found.configuration == "a: 1\n"
    assert list(found.items) == list(ITEMS)
    for name, value in ITEMS.items():
        if isinstance(value, Quantized):
            np.testing.assert_array_equal(found.items[name].integers, value.integers)
            assert found.items[name].multiplier == np.float32(value.multiplier)
        else:
            np.testing.assert_array_equal(found.items[name], value)


def test_layout_by_hand():
    data = serialize({"Wemb": Quantized(np.array([[1, -2]], np.int8), 2.0), "x_W": ITEMS["encoder_l1_self_Wq"]}, "")
    assert struct.unpack_from("<QQ", data) == (1, 3)
    assert struct.unpack_from("<QQQQ", data, 16) == (5, 0x4101, 2, 256)
    first = len(data) - 3 * 256
    assert first % 256 == 0
    assert data[first : first + 2] == bytes([1, 254])
    assert struct.unpack_from("<f", data, first + 2) == (2.0,)
    stored = np.frombuffer(data[first + 256 : first + 256 + 128], np.int8)
    np.testing.assert_array_equal(stored.reshape(16, 8), ITEMS["encoder_l1_self_Wq"].integers.T)


def test_quantize_by_hand():
    found = quantize(np.array([[0.5, -1.0, 0.25]], np.float32))
    assert found.integers.tolist() == [[64, -127, 32]]  # 63.5 and 31.75, rounded half to even
    assert found.multiplier == 127
    assert quantize(np.zeros((2, 2), np.float32)).multiplier == 127


def test_npz(tmp_path):
    text = np.frombuffer(b"a: 1\n\0", np.int8)
    np.savez(tmp_path / "model.npz", **{"x_b": np.ones((1, 3), np.float32), CONFIGURATION: text})
    found = read_marian(tmp_path / "model.npz")
    assert found.configuration == "a: 1\n"
    np.testing.assert_array_equal(found.items["x_b"], np.ones((1, 3)))


def test_nothing_is_unpickled(tmp_path):
    np.savez(tmp_path / "model.npz", x=np.array([{"a": 1}], object))
    with pytest.raises(DataError, match=r"is truncated, or no model of Marian: .*allow_pickle=False"):
        read_marian(tmp_path / "model.npz")


@pytest.mark.parametrize("length", [0, 7, 15, 100, 200, 400, 1000])
def test_truncated(tmp_path, length):
    (tmp_path / "model.bin").write_bytes(serialize(ITEMS, "a: 1\n")[:length])
    with pytest.raises(DataError, match=r"model\.bin: is truncated, or no model of Marian") as caught:
        read_marian(tmp_path / "model.bin")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [(0, 2, "version must be 1, got 2"), (8, 1 << 40, "number of items"), (24, 0x2101, "its type must be one of")],
)
def test_damaged(tmp_path, place, value, message):
    data = bytearray(serialize(ITEMS, "a: 1\n"))
    data[place : place + 8] = struct.pack("<Q", value)
    (tmp_path / "model.bin").write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_marian(tmp_path / "model.bin")
