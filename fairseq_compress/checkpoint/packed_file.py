"""The packed checkpoint: a safetensors file with compressed weights and the configuration of the model.

The metadata are one JSON object under ``fairseq-compress``: ``format``; ``model``, deflated in base64, with ``cfg``,
``weights`` (how each is stored) and ``ties`` (names that share the weight of another name); and ``sha256`` of all
tensors and of the other metadata.
"""

import argparse
import base64
import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import safetensors
from safetensors.torch import save
from torch import Tensor, uint8

from fairseq_compress.errors import CheckpointError
from fairseq_compress.weights.packed import Packed, unpack
from fairseq_compress.work.migrate import PACKED_PARTS

FORMAT = "fairseq-compress packed 3"
PROGRAM = "fairseq-compress"
HEADER = "configuration, names, checksum"
NAMESPACE = "argparse.Namespace"
_LENGTH_BYTES = 8  # of the header's length, with which a safetensors file begins


class PackedModel(NamedTuple):
    """What a packed checkpoint holds."""

    cfg: dict[str, Any]
    """The configuration of fairseq, in plain values and namespaces."""
    weights: dict[str, Packed]
    """Each weight and buffer once."""
    ties: dict[str, str]
    """Other names: name -> a key of ``weights``."""


class Entry(NamedTuple):
    """A line of the table of sizes."""

    name: str
    kind: str
    shape: tuple[int, ...]
    bytes: int


def packed_bytes(model: PackedModel) -> bytes:
    """The contents of the file."""
    tensors = {_key(name, part): t for name, packed in model.weights.items() for part, t in packed.tensors.items()}
    stored = {name: (packed.kind, packed.spec, list(packed.tensors)) for name, packed in model.weights.items()}
    plain = json.dumps({"cfg": _to_plain(model.cfg), "weights": stored, "ties": model.ties})
    metadata = {"format": FORMAT, "model": base64.b64encode(zlib.compress(plain.encode(), 9)).decode()}
    # In one entry: safetensors writes several in an order of chance.
    return save(tensors, {PROGRAM: json.dumps(metadata | {"sha256": _checksum(tensors, metadata)})})


def read_packed(path: str | os.PathLike[str]) -> PackedModel:
    """Read a packed checkpoint."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = _metadata(file.metadata())
            version = metadata.get("format")
            renamed = PACKED_PARTS.get(str(version))
            if version != FORMAT and renamed is None:
                raise CheckpointError(f"checkpoint {path}: must have the format {FORMAT!r}, has {version!r}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except OSError as error:
        raise CheckpointError(f"checkpoint {path}: cannot be read: {error.strerror or error}") from None
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"checkpoint {path}: truncated, or no packed checkpoint ({error})") from None
    if metadata.get("sha256") != _checksum(tensors, metadata):
        raise CheckpointError(f"checkpoint {path}: was altered: its SHA-256 is not the one that it holds")
    model = json.loads(zlib.decompress(base64.b64decode(metadata["model"])))
    new_name = renamed or {}
    weights = {
        name: Packed(kind, spec, {new_name.get(part, part): tensors[_key(name, part)] for part in parts})
        for name, (kind, spec, parts) in model["weights"].items()
    }
    return PackedModel(_from_plain(model["cfg"]), weights, model["ties"])


def is_packed(path: str | os.PathLike[str]) -> bool:
    """Whether a file looks like safetensors: a length, and a header that is a table of JSON."""
    try:
        with open(path, "rb") as file:
            start = file.read(_LENGTH_BYTES + 1)
    except OSError:
        return False
    return start[_LENGTH_BYTES:] == b"{"


def unpacked_weights(path: str | os.PathLike[str], model: PackedModel) -> dict[str, Tensor]:
    """The state dict; names that share a weight share the tensor."""
    weights: dict[str, Tensor] = {}
    for name, packed in model.weights.items():
        try:
            weights[name] = unpack(packed)
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"checkpoint {path}: {name}: {error}") from None
    return weights | {name: weights[other] for name, other in model.ties.items()}


def size_table(model: PackedModel, total: int) -> list[Entry]:
    """Every weight with its bytes, then the header: the sum is the size of the file, ``total``."""
    entries = [Entry(name, str(packed), packed.shape, packed.bytes) for name, packed in model.weights.items()]
    header = total - sum(entry.bytes for entry in entries)
    return [*entries, Entry("(header)", HEADER, (), header)]


def _metadata(found: dict[str, str] | None) -> dict[str, str]:
    try:
        metadata = json.loads((found or {}).get(PROGRAM, "{}"))
    except ValueError:
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _key(name: str, part: str) -> str:
    return f"{name}:{part}" if part else name


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Of names, types, shapes and bytes of all tensors and of the other metadata, in any order."""
    digest = hashlib.sha256()
    for name in sorted(set(metadata) - {"sha256"}):
        digest.update(json.dumps([name, metadata[name]]).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.view(-1).view(uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def _to_plain(value: Any) -> Any:
    """Values of JSON; fairseq's namespaces are marked."""
    if isinstance(value, argparse.Namespace):
        return {NAMESPACE: _to_plain(vars(value))}
    if isinstance(value, Mapping):
        return {str(key): _to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_plain(item) for item in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def _from_plain(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {NAMESPACE}:
            return argparse.Namespace(**_from_plain(value[NAMESPACE]))
        return {key: _from_plain(item) for key, item in value.items()}
    return [_from_plain(item) for item in value] if isinstance(value, list) else value
