"""All glue for versions of fairseq, torch and numpy; nothing of it lives anywhere else.

What is mended, and why (each was tried with fairseq-fixed 0.12.3.1 and torch 2.13):

* :func:`patch_batch_by_size` - fairseq drops the last batch when its size is no multiple of
  ``--required-batch-size-multiple``: up to seven sentences of every set are never trained on, scored or translated.
* :func:`allow_checkpoint_classes` and :func:`patch_checkpoint_loading` - torch >= 2.6 unpickles with an allow-list.
  We add the exact classes that fairseq writes and turn every refusal into one clear line. Safety stays on.
  The same list lets several processes load a checkpoint, which fairseq sends from the first to the others as a pickle.
* :func:`patch_checkpoint_copies` - fairseq copies a new checkpoint over ``checkpoint_last.pt`` and
  ``checkpoint_best.pt`` in place: a training that is killed meanwhile leaves half a file, from which nothing resumes.
* :func:`patch_task_state` - fairseq saves the state of a task in every checkpoint and never loads it again.
* :func:`patch_learning_rate` - fairseq has one schedule of the learning rate for a training, and no place for a phase
  that comes before it; :func:`reset_optimizer` gives the training after such a phase an optimizer without moments.
* :func:`patch_average_of_weights` - fairseq's EMA (``--store-ema``) fails on integers in a state dict.
* :func:`after_building_models` - fairseq has no place in which to change a model between its making and the making of
  its optimizer, for whatever task builds it.
* :func:`install_excepthook` - ``fairseq-train`` reports our own errors as one line, with status 1.
"""

import argparse
import collections
import functools
import os
import pickle
import re
import struct
import sys
import zipfile
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import omegaconf
import torch
from fairseq import checkpoint_utils, models
from fairseq.data import data_utils
from fairseq.distributed import utils as distributed_utils
from fairseq.logging import metrics
from fairseq.models.ema.ema import EMA
from fairseq.optim.lr_scheduler.reduce_lr_on_plateau import ReduceLROnPlateauLRSchedule
from fairseq.trainer import Trainer

from fairseq_compress.errors import CheckpointError, ConfigError, FairseqCompressError

# Exactly the classes that checkpoints of fairseq are made of, beside tensors: Namespace holds the arguments of
# argparse-style models; the others are a configuration that was not turned into a plain dict (fairseq 1.0.0a, 2020-21).
CHECKPOINT_CLASSES: tuple[Any, ...] = (
    argparse.Namespace,
    omegaconf.DictConfig,
    omegaconf.ListConfig,
    omegaconf.base.ContainerMetadata,
    omegaconf.base.Metadata,
    omegaconf.nodes.AnyNode,
    collections.defaultdict,
    *(dict, list, str, int, float, bool),
    Any,
)

# fairseq's trainer sends a checkpoint from its first process to the others as a pickle with these in place of tensors:
# without them no training of several processes can resume, or start from another model.
_BROADCAST_CLASSES = (distributed_utils._TensorPlaceholder,)

# A damaged file fails in as many ways as there are bytes to flip.
_DAMAGED = (
    *(AttributeError, EOFError, IndexError, KeyError, OSError, OverflowError, RuntimeError, TypeError, ValueError),
    *(struct.error, zipfile.BadZipFile),
)
_OTHER_FORMATS: list[tuple[Callable[[str], bool], Callable[[str], dict[str, Any]]]] = []
_PATCHED = "_fairseq_compress_original"


def apply() -> None:
    """Apply every mend of this module. Calling it again changes nothing."""
    allow_checkpoint_classes()
    patch_batch_by_size()
    patch_checkpoint_loading()
    patch_checkpoint_copies()
    patch_task_state()
    patch_learning_rate()
    patch_average_of_weights()
    install_excepthook()


def allow_checkpoint_classes() -> None:
    """Let ``torch.load(weights_only=True)`` build the classes of checkpoints and broadcasts, and no other class."""
    torch.serialization.add_safe_globals([*CHECKPOINT_CLASSES, *_BROADCAST_CLASSES])


def patch_batch_by_size() -> None:
    """Give back the last batch that ``fairseq.data.data_utils.batch_by_size`` drops.

    fairseq cuts the ordered ``indices`` into consecutive batches; what is missing from the result is therefore
    always its tail, and that tail was one batch within all limits.
    """
    original = data_utils.batch_by_size
    if hasattr(original, _PATCHED):
        return

    @functools.wraps(original)
    def batch_by_size(indices: Any, *args: Any, **kwargs: Any) -> Sequence[np.ndarray]:
        if not isinstance(indices, np.ndarray):
            indices = np.fromiter(indices, dtype=np.int64, count=-1)
        if len(indices) == 0:  # fairseq would raise IndexError
            return []
        batches = original(indices, *args, **kwargs)
        kept = sum(len(batch) for batch in batches)
        return batches if kept == len(indices) else [*batches, indices[kept:]]

    _replace(data_utils, "batch_by_size", original, batch_by_size)


def patch_checkpoint_loading() -> None:
    """Make fairseq's own loader raise :class:`CheckpointError` with one clear line for a file it cannot load."""
    original = checkpoint_utils.load_checkpoint_to_cpu
    if hasattr(original, _PATCHED):
        return

    @functools.wraps(original)
    def load_checkpoint_to_cpu(
        path: str, arg_overrides: dict[str, Any] | None = None, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        for recognizes, read in _OTHER_FORMATS:
            if recognizes(path):
                return _as_fairseq_has_it(read(path), arg_overrides)
        return guarded_load(path, lambda: original(path, arg_overrides, *args, **kwargs))

    _replace(checkpoint_utils, "load_checkpoint_to_cpu", original, load_checkpoint_to_cpu)


def read_checkpoints_also(recognizes: Callable[[str], bool], read: Callable[[str], dict[str, Any]]) -> None:
    """Let fairseq's loader read files of another format.

    Args:
        recognizes: whether a path is such a file.
        read: its path -> a checkpoint in today's layout, with ``cfg`` in plain values and namespaces.
    """
    if (recognizes, read) not in _OTHER_FORMATS:
        _OTHER_FORMATS.append((recognizes, read))


def _as_fairseq_has_it(state: dict[str, Any], arg_overrides: dict[str, Any] | None) -> dict[str, Any]:
    """What fairseq's loader does after unpickling."""
    state["cfg"] = omegaconf.OmegaConf.create(state["cfg"], flags={"allow_objects": True})
    if arg_overrides is not None:
        checkpoint_utils.overwrite_args_by_name(state["cfg"], arg_overrides)
    return state


def patch_checkpoint_copies() -> None:
    """Make fairseq's copies of checkpoints appear whole or not at all, as what it saves itself does."""
    manager = checkpoint_utils.PathManager
    original = manager.copy
    if hasattr(original, _PATCHED):
        return

    @functools.wraps(original)
    def copy(src_path: str, dst_path: str, overwrite: bool = False) -> Any:
        if not manager.supports_rename(dst_path):  # it is on another machine
            return original(src_path, dst_path, overwrite=overwrite)
        copied = original(src_path, f"{dst_path}.tmp", overwrite=True)
        os.replace(f"{dst_path}.tmp", dst_path)
        return copied

    _replace(manager, "copy", original, copy)


def patch_task_state() -> None:
    """Give a resumed training its task's state back. ``extra_state`` is what reaches every process."""
    save, load = Trainer.state_dict, Trainer.load_checkpoint
    if hasattr(load, _PATCHED):
        return

    @functools.wraps(save)
    def state_dict(self: Any) -> dict[str, Any]:
        state: dict[str, Any] = save(self)
        state["extra_state"]["task_state"] = state["task_state"]
        return state

    @functools.wraps(load)
    def load_checkpoint(self: Any, filename: str, reset_optimizer: bool = False, *args: Any, **kwargs: Any) -> Any:
        extra_state = load(self, filename, reset_optimizer, *args, **kwargs)
        if extra_state and not reset_optimizer:  # with another optimizer it is another training
            self.task.load_state_dict(extra_state.pop("task_state", {}))
        return extra_state

    _replace(Trainer, "state_dict", save, state_dict)
    _replace(Trainer, "load_checkpoint", load, load_checkpoint)


def patch_learning_rate() -> None:
    """Let a task begin its schedule of the learning rate late: with ``learning_rate(update)``, if it has it.

    That gives the updates which the scheduler is told of, and a factor of ``--lr`` where that counts instead, or None.
    """
    original = Trainer.lr_step_update
    if hasattr(original, _PATCHED):
        return

    @functools.wraps(original)
    def lr_step_update(self: Any) -> Any:
        made = self.get_num_updates()
        ask = getattr(self.task, "learning_rate", lambda update: (update, None))
        self._num_updates, factor = ask(made)
        try:
            if self._num_updates != made or factor is not None:
                _check_schedule(self)
            rate = original(self)
        finally:
            self._num_updates = made
        if factor is not None:
            rate = factor * self.cfg.optimization.lr[0]
            self.optimizer.set_lr(rate)
            metrics.log_scalar("lr", rate, weight=0, priority=300)
        return rate

    _replace(Trainer, "lr_step_update", original, lr_step_update)


def _check_schedule(trainer: Any) -> None:
    """Refuse what a second phase cannot start again: a rate that is kept in the optimizer, several optimizers."""
    schedules = "--lr-scheduler: must be inverse_sqrt, polynomial_decay, cosine, fixed or another that counts updates"
    if isinstance(trainer.lr_scheduler, ReduceLROnPlateauLRSchedule):
        raise ConfigError(f"{schedules}, in a training of two phases, got reduce_lr_on_plateau")
    if not hasattr(trainer.optimizer.optimizer, "state"):
        raise ConfigError("--optimizer: must be a single one in a training of two phases, got composite")


def reset_optimizer(optimizer: Any) -> None:
    """Set the moments and step counts of a fairseq optimizer to zero, as they are in a new one."""
    inner = optimizer.optimizer
    for state in inner.state.values():
        for name, value in state.items():
            state[name] = torch.zeros_like(value) if torch.is_tensor(value) else type(value)(0)
    for group in inner.param_groups:
        if "step" in group:
            group["step"] = 0


def patch_average_of_weights() -> None:
    """Let the exponential moving average copy integers (assignments of codebooks, numbers of entries)."""
    original = EMA._step_internal
    if hasattr(original, _PATCHED):
        return

    @functools.wraps(original)
    def step(self: Any, new_model: Any, updates: Any = None) -> None:
        integers = {key for key, value in new_model.state_dict().items() if not torch.is_floating_point(value)}
        self.skip_keys = set(self.skip_keys) | integers
        original(self, new_model, updates)

    _replace(EMA, "_step_internal", original, step)


def after_building_models(change: Callable[[Any, Any], Any]) -> None:
    """Let ``change(model, cfg)`` have every model that fairseq builds from a configuration, and return what to use.

    Replaces a change of before.
    """
    original = getattr(models.build_model, _PATCHED, models.build_model)

    @functools.wraps(original)
    def build_model(cfg: Any, task: Any, from_checkpoint: bool = False) -> Any:
        return change(original(cfg, task, from_checkpoint), cfg)

    _replace(models, "build_model", original, build_model)


def guarded_load(path: str, load: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run ``load()`` and translate what goes wrong with the file at ``path``.

    Raises:
        CheckpointError: the file is missing, empty, truncated, no checkpoint, or holds a class that is not allowed.
    """
    try:
        return load()
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {path}: no such file") from None
    except IsADirectoryError:
        raise CheckpointError(f"checkpoint {path}: is a directory, a file is needed") from None
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"checkpoint {path}: refused, {_refused_class(str(error))}") from None
    except _DAMAGED as error:
        cause = f"{type(error).__name__}: {_first_line(error)}"
        raise CheckpointError(f"checkpoint {path}: truncated, or not a checkpoint of fairseq ({cause})") from None


def _refused_class(message: str) -> str:
    """The part of torch's long message that a user needs: which class was refused."""
    for name in re.findall(r"[Uu]nsupported (?:global: )?GLOBAL (\S+)", message):
        return f"it holds the class {name}, which is not on the list of classes that a checkpoint may hold"
    return f"it is not a safe checkpoint ({_first_line(message)})"


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def install_excepthook() -> None:
    """Print an uncaught :class:`FairseqCompressError` as one line; Python then exits with status 1.

    ``fairseq-hydra-train`` would print a traceback of its own, unless it is told to let errors through.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    previous = sys.excepthook
    if hasattr(previous, _PATCHED):
        return

    def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        ours: BaseException | None = error
        while ours is not None and not isinstance(ours, FairseqCompressError):
            ours = ours.__context__  # fairseq's trainer hides what went wrong behind "cannot load model parameters"
        if ours is None:
            previous(kind, error, trace)
        else:
            print(f"fairseq-compress: error: {ours}", file=sys.stderr)

    _replace(sys, "excepthook", previous, excepthook)


def _replace(module: Any, name: str, original: Callable[..., Any], replacement: Callable[..., Any]) -> None:
    setattr(replacement, _PATCHED, original)
    setattr(module, name, replacement)
