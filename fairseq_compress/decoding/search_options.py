"""Options of beam search for every runtime, named and meant as in fairseq-generate."""

import argparse
import math
from dataclasses import dataclass
from typing import Any

from fairseq_compress.errors import ConfigError


@dataclass(frozen=True)
class SearchOptions:
    """What is searched for.

    Raises:
        ConfigError: values are out of their range; all of them are named at once.
    """

    beam: int = 5
    lenpen: float = 1.0
    """Score = log-probability / length**lenpen, EOS counted."""
    max_len_a: float = 0.0
    max_len_b: int = 200
    """The longest translation has a · (source length, EOS counted) + b tokens, EOS not counted."""
    min_len: int = 1
    """The shortest has so many, EOS not counted."""
    unkpen: float = 0.0
    """Taken off the log-probability of an unknown word."""
    no_repeat_ngram_size: int = 0
    """No sequence of so many tokens occurs twice in a translation; 0: any may."""

    def __post_init__(self) -> None:
        problems = []
        if self.beam < 1:
            problems.append(f"--beam: must be at least 1, got {self.beam}")
        if not math.isfinite(self.lenpen):
            problems.append(f"--lenpen: must be a finite number, got {self.lenpen}")
        if not 0 <= self.max_len_a < math.inf:
            problems.append(f"--max-len-a: must not be negative, got {self.max_len_a}")
        if self.max_len_b < 1:
            problems.append(f"--max-len-b: must be at least 1, got {self.max_len_b}")
        if not 0 <= self.min_len <= self.max_len_b:
            problems.append(f"--min-len: must be 0 to --max-len-b ({self.max_len_b}), got {self.min_len}")
        if math.isnan(self.unkpen):
            problems.append(f"--unkpen: must be a number, got {self.unkpen}")
        if self.no_repeat_ngram_size < 0:
            problems.append(f"--no-repeat-ngram-size: must not be negative, got {self.no_repeat_ngram_size}")
        if problems:
            raise ConfigError("; ".join(problems))

    def check_nbest(self, nbest: int) -> None:
        """Refuse more hypotheses than the beam holds.

        Raises:
            ConfigError: there are more.
        """
        if nbest > self.beam:
            raise ConfigError(f"--nbest: must be at most --beam ({self.beam}), got {nbest}")

    def greatest_length(self, source_length: int) -> int:
        """Tokens of the longest translation of a source of that length, EOS counted in the source alone."""
        return int(self.max_len_a * source_length + self.max_len_b)


def add_search_arguments(parser: argparse._ActionsContainer, defaults: SearchOptions | None = None) -> None:
    """Declare the options, with None where there are no ``defaults``."""
    declared = (
        ("--beam", int, "N", "hypotheses followed at a time"),
        ("--lenpen", float, "P", "score = log-probability / length**P"),
        ("--max-len-a", float, "A", "at most A * source length + B tokens"),
        ("--max-len-b", int, "B", "see --max-len-a"),
        ("--min-len", int, "N", "at least N tokens"),
        ("--unkpen", float, "P", "taken off the log-probability of an unknown word"),
        ("--no-repeat-ngram-size", int, "N", "no sequence of N tokens occurs twice in a translation; 0: any may"),
    )
    for option, kind, metavar, text in declared:
        default = getattr(defaults, option[2:].replace("-", "_"), None)
        parser.add_argument(option, type=kind, default=default, metavar=metavar, help=text)


def given_search(args: argparse.Namespace) -> dict[str, Any]:
    """The values of the command line, but for those that were not given."""
    values = {name: getattr(args, name) for name in SearchOptions.__dataclass_fields__}
    return {name: value for name, value in values.items() if value is not None}
