"""Marian's model files: ``.bin`` (float32, and 8-bit ``intgemm``), and ``.npz``.

A ``.bin`` file is, in little endian: the version 1 and the number of items (uint64); for each item the length of its
name with a final 0, type, number of dimensions and bytes of data (uint64); all names; all shapes (int32); the number of
bytes (uint64) up to the first multiple of 256, and those bytes; the data, each item's filled up to a multiple of 256.

An 8-bit item holds integers q and, behind them, a float32 m with w ≈ q / m. The integers of a matrix (I, O) are stored
as (O, I), those of a table of embeddings as they are. ``NAME_QuantMultA`` is the same multiplier of the layer's input.
"""

import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_compress.errors import DataError
from fairseq_compress.work.files import PathLike

VERSION = 1
ALIGNMENT = 256
CONFIGURATION = "special:model.yml"
TABLES = "Wemb"  # end of the names of tables of embeddings
TEXT, FLOAT32, INTGEMM8 = 0x0101, 0x0404, 0x4101
_TYPES = {TEXT: "int8", FLOAT32: "float32", INTGEMM8: "intgemm8"}
_MOST_ITEMS, _MOST_DIMENSIONS = 100_000, 8


class Quantized(NamedTuple):
    """An 8-bit matrix (I, O), or table (V, C)."""

    integers: NDArray[np.int8]
    multiplier: float

    def values(self) -> NDArray[np.float32]:
        return self.integers.astype(np.float32) * (np.float32(1) / np.float32(self.multiplier))


Value = NDArray[np.float32] | Quantized


class MarianFile(NamedTuple):
    """The parameters of a model, and its configuration in YAML."""

    items: dict[str, Value]
    configuration: str


def read_marian(path: PathLike) -> MarianFile:
    """Read a ``.npz`` or ``.bin`` file; nothing is unpickled."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    try:
        return _from_npz(data) if data[:2] == b"PK" else parse(data)
    except (struct.error, ValueError, KeyError, EOFError, zipfile.BadZipFile, OverflowError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: is truncated, or no model of Marian: {reason}") from None


def parse(data: bytes) -> MarianFile:
    """The contents of a ``.bin`` file. Raises ``ValueError`` or ``struct.error``."""
    version, count = struct.unpack_from("<QQ", data, 0)
    if version != VERSION:
        raise ValueError(f"its version must be {VERSION}, got {version}")
    if count > _MOST_ITEMS:
        raise ValueError(f"its number of items must be at most {_MOST_ITEMS}, got {count}")
    heads = [struct.unpack_from("<QQQQ", data, 16 + 32 * index) for index in range(count)]
    place = 16 + 32 * count
    names = []
    for length, *_ in heads:
        names.append(_cut(data, place, length).rstrip(b"\0").decode())
        place += length
    shapes = []
    for name, (_, _, dimensions, _) in zip(names, heads, strict=True):
        if dimensions > _MOST_DIMENSIONS:
            raise ValueError(f"{name}: must have at most {_MOST_DIMENSIONS} dimensions, has {dimensions}")
        shapes.append(struct.unpack_from(f"<{dimensions}i", data, place))
        place += 4 * dimensions
    (gap,) = struct.unpack_from("<Q", data, place)
    place += 8 + gap
    items: dict[str, Value] = {}
    configuration = ""
    for name, shape, (_, kind, _, size) in zip(names, shapes, heads, strict=True):
        part = _cut(data, place, size)
        place += size
        if name == CONFIGURATION:
            configuration = part.rstrip(b"\0").decode()
        else:
            items[name] = _value(name, kind, shape, part)
    return MarianFile(items, configuration)


def _value(name: str, kind: int, shape: tuple[int, ...], part: bytes) -> Value:
    if kind not in (FLOAT32, INTGEMM8):
        known = ", ".join(_TYPES[each] for each in (FLOAT32, INTGEMM8))
        raise ValueError(f"{name}: its type must be one of {known}, got {_TYPES.get(kind, hex(kind))}")
    count = int(np.prod(shape))
    if kind == FLOAT32:
        return np.frombuffer(part, "<f4", count).reshape(shape).copy()
    if len(shape) != 2:
        raise ValueError(f"{name}: an 8-bit matrix must have 2 dimensions, has {len(shape)}")
    integers = np.frombuffer(part, np.int8, count)
    (multiplier,) = struct.unpack_from("<f", part, count)
    matrix = integers.reshape(shape) if name.endswith(TABLES) else integers.reshape(shape[::-1]).T
    return Quantized(matrix.copy(), multiplier)


def _cut(data: bytes, place: int, size: int) -> bytes:
    if place + size > len(data):
        raise ValueError(f"it must have {place + size} bytes or more, has {len(data)}")
    return data[place : place + size]


def _from_npz(data: bytes) -> MarianFile:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    text = found.pop(CONFIGURATION, np.zeros(0, np.int8)).astype(np.uint8).tobytes().rstrip(b"\0").decode()
    for name, array in found.items():
        if array.dtype not in (np.float32, np.float16):
            raise ValueError(f"{name}: its type must be float32 or float16, got {array.dtype}")
    return MarianFile({name: array.astype(np.float32) for name, array in found.items()}, text)


def serialize(items: Mapping[str, Value], configuration: str) -> bytes:
    """The bytes of a ``.bin`` file."""
    parts = [(name, *_serialized(name, value)) for name, value in items.items()]
    text = configuration.encode() + b"\0"
    parts.append((CONFIGURATION, TEXT, (len(text),), text))
    head = struct.pack("<QQ", VERSION, len(parts))
    for name, kind, shape, data in parts:
        head += struct.pack("<QQQQ", len(name.encode()) + 1, kind, len(shape), len(data) + -len(data) % ALIGNMENT)
    head += b"".join(name.encode() + b"\0" for name, *_ in parts)
    head += b"".join(struct.pack(f"<{len(shape)}i", *shape) for _, _, shape, _ in parts)
    gap = -(len(head) + 8) % ALIGNMENT
    body = b"".join(data + bytes(-len(data) % ALIGNMENT) for *_, data in parts)
    return head + struct.pack("<Q", gap) + bytes(gap) + body


def _serialized(name: str, value: Value) -> tuple[int, tuple[int, ...], bytes]:
    if isinstance(value, Quantized):
        stored: Any = value.integers if name.endswith(TABLES) else value.integers.T
        data = np.ascontiguousarray(stored).tobytes() + struct.pack("<f", value.multiplier)
        return INTGEMM8, value.integers.shape, data
    array = np.atleast_2d(np.asarray(value, np.float32))
    return FLOAT32, array.shape, np.ascontiguousarray(array).tobytes()


def quantize(weight: NDArray[np.float32]) -> Quantized:
    """8 bits: q = round(w · m) with m = 127 / max|w|."""
    largest = np.abs(weight).max()
    multiplier = np.float32(127) / np.float32(largest if largest > 0 else 1)
    return Quantized(np.clip(np.rint(weight * multiplier), -127, 127).astype(np.int8), float(multiplier))
