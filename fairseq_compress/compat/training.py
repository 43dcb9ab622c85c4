"""What fairseq's trainer does to models, tasks and files."""

import functools
import os
from collections.abc import Callable
from typing import Any

import torch
from fairseq import checkpoint_utils, models
from fairseq.models.ema.ema import EMA
from fairseq.trainer import Trainer

from fairseq_compress.compat.replacing import PATCHED, is_replaced, replace


def patch_checkpoint_copies() -> None:
    """Make fairseq's copies of checkpoints appear whole or not at all, as what it saves itself does."""
    manager = checkpoint_utils.PathManager
    original = manager.copy
    if is_replaced(original):
        return

    @functools.wraps(original)
    def copy(src_path: str, dst_path: str, overwrite: bool = False) -> Any:
        if not manager.supports_rename(dst_path):  # it is on another machine
            return original(src_path, dst_path, overwrite=overwrite)
        copied = original(src_path, f"{dst_path}.tmp", overwrite=True)
        os.replace(f"{dst_path}.tmp", dst_path)
        return copied

    replace(manager, "copy", original, copy)


def patch_task_state() -> None:
    """Give a resumed training its task's state back. ``extra_state`` is what reaches every process.

    Values that a task resolved (``task.resolved_options``) are stored in the checkpoint's ``cfg``.
    """
    save, load = Trainer.state_dict, Trainer.load_checkpoint
    if is_replaced(load):
        return

    @functools.wraps(save)
    def state_dict(self: Any) -> dict[str, Any]:
        state: dict[str, Any] = save(self)
        state["extra_state"]["task_state"] = state["task_state"]
        if resolved := getattr(self.task, "resolved_options", None):
            state["cfg"]["task"].update(resolved)
        return state

    @functools.wraps(load)
    def load_checkpoint(self: Any, filename: str, reset_optimizer: bool = False, *args: Any, **kwargs: Any) -> Any:
        extra_state = load(self, filename, reset_optimizer, *args, **kwargs)
        if extra_state and not reset_optimizer:  # with another optimizer it is another training
            self.task.load_state_dict(extra_state.pop("task_state", {}))
        return extra_state

    replace(Trainer, "state_dict", save, state_dict)
    replace(Trainer, "load_checkpoint", load, load_checkpoint)


def patch_average_of_weights() -> None:
    """Let the exponential moving average copy integers (assignments of codebooks, numbers of entries)."""
    original = EMA._step_internal
    if is_replaced(original):
        return

    @functools.wraps(original)
    def step(self: Any, new_model: Any, updates: Any = None) -> None:
        integers = {key for key, value in new_model.state_dict().items() if not torch.is_floating_point(value)}
        self.skip_keys = set(self.skip_keys) | integers
        original(self, new_model, updates)

    replace(EMA, "_step_internal", original, step)


def after_building_models(change: Callable[[Any, Any], Any]) -> None:
    """Let ``change(model, cfg)`` have every model that fairseq builds from a configuration, and return what to use.

    Replaces a change of before.
    """
    original = getattr(models.build_model, PATCHED, models.build_model)

    @functools.wraps(original)
    def build_model(cfg: Any, task: Any, from_checkpoint: bool = False) -> Any:
        return change(original(cfg, task, from_checkpoint), cfg)

    replace(models, "build_model", original, build_model)
