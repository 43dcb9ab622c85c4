"""Shared helpers of data sets that extend fairseq's batches."""

import os
from typing import Any

import torch
from fairseq import utils
from fairseq.data import BaseWrapperDataset
from fairseq.tasks import FairseqTask

from fairseq_compress.errors import ConfigError


class ForwardingDataset(BaseWrapperDataset):
    """A wrapper that forwards missing attributes to the wrapped dataset."""

    def __getattr__(self, name: str) -> Any:
        if name == "dataset":  # not set yet: a worker process is unpickling this object
            raise AttributeError(name)
        return getattr(self.dataset, name)


def check_task(task: FairseqTask, option: str) -> None:
    """Check that every split of a task can be wrapped."""
    if not hasattr(task, "wrap_datasets"):
        raise ConfigError(f"{option}: needs --task compressed_translation, got {type(task).__name__}")
    folders = utils.split_paths(task.cfg.data)
    if len(folders) != 1:
        raise ConfigError(f"{option}: needs one data folder, got {len(folders)}: {task.cfg.data}")


def first_process() -> bool:
    """Whether this process verifies checksums: the first of each machine under torchrun, else of all."""
    if "LOCAL_RANK" in os.environ:
        return os.environ["LOCAL_RANK"] == "0"
    started = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not (started and torch.distributed.get_rank())
