"""``fairseq-compress user-dir``: where fairseq finds this package."""

import argparse
from pathlib import Path

import fairseq_compress

HELP = (
    'Print the folder of the installed package, for --user-dir of the commands of fairseq: fairseq-train --user-dir "$('
    'fairseq-compress user-dir)". fairseq looks for a relative path in the folder that it is called from.'
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare no options."""


def run(args: argparse.Namespace) -> int:
    """Print it."""
    print(Path(fairseq_compress.__file__).resolve().parent)
    return 0
