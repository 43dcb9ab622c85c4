"""``fairseq-compress collect-hypotheses``: log of fairseq-generate -> translations in source order."""

import argparse
import sys

HELP = (
    "Take the translations (D- lines) out of the output of fairseq-generate and write them in source order. "
    "Each source line must have exactly one. They stay as fairseq printed them: pieces, when it ran without --bpe."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument(
        "--input", nargs="+", required=True, metavar="LOG", help="log of fairseq-generate, or its shards"
    )
    expected = parser.add_mutually_exclusive_group(required=True)
    expected.add_argument("--expected-lines", type=int, metavar="N", help="number of source lines")
    expected.add_argument("--source", metavar="FILE", help="the source text, to count its lines")
    parser.add_argument("--output", required=True, metavar="FILE", help="translations, one a line")
    parser.add_argument(
        "--scores", metavar="FILE", help="also write the scores, one a line: log2-probability divided by length"
    )


def run(args: argparse.Namespace) -> int:
    """Collect, write and tell the count on the standard error."""
    from fairseq_compress.corpus.hypotheses import collect_hypotheses, write_hypotheses
    from fairseq_compress.work.files import check_distinct, check_not_empty

    sources = [] if args.source is None else [args.source]
    check_distinct([*args.input, *sources], [args.output, *([args.scores] if args.scores else [])])
    expected = args.expected_lines if args.source is None else check_not_empty(args.source)
    hypotheses = collect_hypotheses(args.input, expected)
    write_hypotheses(hypotheses, args.output, args.scores)
    print(f"{args.output}: {len(hypotheses)} lines", file=sys.stderr)
    return 0
