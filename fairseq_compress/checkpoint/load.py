"""Loading a checkpoint of fairseq: safely, and with errors that say what is wrong with the file."""

import os
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.data import Dictionary
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.models import BaseFairseqModel
from fairseq.tasks import TASK_REGISTRY
from omegaconf import DictConfig

import fairseq_compress
from fairseq_compress import compat
from fairseq_compress.checkpoint.packed_file import is_packed
from fairseq_compress.checkpoint.unpack import unpacked_state
from fairseq_compress.errors import CheckpointError


def load_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The whole dictionary of a checkpoint file, on the CPU; tensors that shared storage still share it.

    Unpickles with ``weights_only=True`` and the exact classes of :data:`compat.CHECKPOINT_CLASSES`.

    Raises:
        CheckpointError: the file is missing, truncated, unsafe, or has no weights under ``model``.
    """
    if is_packed(path):
        return unpacked_state(path)
    compat.allow_checkpoint_classes()
    return compat.guarded_load(
        str(path),
        lambda: compat.completed_state(torch.load(path, map_location="cpu", weights_only=True, mmap=_can_map(path))),
    )


def _can_map(path: str | os.PathLike[str]) -> bool:
    """Memory-mapping needs the zip format that torch writes since 1.6; older files are read whole."""
    try:
        with open(path, "rb") as file:
            return file.read(2) == b"PK"
    except OSError:
        return False  # torch.load gives the error


def load_upgraded(path: str | os.PathLike[str]) -> tuple[dict[str, Any], DictConfig]:
    """A checkpoint upgraded to today's layout by fairseq, and its configuration (old ``args`` converted).

    Raises:
        CheckpointError: as :func:`load_state`, or there is no configuration inside.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"checkpoint {path}: no such file")
    fairseq_compress.register()  # the classes of its model and task
    state = checkpoint_utils.load_checkpoint_to_cpu(str(path))
    if state.get("cfg") is not None:
        return state, state["cfg"]
    if state.get("args") is not None:
        return state, convert_namespace_to_omegaconf(state["args"])
    raise CheckpointError(f"checkpoint {path}: holds neither 'cfg' nor 'args', so the model cannot be built")


def build_model(
    path: str | os.PathLike[str], state: dict[str, Any], cfg: DictConfig, source: Dictionary, target: Dictionary
) -> BaseFairseqModel:
    """The trained model of a translation checkpoint, built by the task that trained it over the given dictionaries.

    Raises:
        CheckpointError: the task is unknown here, or weights and architecture do not fit each other.
    """
    model = new_model(path, cfg, source, target)
    try:
        model.load_state_dict(state["model"], strict=True, model_cfg=cfg.model)
    except RuntimeError as error:
        details = " ".join(str(error).split())
        raise CheckpointError(f"checkpoint {path}: its weights do not fit its architecture: {details}") from None
    return model


def new_model(
    path: str | os.PathLike[str], cfg: DictConfig, source: Dictionary, target: Dictionary
) -> BaseFairseqModel:
    """As :func:`build_model`, without the weights.

    Raises:
        CheckpointError: the task is unknown here.
    """
    task_class = TASK_REGISTRY.get(cfg.task._name)
    if task_class is None:
        raise CheckpointError(f"checkpoint {path}: was trained with the unknown task '{cfg.task._name}'")
    model: BaseFairseqModel = task_class(cfg.task, source, target).build_model(cfg.model, from_checkpoint=True)
    return model
