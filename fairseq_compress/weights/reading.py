"""YAML to a checked plan, and a plan to one line of JSON, which is YAML too."""

import json
import os
import re
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from fairseq_compress.errors import ConfigError
from fairseq_compress.shipped import did_you_mean, shipped, shipped_names
from fairseq_compress.weights.rules import METHODS, Plan, WeightRule

PLANS, SUFFIX = "plans", ".yaml"
EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """The plan of a YAML file, or a built-in one by its name: ``int4`` is ``configs/plans/int4.yaml``.

    Raises:
        ConfigError: it cannot be read, or breaks a rule; the message has all problems.
    """
    origin = f"compression plan {path}"
    path = Path(path)
    if not path.is_file() and path.name == str(path) and not path.suffix:
        path = built_in_plan(str(path))
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        names = shipped_names(PLANS, suffix=SUFFIX)
        built_in = f"; {path.stem} is a built-in plan" if path.stem in names else ""
        raise ConfigError(f"{origin}: cannot be read: {error.strerror}{built_in}") from None
    except ValueError:
        raise ConfigError(f"{origin}: must be text in UTF-8") from None
    return parse_plan(text, origin)


def built_in_plan(name: str) -> Path:
    """The file of a built-in plan.

    Raises:
        ConfigError: unknown name.
    """
    known = shipped_names(PLANS, suffix=SUFFIX)
    if name not in known:
        raise ConfigError(f"compression plan {name}: neither a file nor a built-in plan{did_you_mean(name, known)}")
    return shipped(PLANS, name + SUFFIX)


def parse_plan(text: str, origin: str = "compression plan") -> Plan:
    """The plan of a text; ``origin`` names it in messages. Raises as :func:`read_plan`."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin}: must be YAML: {' '.join(str(error).split())}") from None
    problems: list[str] = []
    plan: Plan = _build(Plan, found, "", problems)
    if not problems and not plan.weights and not plan.activations:
        problems.append("must have a rule in weights or activations")
    if problems:
        raise ConfigError(f"{origin}: {'; '.join(problems)}")
    return plan


def plan_text(plan: Plan) -> str:
    """The plan in one line, every key written out; :func:`parse_plan` gives the same plan again."""
    return json.dumps(asdict(plan))


def _build(kind: Any, value: Any, place: str, problems: list[str]) -> Any:
    """``value`` as a ``kind``; what does not fit is added to ``problems``, and None takes its place."""
    if isinstance(kind, UnionType):  # float | None
        return None if value is None else _build(get_args(kind)[0], value, place, problems)
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            problems.append(f"{place}: must be a list, got {_shown(value)}")
            return ()
        return tuple(
            _build(get_args(kind)[0], item, f"{place}[{number}]", problems) for number, item in enumerate(value)
        )
    if is_dataclass(kind):
        return _build_rule(kind, value, place, problems)
    if kind is float and (type(value) is int or (isinstance(value, str) and EXPONENT.fullmatch(value))):
        return float(value)  # YAML 1.1 takes 1e-05, as JSON writes it, for a text
    if type(value) is not kind:
        problems.append(f"{place}: must be of type {kind.__name__}, got {_shown(value)}")
        return None
    return value


def _build_rule(kind: Any, value: Any, place: str, problems: list[str]) -> Any:
    where = f"{place}." if place else ""
    if not isinstance(value, dict):
        problems.append(f"{place or 'the plan'}: must be a table of keys, got {_shown(value)}")
        return None
    if kind is WeightRule:
        method = value.get("method", "linear")
        if method not in METHODS:
            problems.append(f"{where}method: must be one of {', '.join(METHODS)}, got {_shown(method)}")
            return None
        kind = METHODS[method]
    types, known = get_type_hints(kind), {each.name: each for each in fields(kind)}
    before = len(problems)
    problems += [f"{where}{key}: is no key; there are {', '.join(known)}" for key in value if key not in known]
    needed = [name for name, each in known.items() if each.default is MISSING and each.default_factory is MISSING]
    problems += [f"{where}{name}: is missing" for name in needed if name not in value]
    given = {key: _build(types[key], item, f"{where}{key}", problems) for key, item in value.items() if key in known}
    if len(problems) > before:
        return None
    rule = kind(**given)
    if kind is not Plan:
        problems += [f"{where}{problem}" for problem in rule.problems()]
    return rule


def _shown(value: Any) -> str:
    return repr(value)[:50]
