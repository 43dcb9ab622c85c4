"""``fairseq-compress report``: the JSON records of several systems -> a Markdown table, a picture, and JSON."""

import argparse

HELP = "compare scored systems in a Markdown table, a picture, and JSON"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("--inputs", nargs="+", required=True, metavar="SCORES.json", help="in the order of the table")
    parser.add_argument("--output-dir", required=True, metavar="DIR", help="gets report.md, report.png and report.json")
    parser.add_argument("--title", default="Systems compared", metavar="TEXT", help="heading of page and picture")
    parser.add_argument("--note", metavar="TEXT", help="a caution on page and picture, such as 'synthetic data'")


def run(args: argparse.Namespace) -> int:
    """Write the report and print where it is."""
    from fairseq_compress.evaluation.report import write_report

    print(*write_report(args.inputs, args.output_dir, args.title, args.note), sep="\n")
    return 0
