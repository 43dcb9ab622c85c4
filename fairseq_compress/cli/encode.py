"""``fairseq-compress encode``: text -> subword pieces, line by line."""

import argparse
import sys

HELP = (
    "Normalize each line of a text and split it into the pieces of a sentencepiece model, separated by spaces: "
    "one line in, one line out."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("--model", required=True, metavar="P.model", help="model written by train-vocabulary")
    parser.add_argument("--input", required=True, metavar="FILE", help="text, one sentence a line")
    parser.add_argument("--output", required=True, metavar="FILE", help="pieces")


def run(args: argparse.Namespace) -> int:
    """Encode and tell the count on the standard error."""
    from fairseq_compress.corpus.segmentation import encode_file

    count = encode_file(args.model, args.input, args.output)
    print(f"{args.output}: {count} lines", file=sys.stderr)
    return 0
