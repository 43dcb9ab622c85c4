"""``fairseq-compress report``: the records of several systems -> a page, a picture, and JSON."""

from dataclasses import dataclass

from fairseq_compress.options import option

HELP = (
    "Compare scored systems: one page in Markdown with size and speed of each, a picture, and the tables as JSON. "
    "Systems with several seeds, or tested against a baseline, also get a table of means and differences."
)
EXAMPLES = (
    "--scores teacher.json student.json student-int8.json --output report",
    "--scores runs/*/scores.json --output comparison.md comparison.json --title 'Losses on Multi30k'",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    scores: tuple[str, ...] = option(help="records of score, in the order of the table", metavar="SCORES.json")
    output: tuple[str, ...] = option(
        help="a folder, which gets report.md, report.png and report.json, or single files, named .md, .png or .json",
        metavar="PATH",
    )
    title: str = option("Systems compared", "heading of page and picture", metavar="TEXT")
    note: str | None = option(None, "a caution on page and picture, such as 'synthetic data'", metavar="TEXT")


def run(args: Options) -> None:
    from fairseq_compress.evaluation.report import write_report

    print(*write_report(args.scores, args.output, args.title, args.note), sep="\n")
