"""The plan in the configuration of a model, so that every checkpoint carries its own."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, open_dict
from torch import nn

from fairseq_compress.errors import ConfigError
from fairseq_compress.plans.attaching import attach_plan
from fairseq_compress.plans.reading import parse_plan, plan_text
from fairseq_compress.plans.rules import Plan

KEY = "compression"
"""Of the configuration of a model: its plan, one line of JSON."""


def set_plan(cfg: Any, plan: Plan) -> None:
    """Keep a plan in the configuration of a model; an empty one is none."""
    text = plan_text(plan) if plan.weights or plan.activations else None
    if isinstance(cfg, DictConfig):
        with open_dict(cfg):
            cfg[KEY] = text
    elif isinstance(cfg, dict):
        cfg[KEY] = text
    else:
        setattr(cfg, KEY, text)


def plan_of(cfg: Any) -> Plan | None:
    """The plan in the configuration of a model.

    Raises:
        ConfigError: it is damaged.
    """
    text = cfg.get(KEY) if isinstance(cfg, Mapping) else getattr(cfg, KEY, None)
    return None if not text else parse_plan(text, "compression plan of the checkpoint")


def compress_trained(model: nn.Module, cfg: Any, plan: Plan) -> None:
    """Compress a trained model that has no plan, and keep the plan in its configuration.

    Raises:
        ConfigError: it has one; or the plan does not fit.
    """
    if plan_of(cfg) is not None:
        raise ConfigError("--plan: the model has a plan already, with which it was trained")
    attach_plan(plan, model, filled=True)
    set_plan(cfg, plan)
