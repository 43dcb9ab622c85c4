"""Names of verbs and options until version 0.2; version 0.3 drops this module."""

import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple


class Renamed(NamedTuple):
    """The new verb (one or two words), its renamed options (old to new), and words to add."""

    verb: str
    options: Mapping[str, str] = MappingProxyType({})
    added: tuple[str, ...] = ()


VERBS = {
    "pack": Renamed("quantize", added=("--format", "packed")),
    "compare": Renamed("report", {"--inputs": "--scores", "--json": "--output"}),
    "generate": Renamed("time"),
    "time-translation": Renamed("time", {"--model": "--checkpoint"}),
    "collect-hypotheses": Renamed("kd-data collect"),
    "score-nbest": Renamed("kd-data score"),
    "select-hypotheses": Renamed("kd-data select", {"--decode-model": "--sentencepiece-model"}),
    "encode-hypotheses": Renamed("kd-data encode", {"--model": "--sentencepiece-model"}),
    "binarize-hypotheses": Renamed("kd-data binarize"),
}
OPTIONS = {
    "prepare": {"--output-prefix": "--output"},
    "train-vocabulary": {"--output-prefix": "--output"},
    "encode": {"--model": "--sentencepiece-model"},
    "decode": {"--model": "--sentencepiece-model"},
    "encode-dual": {
        "--teacher-model": "--teacher-sentencepiece-model", "--teacher-dict": "--teacher-dictionary",
        "--student-model": "--student-sentencepiece-model", "--student-dict": "--student-dictionary",
    },
    "cache-teacher": {"--teacher-path": "--checkpoint"},
    "average": {"--inputs": "--checkpoint", "--checkpoint-dir": "--checkpoint"},
    "export": {"--check-source": "--source", "--check-reference": "--reference"},
    "translate": {"--model": "--checkpoint"},
    "report": {"--inputs": "--scores", "--output-dir": "--output"},
}  # fmt: skip


def with_new_names(arguments: Sequence[str]) -> list[str]:
    """Replace old names in a command line and print the new ones in one line on the standard error."""
    verb, *words = arguments
    new = VERBS.get(verb, Renamed(verb, OPTIONS.get(verb, {})))
    end = words.index("--") if "--" in words else len(words)
    renamed = {verb: new.verb} if new.verb != verb else {}
    for place, word in enumerate(words[:end]):
        name, equals, value = word.partition("=")
        if name in new.options:
            words[place] = f"{new.options[name]}{equals}{value}"
            renamed[name] = new.options[name]
    if renamed:
        names = ", ".join(f"{old} is now {other}" for old, other in renamed.items())
        print(f"fairseq-compress {verb}: {names}; version 0.3 drops the old names", file=sys.stderr)
    return [*new.verb.split(), *new.added, *words]
