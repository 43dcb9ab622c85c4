"""The plan in the configuration of a model, so that every checkpoint carries its own."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, open_dict

from fairseq_compress.weights.reading import parse_plan, plan_text
from fairseq_compress.weights.rules import Plan

KEY = "compression"
"""Of the configuration of a model: its plan, one line of JSON."""


def set_plan(cfg: Any, plan: Plan) -> None:
    """Store a plan in the configuration of a model; an empty one is none."""
    set_options(cfg, {KEY: plan_text(plan) if plan.weights or plan.activations else None})


def set_options(cfg: Any, values: Mapping[str, Any]) -> None:
    """Set options that need not exist yet in a configuration of any form: hydra's, a dict or a namespace."""
    if isinstance(cfg, DictConfig):
        with open_dict(cfg):
            cfg.update(values)
    else:
        (cfg if isinstance(cfg, dict) else vars(cfg)).update(values)


def plan_of(cfg: Any) -> Plan | None:
    """The plan in the configuration of a model."""
    text = cfg.get(KEY) if isinstance(cfg, Mapping) else getattr(cfg, KEY, None)
    return None if not text else parse_plan(text, "compression plan of the checkpoint")
