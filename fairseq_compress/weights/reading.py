"""YAML to a checked plan, and a plan to one line of JSON, in files and in the configuration of a model."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, open_dict

from fairseq_compress.errors import ConfigError
from fairseq_compress.options import raise_problems, read
from fairseq_compress.shipped import did_you_mean, shipped, shipped_names
from fairseq_compress.weights.rules import METHODS, ActivationRule, Plan, WeightRule

PLANS, SUFFIX = "plans", ".yaml"
KEY = "compression"
"""The option of a model with its plan, one line of JSON, so that every checkpoint has its own."""


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """The plan of a YAML file, or a built-in one by its name: ``int4`` is ``configs/plans/int4.yaml``."""
    origin = f"compression plan {path}"
    path = Path(path)
    if not path.is_file() and path.name == str(path) and not path.suffix:
        path = built_in_plan(str(path))
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        built_in = f"; {path.stem} is a built-in plan" if path.stem in shipped_names(PLANS, suffix=SUFFIX) else ""
        raise ConfigError(f"{origin}: cannot be read: {error.strerror}{built_in}") from None
    except ValueError:
        raise ConfigError(f"{origin}: must be text in UTF-8") from None
    return parse_plan(text, origin)


def built_in_plan(name: str) -> Path:
    """The file of a built-in plan."""
    known = shipped_names(PLANS, suffix=SUFFIX)
    if name not in known:
        raise ConfigError(f"compression plan {name}: neither a file nor a built-in plan{did_you_mean(name, known)}")
    return shipped(PLANS, name + SUFFIX)


def parse_plan(text: str, origin: str = "compression plan") -> Plan:
    """The plan of a text; ``origin`` names it in messages. Raises as :func:`read_plan`."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin}: must be YAML: {' '.join(str(error).split())}") from None
    found: list[str] = []
    lists = read(_Lists, value, found)
    rules = [_weight_rule(rule, found, f"weights[{number}]") for number, rule in enumerate(_items(value, "weights"))]
    if not found and not _items(value, "weights") and not _items(value, "activations"):
        found.append("must have a rule in weights or activations")
    raise_problems(found, origin)
    assert lists is not None
    return Plan(tuple(rule for rule in rules if rule is not None), lists.activations)


def plan_text(plan: Plan) -> str:
    """The plan in one line with every key, the inverse of :func:`parse_plan`."""
    return json.dumps(asdict(plan))


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


@dataclass(frozen=True)
class _Lists:
    """A plan whose rules for weights are not read yet: their methods say how."""

    weights: tuple[Any, ...] = ()
    activations: tuple[ActivationRule, ...] = ()


def _items(value: Any, key: str) -> list[Any]:
    found = value.get(key) if isinstance(value, Mapping) else None
    return found if isinstance(found, list) else []


def _weight_rule(value: Any, found: list[str], place: str) -> WeightRule | None:
    name = value.get("method", "linear") if isinstance(value, Mapping) else "linear"
    if not isinstance(name, str) or name not in METHODS:
        found.append(f"{place}.method: must be one of {', '.join(METHODS)}, got {repr(name)[:50]}")
        return None
    return read(METHODS[name], value, found, place)
