"""``fairseq-compress decode``: subword pieces -> text, line by line."""

import argparse
import sys

HELP = "Join the pieces of each line to text, bytes to characters too: one line in, one line out."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("--model", required=True, metavar="P.model", help="model written by train-vocabulary")
    parser.add_argument("--input", required=True, metavar="FILE", help="pieces, separated by spaces")
    parser.add_argument("--output", required=True, metavar="FILE", help="text")


def run(args: argparse.Namespace) -> int:
    """Decode and tell the count on the standard error."""
    from fairseq_compress.corpus.segmentation import decode_file

    count = decode_file(args.model, args.input, args.output)
    print(f"{args.output}: {count} lines", file=sys.stderr)
    return 0
