"""The exact size of a checkpoint: its parameters, tied ones counted once, and the bytes of its file."""

import math
import os

from fairseq_compress.checkpoint.average import count_parameters
from fairseq_compress.checkpoint.load import load_state
from fairseq_compress.checkpoint.packed_file import HEADER, Entry
from fairseq_compress.evaluation.multiply_adds import EMBEDDINGS, OUTPUT, part_of

FLOAT32_BYTES = 4


def checkpoint_sizes(path: str | os.PathLike[str]) -> dict[str, int]:
    """Sizes of the model in a checkpoint.

    Returns:
        ``parameters``: the number of trained numbers, those that several keys share counted once;
        ``bytes_float32``: what they take at 4 bytes each;
        ``bytes_float32_of_embeddings``: how many of these are of embeddings and output layer;
        ``bytes_on_disk``: the file as it is, with the optimizer's state where it holds one.

    Raises:
        CheckpointError: the file cannot be loaded.
    """
    weights = load_state(path)["model"]
    parameters = count_parameters(weights)
    embeddings = {name: tensor for name, tensor in weights.items() if part_of(name) in (EMBEDDINGS, OUTPUT)}
    return {
        "parameters": parameters,
        "bytes_on_disk": os.path.getsize(path),
        "bytes_float32": FLOAT32_BYTES * parameters,
        "bytes_float32_of_embeddings": FLOAT32_BYTES * count_parameters(embeddings),
    }


def size_lines(entries: list[Entry]) -> list[str]:
    """A table of what a packed checkpoint stores: bytes and bits per weight, and a last line with their sum."""
    lines = [f"{'bytes':>13}  {'bits/weight':>11}  {'shape':<14}  {'name':<50}  stored as"]
    for entry in entries:
        count = math.prod(entry.shape) if entry.kind != HEADER else 0
        bits = f"{8 * entry.bytes / count:.2f}" if count else ""
        shape = " x ".join(map(str, entry.shape))
        lines.append(f"{entry.bytes:>13,}  {bits:>11}  {shape:<14}  {entry.name:<50}  {entry.kind}")
    total = sum(entry.bytes for entry in entries)
    dense = FLOAT32_BYTES * sum(math.prod(entry.shape) for entry in entries if entry.kind != HEADER)
    return [*lines, f"{total:>13,}  {'':>11}  {'':<14}  {'total':<50}  {dense / total:.2f} times smaller than float32"]
