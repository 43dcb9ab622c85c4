"""Metadata of a checkpoint: parameters, bytes of the weights without the optimizer's state, architecture."""

import math
import os
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fairseq_compress.checkpoint.average import PLACEHOLDER_BUFFER, VERSION_BUFFER, count_parameters
from fairseq_compress.checkpoint.load import load_state
from fairseq_compress.checkpoint.pack import pack_model
from fairseq_compress.checkpoint.packed_file import HEADER, Entry, is_packed, read_packed, size_table
from fairseq_compress.checkpoint.state import num_updates
from fairseq_compress.evaluation.multiply_adds import DECODER, EMBEDDINGS, ENCODER, OUTPUT, part_of
from fairseq_compress.functional.ties import tied_groups
from fairseq_compress.runtimes.model_directory import ModelDirectory

FLOAT32_BYTES = 4


def checkpoint_facts(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Sizes and architecture of the model in a checkpoint, packed or not, or in a directory of an export.

    Returns:
        ``parameters``, shared ones counted once; ``bytes`` of the stored weights, without optimizer, configuration and
        names; ``bytes_on_disk`` of the whole file or directory; ``bytes_float32``, 4 for each parameter, and
        ``bytes_float32_of_embeddings`` and output layer; where known, ``architecture`` (its name), ``encoder_layers``,
        ``decoder_layers``, ``width``, ``updates``; of an export also its ``runtime`` and ``quantization``.
    """
    if os.path.isdir(path):
        return _directory_facts(ModelDirectory.open(path))
    state = load_state(path)
    weights = state["model"]
    parameters = count_parameters(weights)
    embeddings = {name: tensor for name, tensor in weights.items() if part_of(name) in (EMBEDDINGS, OUTPUT)}
    return {
        "parameters": parameters,
        "bytes": _entry_bytes(size_table(read_packed(path), 0)) if is_packed(path) else _stored_bytes(weights),
        "bytes_on_disk": os.path.getsize(path),
        "bytes_float32": FLOAT32_BYTES * parameters,
        "bytes_float32_of_embeddings": FLOAT32_BYTES * count_parameters(embeddings),
        **_architecture(state),
    }


def _stored_bytes(weights: Mapping[str, Tensor]) -> int:
    markers = (VERSION_BUFFER, PLACEHOLDER_BUFFER)
    stored = {name: tensor for name, tensor in weights.items() if name.rpartition(".")[2] not in markers}
    first = (stored[names[0]] for names in tied_groups(stored, by_value=True))
    return sum(tensor.numel() * tensor.element_size() for tensor in first)


def _entry_bytes(entries: list[Entry]) -> int:
    return sum(entry.bytes for entry in entries if entry.kind != HEADER)


def _architecture(state: Mapping[str, Any]) -> dict[str, Any]:
    cfg = state.get("cfg") or {}
    model = cfg["model"] if cfg.get("model") is not None else state.get("args")
    found = {
        "architecture": _option(model, "arch") or _option(model, "_name"),
        **{f"{side}_layers": _layers(state["model"], side) for side in (ENCODER, DECODER)},
        "width": _option(model, "encoder_embed_dim") or _option(_option(model, "encoder"), "embed_dim"),
        "updates": num_updates(state),
    }
    return {name: value for name, value in found.items() if value}


def _option(group: Any, name: str) -> Any:
    """Of a namespace or a table, the two forms of fairseq's configurations."""
    return group.get(name) if isinstance(group, Mapping) else getattr(group, name, None)


def _layers(names: Mapping[str, Any], side: str) -> int:
    numbers = (re.match(rf"{side}\.layers\.(\d+)\.", name) for name in names)
    return max((int(found[1]) + 1 for found in numbers if found), default=0)


def _directory_facts(directory: ModelDirectory) -> dict[str, Any]:
    metadata = directory.metadata
    stored = metadata.get("architecture") or {}
    known = {name: name for name in ("encoder_layers", "decoder_layers")}
    known |= {"arch": "architecture", "encoder_embed_dim": "width"}
    parameters = metadata["parameters"]
    return {
        "parameters": parameters,
        "bytes": directory.weight_bytes(),
        "bytes_on_disk": sum(file.stat().st_size for file in directory.path.iterdir()),
        "bytes_float32": FLOAT32_BYTES * parameters,
        "runtime": metadata["runtime"],
        "quantization": metadata["quantization"],
        **{name: stored[option] for option, name in known.items() if stored.get(option)},
        **{name: value for name, value in metadata.get("training", {}).items() if name == "updates" and value},
    }


def packed_weight_bytes(path: str | os.PathLike[str]) -> int:
    """The bytes of the weights of a checkpoint in packed form, without metadata."""
    return _entry_bytes(size_table(pack_model(path), 0))


def size_lines(entries: list[Entry]) -> list[str]:
    """A table of a packed checkpoint: bytes and bits per weight, and a last line with their sum."""
    lines = [f"{'bytes':>13}  {'bits/weight':>11}  {'shape':<14}  {'name':<50}  stored as"]
    for entry in entries:
        count = math.prod(entry.shape) if entry.kind != HEADER else 0
        bits = f"{8 * entry.bytes / count:.2f}" if count else ""
        shape = " x ".join(map(str, entry.shape))
        lines.append(f"{entry.bytes:>13,}  {bits:>11}  {shape:<14}  {entry.name:<50}  {entry.kind}")
    total = sum(entry.bytes for entry in entries)
    dense = FLOAT32_BYTES * sum(math.prod(entry.shape) for entry in entries if entry.kind != HEADER)
    return [*lines, f"{total:>13,}  {'':>11}  {'':<14}  {'total':<50}  {dense / total:.2f} times smaller than float32"]
