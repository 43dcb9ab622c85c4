"""The dictionary of a checkpoint: training state, configuration, writing."""

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, TypeVar

import torch
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
from fairseq.tasks.translation import TranslationConfig
from omegaconf import DictConfig, OmegaConf

from fairseq_compress.architecture.configuration import implied_flags
from fairseq_compress.architecture.flags import DEFAULTS, KEY
from fairseq_compress.architecture.reading import to_json
from fairseq_compress.architecture.shape import Architecture
from fairseq_compress.compat import START_OF_DATA
from fairseq_compress.weights.reading import set_options
from fairseq_compress.work.files import PathLike, atomic_write, check_distinct

Made = TypeVar("Made")


def num_updates(state: Mapping[str, Any]) -> int:
    """Updates that the model was trained for."""
    history = state.get("optimizer_history") or [{}]
    return int(history[-1].get("num_updates", 0))


def without_training_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """``state`` with the minimum that fairseq loads instead of states of optimizer, iterator, criterion and task."""
    last = (state.get("optimizer_history") or [{}])[-1]
    names = {key: last.get(key) for key in ("criterion_name", "optimizer_name")}
    return dict(state) | {
        # fairseq calls model.set_num_updates with this number, for generation too.
        "optimizer_history": [names | {"lr_scheduler_state": {}, "num_updates": num_updates(state)}],
        "last_optimizer_state": None,
        "criterion": None,
        "task_state": {},
        "extra_state": {"train_iterator": dict(START_OF_DATA)},
    }


def with_model(state: Mapping[str, Any], cfg: Mapping[str, Any], weights: Mapping[str, Any]) -> dict[str, Any]:
    """``state`` with another configuration and model, without the state of its training."""
    return without_training_state(state) | {"args": None, "cfg": cfg, "model": weights}


def set_architecture(cfg: Any, architecture: Architecture) -> None:
    """Set the architecture in a model's configuration; flat options that gave another get their defaults."""
    flat = {name: value for name, value in vars(DEFAULTS).items() if getattr(cfg, name, None) is not None}
    set_options(cfg, flat | implied_flags(architecture) | {KEY: to_json(architecture)})


def plain_cfg(cfg: DictConfig) -> dict[str, Any]:
    """A configuration as fairseq's trainer saves it: plain values, and namespaces of the command line."""
    container: Any = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    return {str(name): value for name, value in container.items()}


def stock_configuration(cfg: DictConfig) -> dict[str, Any]:
    """The configuration but for its group ``model``, as a dict of plain values.

    The task is ``translation`` with its own options; a criterion that is not fairseq's becomes ``cross_entropy``.
    Namespaces become tables, which torch >= 2.6 loads.
    """
    groups = {name: group for name, group in cfg.items() if name != "model"}
    container = OmegaConf.create(groups, flags={"allow_objects": True})
    plain: Any = OmegaConf.to_container(container, resolve=True)
    for name, group in plain.items():
        if isinstance(group, argparse.Namespace):  # such as of --optimizer sgd
            plain[name] = vars(group)
    known = {field.name for field in dataclasses.fields(TranslationConfig)}
    plain["task"] = {name: value for name, value in plain["task"].items() if name in known} | {"_name": "translation"}
    if (plain.get("criterion") or {}).get("_name") not in _stock_criterions():
        plain["criterion"] = {"_name": "cross_entropy", "sentence_avg": False}
    return dict(plain)


def _stock_criterions() -> set[str]:
    return {
        name
        for name, config in CRITERION_DATACLASS_REGISTRY.items()
        if config.__module__.startswith("fairseq.criterions")
    }


def write_state(state: Mapping[str, Any], path: PathLike) -> None:
    """Write a checkpoint under a temporary name, then rename it."""
    with atomic_write(path, "wb") as file:
        torch.save(dict(state), file)


def write_converted(
    inputs: Sequence[PathLike],
    output: PathLike,
    convert: Callable[[], Made],
    state_of: Callable[[Made], Mapping[str, Any]] = attrgetter("state"),
) -> Made:
    """Write the state of what ``convert()`` returns and return it, for every command that makes a checkpoint."""
    check_distinct(inputs, [output])
    made = convert()
    write_state(state_of(made), output)
    return made
