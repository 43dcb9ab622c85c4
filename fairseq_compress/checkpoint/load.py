"""Loading checkpoints, plain or packed, and their models."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from fairseq import checkpoint_utils
from fairseq.data import Dictionary
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.models import BaseFairseqModel
from fairseq.tasks import TASK_REGISTRY
from fairseq.tasks.translation import TranslationTask
from omegaconf import DictConfig
from torch import Tensor

import fairseq_compress
from fairseq_compress import compat
from fairseq_compress.checkpoint.packed_file import is_packed, read_packed, unpacked_weights
from fairseq_compress.checkpoint.state import without_training_state
from fairseq_compress.errors import CheckpointError
from fairseq_compress.weights.reading import plan_of, set_plan
from fairseq_compress.weights.rules import Plan
from fairseq_compress.work.files import PathLike

TABLES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


class TrainedModel(NamedTuple):
    """A checkpoint and its model."""

    path: PathLike
    state: dict[str, Any]
    """The whole dictionary of the checkpoint."""
    cfg: DictConfig
    dictionaries: tuple[Dictionary, Dictionary]
    """Stand-ins, of :func:`dictionaries_of`."""
    model: Any


def load_state(path: PathLike) -> dict[str, Any]:
    """The whole dictionary of a checkpoint file, on the CPU; tensors that shared storage still share it.

    Unpickles with ``weights_only=True`` and the exact classes of :data:`compat.CHECKPOINT_CLASSES`.
    """
    if is_packed(path):
        return unpacked_state(path)
    compat.allow_checkpoint_classes()
    return compat.guarded_load(
        str(path),
        lambda: compat.completed_state(torch.load(path, map_location="cpu", weights_only=True, mmap=_can_map(path))),
    )


def unpacked_state(path: PathLike) -> dict[str, Any]:
    """A packed checkpoint as fairseq reads it: dense weights, and of its plan the activations."""
    model = read_packed(path)
    plan = plan_of(model.cfg["model"])
    if plan is not None:
        set_plan(model.cfg["model"], Plan((), plan.activations))
    state = {"args": None, "cfg": model.cfg, "model": unpacked_weights(path, model), "task_state": {}}
    return without_training_state(state)


def _can_map(path: PathLike) -> bool:
    """Memory-mapping requires the zip format of torch 1.6 and newer."""
    try:
        with open(path, "rb") as file:
            return file.read(2) == b"PK"
    except OSError:
        return False  # torch.load gives the error


def load_upgraded(path: PathLike) -> tuple[dict[str, Any], DictConfig]:
    """A checkpoint upgraded to today's layout by fairseq, and its configuration (old ``args`` converted)."""
    fairseq_compress.register()  # the classes of its model and task
    state = checkpoint_utils.load_checkpoint_to_cpu(str(path))
    if state.get("cfg") is not None:
        return state, state["cfg"]
    if state.get("args") is not None:
        return state, convert_namespace_to_omegaconf(state["args"])
    raise CheckpointError(f"checkpoint {path}: holds neither 'cfg' nor 'args', so the model cannot be built")


def load_model(path: PathLike) -> TrainedModel:
    """The trained model of a checkpoint, packed or not."""
    state, cfg = load_upgraded(path)
    dictionaries = dictionaries_of(state["model"])
    return TrainedModel(path, state, cfg, dictionaries, build_model(path, state, cfg, *dictionaries))


def build_model(
    path: PathLike, state: dict[str, Any], cfg: DictConfig, source: Dictionary, target: Dictionary
) -> BaseFairseqModel:
    """The trained model of a translation checkpoint, built by the task that trained it over the given dictionaries."""
    model = new_model(path, cfg, source, target)
    try:
        model.load_state_dict(state["model"], strict=True, model_cfg=cfg.model)
    except RuntimeError as error:
        details = " ".join(str(error).split())
        raise CheckpointError(f"checkpoint {path}: its weights do not fit its architecture: {details}") from None
    return model


def new_model(path: PathLike, cfg: DictConfig, source: Dictionary, target: Dictionary) -> BaseFairseqModel:
    """As :func:`build_model`, without the weights."""
    return task_of(path, cfg)(cfg.task, source, target).build_model(cfg.model, from_checkpoint=True)


def task_of(path: PathLike, cfg: DictConfig, translates: bool = False) -> Any:
    """The class of the task that trained a checkpoint: ``translation`` or one derived from it, or a task of a plugin.

    Args:
        translates: refuse tasks of fairseq that add language tokens or decode in other ways than ``translation``.

    Raises:
        CheckpointError: it is another task of fairseq, such as those of many languages, which have other dictionaries.
    """
    name = cfg.task._name
    task = TASK_REGISTRY.get(name)
    if task is None:
        raise CheckpointError(f"checkpoint {path}: was trained with the unknown task '{name}'")
    fits = name == "translation" if translates else issubclass(task, TranslationTask)
    if task.__module__.startswith("fairseq.") and not fits:
        raise CheckpointError(f"checkpoint {path}: must be of the task translation, got {name}")
    return task


def dictionaries_of(weights: Mapping[str, Tensor]) -> tuple[Dictionary, Dictionary]:
    """Stand-ins of the right size; a model keeps of a dictionary only its size and the ids of the special symbols."""
    found = []
    for key in TABLES:
        entries = Dictionary()
        for index in range(len(entries), table_rows(weights, key)):
            entries.add_symbol(f"w{index}")
        found.append(entries)
    return found[0], found[1]


def table_rows(weights: Mapping[str, Tensor], key: str) -> int:
    """Entries of a table that is dense, made of centroids, factorized or a tensor train; 0 if there is none."""
    stem = key.removesuffix("weight")
    if stem + "entries" in weights:
        return int(weights[stem + "entries"])
    for rows in ("weight", "weight_transform.assignments", "table.weight", "table.weight_transform.assignments"):
        if stem + rows in weights:
            return weights[stem + rows].size(0)
    return 0
