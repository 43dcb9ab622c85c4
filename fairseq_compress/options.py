"""Declare an option once: its default, help, range, choices and what it requires.

A dataclass whose fields are made by :func:`option` gives

- the arguments of a parser (:func:`add_arguments`) and their values (:func:`from_arguments`),
- the check of its values, all problems in one message (:func:`problems`, :func:`check`),
- a reader of mappings from JSON or YAML with the same checks (:func:`read`),
- fairseq's dataclass, with ``compat.fairseq_options`` as its decorator.

Example::

    @dataclass(frozen=True)
    class Search:
        beam: int = option(5, "hypotheses followed at a time", range="[1, inf)")
        mode: str = option("best", "what is kept", choices=("best", "k-best"))
        k: int = option(1, "hypotheses kept", range="[1, inf)", needs="mode=k-best")

    check(Search(beam=0, k=4))
    # ConfigError: --beam: must be in [1, inf), got 0; --k: requires --mode k-best, got best
"""

import argparse
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, field, fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from fairseq_compress.errors import ConfigError
from fairseq_compress.shipped import did_you_mean

T = TypeVar("T")
Spelling = Callable[[str], str]  # name of a field -> its form in messages
_INTERVAL = re.compile(r"([\[(])\s*(\S+)\s*,\s*(\S+)\s*([\])])")
_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
_types = cache(get_type_hints)
_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def option(
    default: Any = MISSING, help: str = "", *, range: str | None = None, choices: Iterable[Any] | None = None,
    needs: str | None = None, metavar: str | None = None, factory: Any = MISSING,
) -> Any:  # fmt: skip
    """A field of a dataclass that is an option.

    Args:
        default: without it the option is required; None is a valid value only where it is the default.
        help: description, to which range and default are added.
        range: an interval as in ``"(0, 1]"`` or ``"[1, inf)"``. A bracket at inf allows inf; NaN is in none.
        needs: ``"other"`` (an option that must differ from its default) or ``"other=a|b"`` (one of these values): this
            option may differ from its own default only then.
        factory: a function that makes the default.
    """
    if range is not None:
        interval(range)
    allowed = None if choices is None else tuple(choices)
    metadata = {"help": help, "range": range, "choices": allowed, "needs": needs, "metavar": metavar}
    return field(default=default, default_factory=factory, metadata=metadata)


class Interval(NamedTuple):
    """Numbers from ``least`` to ``most``, with or without the ends."""

    least: float
    most: float
    with_least: bool
    with_most: bool

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | float) or math.isnan(value):
            return False
        above = value >= self.least if self.with_least else value > self.least
        return above and (value <= self.most if self.with_most else value < self.most)


@cache
def interval(text: str) -> Interval:
    """The interval of a text such as ``"[0, 1)"``."""
    if (parts := _INTERVAL.fullmatch(text)) is None:
        raise ValueError(f"interval: must be as in '[0, 1)', got {text!r}")
    return Interval(float(parts[2]), float(parts[3]), parts[1] == "[", parts[4] == "]")


def flag(name: str) -> str:
    """``max_len`` -> ``--max-len``."""
    return "--" + name.replace("_", "-")


def options_of(kind: Any) -> list[Field[Any]]:
    """The fields of a dataclass that :func:`option` made."""
    return [each for each in fields(kind) if "needs" in each.metadata]


def default_of(each: Field[Any]) -> Any:
    """The default of a field; MISSING without one."""
    return each.default_factory() if each.default_factory is not MISSING else each.default


def plain(value: Any) -> Any:
    """The value of a member of fairseq's ``ChoiceEnum``; any other value unchanged."""
    return value.value if isinstance(value, Enum) else value


def problems(values: Any, spelling: Spelling = flag) -> Iterator[str]:
    """A message for each option of a dataclass whose value, or what it requires, is wrong."""
    for each in options_of(values):
        value = plain(getattr(values, each.name))
        if value is not None or each.default is not None:
            yield from _wrong_value(each, value, spelling)
            yield from _wrong_need(each, value, values, spelling)


def all_problems(values: Any, where: str | None = None) -> Iterator[str]:
    """:func:`problems`, and those of the method ``problems`` of the dataclass, if it has one.

    ``where`` precedes the names of fields; with None messages name options of a command line.
    """
    yield from problems(values, flag if where is None else f"{where}{{}}".format)
    yield from (f"{where or ''}{message}" for message in getattr(values, "problems", tuple)())


def check(values: Any, *rules: Iterable[str], spelling: Spelling = flag) -> None:
    """Raise one :class:`ConfigError` with every problem of :func:`problems` and of the ``rules`` between options."""
    raise_problems([*problems(values, spelling), *(message for rule in rules for message in rule)])


def raise_problems(found: Iterable[str], origin: str = "") -> None:
    """Raise one :class:`ConfigError` with all messages, after ``origin``, if there is any."""
    if messages := "; ".join(dict.fromkeys(found)):
        raise ConfigError(f"{origin}: {messages}" if origin else messages)


def _wrong_value(each: Field[Any], value: Any, spelling: Spelling) -> Iterator[str]:
    name, choices, within = spelling(each.name), each.metadata["choices"], each.metadata["range"]
    if choices is not None and value not in choices:
        yield f"{name}: must be one of {', '.join(map(str, choices))}, got {value!r}"
    for number in value if isinstance(value, tuple | list) else (value,):
        if within is not None and number not in interval(within):
            yield f"{name}: must be in {within}, got {number}"


def _wrong_need(each: Field[Any], value: Any, values: Any, spelling: Spelling) -> Iterator[str]:
    needs = each.metadata["needs"]
    if needs is None or value == plain(default_of(each)):
        return
    other, _, allowed = needs.partition("=")
    found = plain(getattr(values, other))
    if allowed and str(found) not in allowed.split("|"):
        yield f"{spelling(each.name)}: requires {spelling(other)} {' or '.join(allowed.split('|'))}, got {found}"
    elif not allowed and found == plain(default_of(type(values).__dataclass_fields__[other])):
        yield f"{spelling(each.name)}: requires {spelling(other)}, got {value} alone"


def add_arguments(parser: argparse._ActionsContainer, kind: Any, *, suppress: bool = False) -> None:
    """Declare the options of a dataclass ``kind``.

    Args:
        suppress: an option that is not given leaves no attribute; :func:`from_arguments` then takes the default.
    """
    kinds = _types(kind)
    for each in options_of(kind):
        default = default_of(each)
        value, many = _value_type(kinds[each.name])
        settings = {"help": help_of(each).replace("%", "%%"), "default": default}
        if value is bool:
            settings["action"] = argparse.BooleanOptionalAction if default else "store_true"
        else:
            settings |= {"type": value, "metavar": each.metadata["metavar"], "choices": each.metadata["choices"]}
            settings |= {"nargs": "+"} if many else {}
            if many and default in ((), None, MISSING):  # it may be repeated
                settings |= {"action": "extend", "default": [] if default == () else default}
        settings |= {"default": None, "required": True} if default is MISSING else {}
        settings |= {"default": argparse.SUPPRESS} if suppress else {}
        parser.add_argument(flag(each.name), **settings)


def from_arguments(kind: type[T], args: Any, **others: Any) -> T:
    """An instance of a dataclass from parsed arguments; ``others`` are the values of undeclared fields."""
    names = [each.name for each in options_of(kind) if each.name not in others and hasattr(args, each.name)]
    return kind(**{name: getattr(args, name) for name in names}, **others)


def help_of(each: Field[Any]) -> str:
    """The help of an option with its range."""
    text, within = each.metadata["help"], each.metadata["range"]
    before, default, after = text.partition("; default:")
    return f"{before}, in {within}{default}{after}" if within else text


def read(kind: type[T], values: Any, found: list[str], place: str = "") -> T | None:
    """A dataclass, nested ones included, from a mapping of JSON or YAML; None if there was a problem.

    Args:
        values: a mapping; unknown and missing keys, wrong types, ranges and choices are problems.
        found: gets a message for each problem, those of the method ``problems`` of the dataclass included.
        place: key of the mapping within the file, for messages.
    """
    where = f"{place}." if place else ""
    if not isinstance(values, Mapping):
        found.append(f"{place or 'the value'}: must be a table of keys, got {values!r:.50}")
        return None
    kinds, known, before = _types(kind), {each.name: each for each in fields(kind)}, len(found)  # type: ignore[arg-type]
    found += [f"{where}{key}: unknown key{did_you_mean(str(key), known)}" for key in values if key not in known]
    required = [name for name, each in known.items() if default_of(each) is MISSING]
    found += [f"{where}{name}: is missing" for name in required if name not in values]
    given = {key: convert(kinds[key], value, found, f"{where}{key}") for key, value in values.items() if key in known}
    if len(found) > before:
        return None
    made = kind(**given)
    found += all_problems(made, where)
    return made if len(found) == before else None


def convert(kind: Any, value: Any, found: list[str], place: str) -> Any:
    """``value`` as a ``kind``: int, float, str, bool, a tuple, list or dict of a kind, a dataclass, or one and None."""
    if get_origin(kind) in (UnionType, Union):
        inner = next(each for each in get_args(kind) if each is not NoneType)
        return None if value is None else convert(inner, value, found, place)
    if get_origin(kind) in (tuple, list):
        if not isinstance(value, list | tuple):
            found.append(f"{place}: must be a list, got {value!r:.50}")
            return ()
        item = get_args(kind)[0]
        made = (convert(item, each, found, f"{place}[{number}]") for number, each in enumerate(value))
        return get_origin(kind)(made)
    if get_origin(kind) is dict:
        if not isinstance(value, Mapping):
            found.append(f"{place}: must be a table of keys, got {value!r:.50}")
            return {}
        return {key: convert(get_args(kind)[1], each, found, f"{place}.{key}") for key, each in value.items()}
    if is_dataclass(kind):
        return read(kind, value, found, place)  # type: ignore[arg-type]
    if kind is float and (type(value) is int or (isinstance(value, str) and _EXPONENT.fullmatch(value))):
        return float(value)  # YAML 1.1 takes 1e-05, as JSON writes it, for a text
    if kind in _KINDS and type(value) is not kind:
        found.append(f"{place}: must be {_KINDS[kind]}, got {value!r:.50}")
        return None
    return value


def _value_type(kind: Any) -> tuple[Any, bool]:
    """The type that argparse converts to, and whether there may be many."""
    if get_origin(kind) in (UnionType, Union):
        return _value_type(next(each for each in get_args(kind) if each is not NoneType))
    if get_origin(kind) in (tuple, list):
        return _value_type(get_args(kind)[0])[0], True
    return (str if isinstance(kind, type) and issubclass(kind, Enum) else kind), False
