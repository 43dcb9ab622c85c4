"""``fairseq-compress encode-hypotheses``: an n-best file of text -> one of subword pieces."""

import argparse
import sys

HELP = "Cut the hypotheses of an n-best file of text into the pieces of a sentencepiece model, for binarize-hypotheses."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("--model", required=True, metavar="P.model", help="model written by train-vocabulary")
    parser.add_argument("--nbest", required=True, metavar="FILE", help="n-best file of text")
    parser.add_argument("--source", required=True, metavar="FILE", help="the text that it belongs to")
    parser.add_argument("--pieces", required=True, metavar="FILE", help="that text, encoded with the same model")
    parser.add_argument("--output", required=True, metavar="FILE", help="n-best file of pieces")


def run(args: argparse.Namespace) -> int:
    """Encode and tell the count on the standard error."""
    from fairseq_compress.corpus.nbest_pieces import encode_nbest

    count = encode_nbest(args.model, args.nbest, args.source, args.pieces, args.output)
    print(f"{args.output}: {count} lists", file=sys.stderr)
    return 0
