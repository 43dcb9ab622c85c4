"""``fairseq-compress compare``: the JSON records of an experiment's systems and seeds -> one Markdown table."""

import argparse

HELP = "one table of an experiment: each system over its seeds, and against a baseline"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("--inputs", nargs="+", required=True, metavar="SCORES.json", help="in the order of the table")
    parser.add_argument("--output", required=True, metavar="FILE.md", help="the page")
    parser.add_argument("--title", default="Systems compared", metavar="TEXT", help="heading of the page")
    parser.add_argument("--note", metavar="TEXT", help="a caution on the page, such as 'synthetic data'")


def run(args: argparse.Namespace) -> int:
    """Write the page and print where it is."""
    from fairseq_compress.corpus.files import check_distinct
    from fairseq_compress.evaluation.comparison import write_comparison

    check_distinct(args.inputs, [args.output])
    write_comparison(args.inputs, args.output, args.title, args.note)
    print(args.output)
    return 0
