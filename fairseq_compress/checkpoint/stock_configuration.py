"""The configuration of a checkpoint with the task and the criterion of stock fairseq in place of ours."""

import argparse
import dataclasses
from typing import Any

from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
from fairseq.tasks.translation import TranslationConfig
from omegaconf import DictConfig, OmegaConf


def stock_configuration(cfg: DictConfig) -> dict[str, Any]:
    """The configuration but for its group ``model``, as a dict of plain values.

    The task is ``translation``, with what it knows of the options of the one that trained; a criterion that is not
    fairseq's becomes ``cross_entropy``. Namespaces, of what has no dataclass in fairseq, become tables, so that
    torch >= 2.6 loads the file without being told of any class.
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
