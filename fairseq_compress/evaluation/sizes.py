"""The exact size of a checkpoint: its parameters, tied ones counted once, and the bytes of its file."""

import os

from fairseq_compress.checkpoint.average import count_parameters
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
    parameters = count_parameters(load_state(path)["model"])
    return {
        "parameters": parameters,
        "bytes_on_disk": os.path.getsize(path),
        "bytes_float32": FLOAT32_BYTES * parameters,
    }
