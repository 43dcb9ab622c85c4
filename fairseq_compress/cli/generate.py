"""``fairseq-compress generate``: fairseq-generate, with its own options, and its speed from several timings."""

import argparse
import logging
import os
import sys
from pathlib import Path

HELP = (
    "Run fairseq-generate with the arguments after --, and then its search again on a sample of the batches. Two lines "
    "at the end of the standard output, '# sentences: N' and '# seconds: S S S', are for score --timed-sentences and "
    "--translation-seconds. The log goes to the standard error."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.usage = "%(prog)s [options] -- DATA fairseq-generate options"
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="timings; 3 at least")
    parser.add_argument("arguments", nargs="+", metavar="DATA ...", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Translate, then time."""
    from fairseq_compress.evaluation.timing import check_timings

    check_timings("--runs", args.runs)
    logging.basicConfig(level=logging.INFO)  # else fairseq's goes to the standard output
    sys.argv = ["fairseq-generate", *_without_plugin(args.arguments)]
    import fairseq.tasks.translation  # noqa: F401 - before register(), which does nothing without fairseq

    import fairseq_compress
    from fairseq_compress.evaluation.timed_generation import generate_and_time

    fairseq_compress.register()
    print(*generate_and_time(args.runs).lines(), sep="\n")
    return 0


def _without_plugin(arguments: list[str]) -> list[str]:
    """The arguments but ``--user-dir`` where it names this package, which is loaded already."""
    package = Path(__file__).resolve().parents[1]
    for place, word in enumerate(arguments[:-1]):
        if word == "--user-dir" and os.path.realpath(arguments[place + 1]) == str(package):
            return arguments[:place] + arguments[place + 2 :]
    return arguments
