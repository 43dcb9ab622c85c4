"""Where a model that is only read runs."""

import os

import torch

from fairseq_compress.errors import ConfigError

DEVICES = ("auto", "cpu", "cuda")


def pick_device(name: str) -> torch.device:
    """The device for ``--device NAME``: ``auto`` is a GPU where there is one; torchrun's processes get one each.

    Raises:
        ConfigError: ``cuda`` is asked for and not there.
    """
    devices = torch.cuda.device_count()
    if name == "cuda" and not devices:
        raise ConfigError("--device cuda: there is no such device here")
    if name == "cpu" or not devices:
        return torch.device("cpu")
    number = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0"))) % devices
    torch.cuda.set_device(number)
    return torch.device("cuda", number)
