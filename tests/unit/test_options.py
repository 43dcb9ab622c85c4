"""An option is declared once: arguments, checks, readers and fairseq's dataclass come from the declaration."""

import argparse
import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairseq_compress import options
from fairseq_compress.compat import fairseq_options
from fairseq_compress.errors import ConfigError
from fairseq_compress.options import add_arguments, check, from_arguments, interval, option, read


@dataclass(frozen=True)
class Search:
    beam: int = option(5, "hypotheses followed at a time", range="[1, inf)")
    alpha: float | None = option(None, "weight", range="[0, 1)")
    mode: str = option("best", "what is kept", choices=("best", "k-best", "all"))
    k: int = option(1, "hypotheses kept", range="[1, inf)", needs="mode=k-best|all")
    log: str = option("", "file")
    every: int = option(10, "lines between entries of 100%", needs="log")
    quiet: bool = option(False, "print nothing")
    fast: bool = option(True, "take the fast path")


@dataclass(frozen=True)
class Outer:
    name: str
    searches: tuple[Search, ...] = ()
    note: str | None = None

    def problems(self):
        if self.name == "bad":
            yield "name: must not be bad"


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("[0, 1)", [0, 0.5], [-1e-9, 1, math.nan, math.inf]),
        ("(0, 1]", [1e-9, 1], [0, 1.1]),
        ("[1, inf)", [1, 10**9], [0, math.inf]),
        ("(0, inf]", [math.inf], [0, math.nan]),
        ("(-inf, inf)", [-1e300, 0], [-math.inf, math.inf, math.nan]),
    ],
)
def test_intervals(text, inside, outside):
    assert all(value in interval(text) for value in inside)
    assert not any(value in interval(text) for value in outside)


def test_wrong_interval():
    with pytest.raises(ValueError, match="interval: must be as in"):
        option(1, range="0 to 1")


def test_defaults_have_no_problem():
    check(Search())


def test_all_problems_in_one_message():
    with pytest.raises(ConfigError) as caught:
        check(Search(beam=0, alpha=1.0, mode="worst", k=4, every=3), ["--x: is wrong"], [])
    assert str(caught.value) == (
        "--beam: must be in [1, inf), got 0; --alpha: must be in [0, 1), got 1.0; "
        "--mode: must be one of best, k-best, all, got 'worst'; --k: requires --mode k-best or all, got worst; "
        "--every: requires --log, got 3 alone; --x: is wrong"
    )


@given(st.integers(-5, 5), st.sampled_from(["best", "k-best", "all"]))
def test_a_need_is_met_or_told(k, mode):
    wrong = [message.split(":")[0] for message in options.problems(Search(k=k, mode=mode))]
    assert wrong == ["--k"] * ((k < 1) + (k != 1 and mode == "best"))


def test_arguments_of_a_parser():
    parser = argparse.ArgumentParser()
    add_arguments(parser, Search)
    assert from_arguments(Search, parser.parse_args([])) == Search()
    args = parser.parse_args(["--beam", "3", "--alpha", "0.5", "--mode", "all", "--k", "2", "--quiet", "--no-fast"])
    assert from_arguments(Search, args, log="l") == Search(3, 0.5, "all", 2, log="l", quiet=True, fast=False)
    assert "hypotheses followed at a time, in [1, inf)" in " ".join(parser.format_help().split())


def test_arguments_that_are_not_given_leave_no_trace():
    parser = argparse.ArgumentParser()
    add_arguments(parser, Search, suppress=True)
    assert vars(parser.parse_args(["--k", "2"])) == {"k": 2}
    assert vars(parser.parse_args([])) == {}


def test_read_nested():
    found: list[str] = []
    values = {"name": "n", "searches": [{"beam": 2}, {"alpha": "1e-05"}]}
    assert read(Outer, values, found) == Outer("n", (Search(2), Search(alpha=1e-05)))
    assert not found


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "the value: must be a table of keys, got []"),
        ({}, "name: is missing"),
        ({"name": 3}, "name: must be a text, got 3"),
        ({"name": "bad"}, "name: must not be bad"),
        ({"nane": "x", "name": "x"}, "nane: unknown key; did you mean name? available: name, searches, note"),
        ({"name": "x", "searches": [{"beam": True}]}, "searches[0].beam: must be a whole number, got True"),
        ({"name": "x", "searches": [{}, {"beam": 0}]}, "searches[1].beam: must be in [1, inf), got 0"),
        ({"name": "x", "searches": [{"k": 2}]}, "searches[0].k: requires searches[0].mode k-best or all, got best"),
        ({"name": "x", "searches": 3}, "searches: must be a list, got 3"),
    ],
)
def test_read_tells_every_problem(values, message):
    found: list[str] = []
    assert read(Outer, values, found) is None
    assert found == [message]


def test_fairseq_reads_the_same_declaration():
    from fairseq.dataclass import FairseqDataclass
    from fairseq.dataclass.utils import gen_parser_from_dataclass

    @fairseq_options
    class Config(FairseqDataclass):
        alpha: float | None = option(None, "weight", range="[0, 1)")
        mode: str = option("best", "what is kept", choices=("best", "k-best"))
        k: int = option(1, "hypotheses kept", range="[1, inf)", needs="mode=k-best")

    parser = argparse.ArgumentParser()
    gen_parser_from_dataclass(parser, Config())
    args = parser.parse_args(["--mode", "k-best", "--k", "0"])
    assert (args.alpha, args.mode, args.k) == (None, "k-best", 0)
    assert "weight, in [0, 1)" in parser.format_help()
    with pytest.raises(SystemExit):
        parser.parse_args(["--mode", "worst"])
    with pytest.raises(ConfigError, match=r"^--k: must be in \[1, inf\), got 0$"):
        check(Config(alpha=0.5, mode="k-best", k=0))
    with pytest.raises(ConfigError, match=r"^--k: requires --mode k-best, got best$"):
        check(Config(k=2))
