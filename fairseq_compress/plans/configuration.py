"""The plan in the configuration of a model, so that every checkpoint carries its own."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, open_dict

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
