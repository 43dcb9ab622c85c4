"""Load checkpoints safely: of any version of fairseq, also reduced ones, with one clear line for each failure."""

import argparse
import collections
import functools
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import omegaconf
import torch
from fairseq import checkpoint_utils
from fairseq.distributed import utils as distributed_utils

from fairseq_compress.compat.numpy_values import NUMPY_CLASSES, plain_arrays
from fairseq_compress.compat.replacing import is_replaced, replace
from fairseq_compress.errors import CheckpointError

# The classes in fairseq's checkpoints besides tensors and numpy values: Namespace holds the arguments of older models,
# the others are a configuration of fairseq 1.0.0a (2020-21).
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

# Errors that damaged files cause.
_DAMAGED = (
    *(AttributeError, EOFError, IndexError, KeyError, OSError, OverflowError, RuntimeError, TypeError, ValueError),
    *(struct.error, zipfile.BadZipFile),
)
# State of fairseq's epoch iterator at the start of the data.
START_OF_DATA = {"version": 2, "epoch": 1, "iterations_in_epoch": 0, "shuffle": True}
_OTHER_FORMATS: list[tuple[Callable[[str], bool], Callable[[str], dict[str, Any]]]] = []


def allow_checkpoint_classes() -> None:
    """Allow ``torch.load(weights_only=True)`` the classes of checkpoints and broadcasts, and no others."""
    torch.serialization.add_safe_globals([*CHECKPOINT_CLASSES, *_BROADCAST_CLASSES])


def patch_checkpoint_loading() -> None:
    """Make fairseq's own loader raise :class:`CheckpointError` with one clear line for a file it cannot load.

    It also takes checkpoints of weights and configuration alone (see :func:`completed_state`).
    """
    original, upgrade = checkpoint_utils.load_checkpoint_to_cpu, checkpoint_utils._upgrade_state_dict
    if is_replaced(original):
        return

    @functools.wraps(upgrade)
    def upgrade_state_dict(state: dict[str, Any]) -> dict[str, Any]:
        upgraded: dict[str, Any] = upgrade(completed_state(state))
        return upgraded

    @functools.wraps(original)
    def load_checkpoint_to_cpu(
        path: str, arg_overrides: dict[str, Any] | None = None, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        for recognizes, read in _OTHER_FORMATS:
            if recognizes(path):
                return _as_fairseq_has_it(read(path), arg_overrides)
        return guarded_load(path, lambda: original(path, arg_overrides, *args, **kwargs))

    replace(checkpoint_utils, "_upgrade_state_dict", upgrade, upgrade_state_dict)
    replace(checkpoint_utils, "load_checkpoint_to_cpu", original, load_checkpoint_to_cpu)


def completed_state(state: Any) -> dict[str, Any]:
    """Complete a reduced checkpoint with the minimum that fairseq's loaders require.

    Released models often hold ``model`` and ``cfg`` (or ``args``) alone: no optimizer, number of updates or
    position in the data. Training then starts at the beginning of the data with a new optimizer.
    """
    if not isinstance(state, dict) or not isinstance(state.get("model"), Mapping):
        raise CheckpointError("has no weights under the key 'model', so fairseq did not write it")
    if not state.get("optimizer_history") and "best_loss" not in state:  # fairseq of 2017 had no history
        names = {"criterion_name": None, "optimizer_name": None}
        state["optimizer_history"] = [names | {"lr_scheduler_state": {}, "num_updates": 0}]
        state["last_optimizer_state"] = None
    state.setdefault("criterion", None)
    extra = state.get("extra_state")
    if "epoch" not in state and not (isinstance(extra, dict) and {"train_iterator", "epoch"} & set(extra)):
        state["extra_state"] = (extra if isinstance(extra, dict) else {}) | {"train_iterator": dict(START_OF_DATA)}
    return state


def read_checkpoints_also(recognizes: Callable[[str], bool], read: Callable[[str], dict[str, Any]]) -> None:
    """Let fairseq's loader read files of another format.

    Args:
        recognizes: whether a path is such a file.
        read: its path -> a checkpoint in today's layout, with ``cfg`` in plain values and namespaces.
    """
    if (recognizes, read) not in _OTHER_FORMATS:
        _OTHER_FORMATS.append((recognizes, read))


def _as_fairseq_has_it(state: dict[str, Any], arg_overrides: dict[str, Any] | None) -> dict[str, Any]:
    """The steps of fairseq's loader after unpickling."""
    state["cfg"] = omegaconf.OmegaConf.create(state["cfg"], flags={"allow_objects": True})
    if arg_overrides is not None:
        checkpoint_utils.overwrite_args_by_name(state["cfg"], arg_overrides)
    return state


def guarded_load(path: str, load: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run ``load()`` and translate its errors about the file ``path``."""
    try:
        state: dict[str, Any] = _with_numpy_values(load)
        return state
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {path}: {error}") from None
    except (FileNotFoundError, IsADirectoryError):
        problem = "is a directory, a file is needed" if os.path.isdir(path) else "no such file"
        raise CheckpointError(f"checkpoint {path}: {problem}") from None
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"checkpoint {path}: refused, {_refused_class(str(error))}") from None
    except _DAMAGED as error:
        cause = f"{type(error).__name__}: {_first_line(error)}"
        raise CheckpointError(f"checkpoint {path}: truncated, or not a checkpoint of fairseq ({cause})") from None


def patch_checkpoint_broadcast() -> None:
    """Allow numpy values in the checkpoint that the first process of a training broadcasts."""
    original = distributed_utils._broadcast_object_slow
    if is_replaced(original):
        return

    @functools.wraps(original)
    def broadcast(*args: Any, **kwargs: Any) -> Any:
        return _with_numpy_values(lambda: original(*args, **kwargs))

    replace(distributed_utils, "_broadcast_object_slow", original, broadcast)


def _with_numpy_values(load: Callable[[], Any]) -> Any:
    """Run ``load()`` with numpy's values on torch's list of allowed classes."""
    with torch.serialization.safe_globals(list(NUMPY_CLASSES)):
        return plain_arrays(load())


def _refused_class(message: str) -> str:
    """The refused class in torch's long message."""
    for name in re.findall(r"[Uu]nsupported (?:global: )?GLOBAL (\S+)", message):
        return f"it holds the class {name}, which is not on the list of classes that a checkpoint may hold"
    found = re.search(r"WeightsUnpickler error:\s*(.+)", message)
    cause = found[1] if found else _first_line(message)
    return cause if cause.startswith("it holds") else f"it is not a safe checkpoint ({cause})"


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
