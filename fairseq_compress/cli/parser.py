"""The parser of a verb, from the dataclass of its options.

A verb is a module of this package with ``HELP``, ``EXAMPLES`` (command lines without the verb), ``Options`` (a
dataclass of :mod:`fairseq_compress.options`) and ``run(args)``, which may return an exit status; and where it has them

- ``POSITIONAL``: options that may be given by position, in this order,
- ``REST``: how the usage shows the words after ``--``, which the field ``rest`` gets,
- ``SPELLING``: options of other commands that messages of shared code name, and those of this verb,
- ``Options.problems()``: a message for each rule between options that is broken.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, field, fields
from types import ModuleType
from typing import Any, NoReturn

from fairseq_compress.errors import ConfigError
from fairseq_compress.options import (
    add_arguments,
    all_problems,
    default_of,
    flag,
    from_arguments,
    options_of,
    problems,
    raise_problems,
)
from fairseq_compress.shipped import did_you_mean

PROGRAM = "fairseq-compress"


def part(kind: type, title: str, *, values: bool = False, given: bool = False) -> Any:
    """A field that holds a dataclass ``kind`` of options, a group in the help.

    Args:
        values: the field is a dictionary of the values, from which ``run`` makes the instance.
        given: as ``values``, with only the options that were given.
    """
    return field(metadata={"part": kind, "title": title, "values": values or given, "given": given})


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Omits defaults such as None and False, and does not wrap indented lines (the examples)."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or isinstance(action.default, bool) or action.default == []:
            return action.help
        if isinstance(action.default, tuple):
            return f"{action.help} (default: {' '.join(action.default)})"
        return super()._get_help_string(action)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        return "\n".join(line if line[:1] == " " else fill(line, width, indent) for line in text.splitlines())


class VerbParser(argparse.ArgumentParser):
    """Parses the options of one verb; reports all unknown and missing ones, or all problems of values, at once."""

    def __init__(self, name: str, module: ModuleType) -> None:
        examples = "\n".join(f"  {PROGRAM} {name} {example}" for example in module.EXAMPLES)
        # allow_abbrev: --source would be a fine abbreviation of --source-lang, and a script must not depend on that
        super().__init__(
            prog=f"{PROGRAM} {name}", description=module.HELP, epilog=f"examples:\n{examples}",
            formatter_class=HelpFormatter, allow_abbrev=False,
        )  # fmt: skip
        self._kind = module.Options
        self._positional: Sequence[str] = getattr(module, "POSITIONAL", ())
        self._rest: str | None = getattr(module, "REST", None)
        self._parts = [each for each in fields(self._kind) if "part" in each.metadata]
        add_arguments(self, self._kind)
        for each in self._parts:
            kind, given = each.metadata["part"], each.metadata["given"]
            add_arguments(self.add_argument_group(each.metadata["title"]), kind, suppress=given)
        for action in self._actions:
            action.required = False  # reported in read(), with all else that is wrong
        self.usage = self._usage()

    def read(self, arguments: Sequence[str]) -> Any:
        """The ``Options`` of a command line."""
        words, rest = list(arguments), []
        if self._rest is not None and "--" in words:
            place = words.index("--")
            words, rest = words[:place], words[place + 1 :]
        values, extra = self.parse_known_args(words)
        if found := [*self._unknown(values, extra), *self._missing(values)]:
            self.error("; ".join(found))
        return self._checked(values, {} if self._rest is None else {"rest": tuple(rest)})

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} ({self.prog} --help shows the options)\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Choices are checked by :func:`fairseq_compress.options.problems`."""

    def _unknown(self, values: argparse.Namespace, extra: Sequence[str]) -> Iterator[str]:
        """A message for each unknown option; without any, set the positional options."""
        unknown = [word.partition("=")[0] for word in extra if word.startswith("-") and word != "-"]
        for word in unknown:
            yield f"unknown option {word}{did_you_mean(word, self._option_string_actions, listed=False)}"
        if unknown:  # the other words may be their values
            return
        for word in extra[len(self._positional) :]:
            yield f"unexpected argument {word!r}"
        for name, word in zip(self._positional, extra, strict=False):
            if getattr(values, name) is not None:
                yield f"{flag(name)}: is given twice, the other is {word!r}"
            many = self._option_string_actions[flag(name)].nargs == "+"
            setattr(values, name, (word,) if many else word)

    def _missing(self, values: argparse.Namespace) -> Iterator[str]:
        names = [each.name for each in self._required() if getattr(values, each.name) is None]
        if names:
            yield f"required: {', '.join(name.upper() if name in self._positional else flag(name) for name in names)}"

    def _required(self) -> list[Field[Any]]:
        kinds = [self._kind, *(each.metadata["part"] for each in self._parts if not each.metadata["given"])]
        return [each for kind in kinds for each in options_of(kind) if default_of(each) is MISSING]

    def _checked(self, values: argparse.Namespace, others: dict[str, Any]) -> Any:
        found: list[str] = []
        for each in self._parts:
            kind = each.metadata["part"]
            if each.metadata["values"]:
                names = [option.name for option in options_of(kind) if hasattr(values, option.name)]
                others[each.name] = {name: getattr(values, name) for name in names}
                found += problems(_unchecked(kind, others[each.name]))
                continue
            try:
                others[each.name] = from_arguments(kind, values)
                found += all_problems(others[each.name])
            except ConfigError as error:  # a kind that checks itself
                found.append(str(error))
        if not found:
            options = from_arguments(self._kind, values, **others)
            found += all_problems(options)
        else:  # the rules between options may read the parts that could not be made
            placeholder = {each.name: None for each in fields(self._kind) if "needs" not in each.metadata}
            found = [*problems(from_arguments(self._kind, values, **placeholder)), *found]
        raise_problems(found)
        return options

    def _usage(self) -> str:
        words = [name.upper() for name in self._positional]
        for each in self._required():
            if each.name not in self._positional:
                action = self._option_string_actions[flag(each.name)]
                words += [flag(each.name), str(action.metavar or each.name.upper())]
                words += ["..."] if action.nargs == "+" else []
        return " ".join(["%(prog)s", *words, "[options]", *([f"[-- {self._rest}]"] if self._rest else [])])


def _unchecked(kind: type, values: dict[str, Any]) -> Any:
    """An instance of a dataclass whose own check does not run."""
    made: Any = object.__new__(kind)
    for each in options_of(kind):
        object.__setattr__(made, each.name, values.get(each.name, default_of(each)))
    return made


def flat_values(options: Any) -> dict[str, Any]:
    """The values of the options of a verb and of its parts by name."""
    found = {each.name: getattr(options, each.name) for each in options_of(options)}
    for each in fields(options):
        if "part" in each.metadata:
            inner = getattr(options, each.name)
            found |= inner if each.metadata["values"] else flat_values(inner)
    return found
