"""``fairseq-compress compare``: the JSON records of an experiment -> one Markdown table, or the table as JSON."""

import argparse

HELP = "one table of an experiment: each system over its seeds, and against a baseline"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("--inputs", nargs="+", required=True, metavar="SCORES.json", help="in the order of the table")
    parser.add_argument("--output", metavar="FILE.md", help="the page")
    parser.add_argument("--json", metavar="FILE.json", help="the same with all numbers, for programs")
    parser.add_argument("--title", default="Systems compared", metavar="TEXT", help="heading of the page")
    parser.add_argument("--note", metavar="TEXT", help="a caution on the page, such as 'synthetic data'")


def run(args: argparse.Namespace) -> int:
    """Write the page and print where it is."""
    from fairseq_compress.evaluation.comparison import write_comparison
    from fairseq_compress.work.files import check_distinct

    outputs = [path for path in (args.output, args.json) if path is not None]
    check_distinct(args.inputs, outputs)
    write_comparison(args.inputs, args.output, args.json, args.title, args.note)
    print(*outputs, sep="\n")
    return 0
