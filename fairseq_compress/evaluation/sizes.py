"""The exact size of a checkpoint: its parameters, tied ones counted once, and the bytes of its file."""

import os

from fairseq_compress.checkpoint.average import is_parameter, tied_groups
from fairseq_compress.checkpoint.load import load_state

FLOAT32_BYTES = 4


def checkpoint_sizes(path: str | os.PathLike[str]) -> dict[str, int]:
    """Sizes of the model in a checkpoint.

    Returns:
        ``parameters``: the number of trained numbers, those that several keys share counted once;
        ``bytes_float32``: what they take at 4 bytes each;
        ``bytes_on_disk``: the file as it is, with the optimizer's state where it holds one.

    Raises:
        CheckpointError: the file cannot be loaded.
    """
    weights = load_state(path)["model"]
    distinct = {keys[0]: weights[keys[0]] for keys in tied_groups(weights)}
    parameters = sum(tensor.numel() for key, tensor in distinct.items() if is_parameter(key, tensor))
    return {
        "parameters": parameters,
        "bytes_on_disk": os.path.getsize(path),
        "bytes_float32": FLOAT32_BYTES * parameters,
    }
