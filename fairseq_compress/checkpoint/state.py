"""The dictionary of a checkpoint, beside its weights."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from fairseq_compress.compat import START_OF_DATA
from fairseq_compress.work.files import atomic_write


def num_updates(state: Mapping[str, Any]) -> int:
    """Updates that the model was trained for."""
    history = state.get("optimizer_history") or [{}]
    return int(history[-1].get("num_updates", 0))


def without_training_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """``state`` with the least that fairseq's loaders ask for in place of optimizer, iterator, meters and EMA.

    What a criterion or a task has learned beside the model (maps from student to teacher, queues) goes too.
    """
    last = (state.get("optimizer_history") or [{}])[-1]
    names = {key: last.get(key) for key in ("criterion_name", "optimizer_name")}
    return dict(state) | {
        # fairseq calls model.set_num_updates with this number, for generation too.
        "optimizer_history": [names | {"lr_scheduler_state": {}, "num_updates": num_updates(state)}],
        "last_optimizer_state": None,
        "criterion": None,
        "task_state": {},
        # A training that starts from these weights starts at the beginning of its data.
        "extra_state": {"train_iterator": dict(START_OF_DATA)},
    }


def plain_cfg(cfg: DictConfig) -> dict[str, Any]:
    """A configuration as fairseq's trainer saves it: plain values, and namespaces of the command line."""
    container: Any = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    return {str(name): value for name, value in container.items()}


def write_state(state: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a checkpoint, atomically."""
    with atomic_write(path, "wb") as file:
        torch.save(dict(state), file)
