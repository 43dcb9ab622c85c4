"""A checkpoint -> a packed one."""

import os

from fairseq_compress.checkpoint.compress import compressed_model
from fairseq_compress.checkpoint.packed_file import Entry, PackedModel, is_packed, packed_bytes, read_packed, size_table
from fairseq_compress.checkpoint.state import plain_cfg
from fairseq_compress.functional.ties import tied_groups
from fairseq_compress.weights.groups import compressed_groups, effective_state
from fairseq_compress.weights.packed import Packed, pack_plain
from fairseq_compress.weights.rules import Plan
from fairseq_compress.work.files import atomic_write, check_distinct


def pack_model(path: str | os.PathLike[str], plan: Plan | None = None) -> PackedModel:
    """A checkpoint with compressed weights, shared ones once; see :func:`.compress.compressed_model`."""
    if plan is None and is_packed(path):
        return read_packed(path)
    model, _, cfg = compressed_model(path, plan)
    packed = {f"{group.name}.weight": chain.pack(group.parameter) for group, chain in compressed_groups(model)}
    weights = effective_state(model)
    stored: dict[str, Packed] = {}
    ties: dict[str, str] = {}
    for first, *others in tied_groups(weights, by_value=True):
        stored[first] = packed.get(first) or pack_plain(weights[first])
        ties |= dict.fromkeys(others, first)
    return PackedModel(plain_cfg(cfg), stored, ties)


def pack(path: str | os.PathLike[str], output: str | os.PathLike[str], plan: Plan | None = None) -> list[Entry]:
    """Write :func:`pack_model`, atomically, and return the table of its sizes."""
    check_distinct([path], [output])
    model = pack_model(path, plan)
    contents = packed_bytes(model)
    with atomic_write(output, "wb") as file:
        file.write(contents)
    return size_table(model, len(contents))
