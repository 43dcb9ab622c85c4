"""``fairseq-compress report``: the records of several systems -> a page, a picture, and JSON."""

from dataclasses import dataclass

from fairseq_compress.options import option

HELP = (
    "Compare systems from the records of score: a Markdown page with quality, size and speed, a picture, and the "
    "tables as JSON. Systems with several seeds or with a baseline also get a table of means, differences and p-values."
)
EXAMPLES = (
    "--scores teacher.json student.json student-int8.json --output report",
    "--scores report/report.json --output quality.svg",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    scores: tuple[str, ...] = option(
        help="records of score, in the order of the table; or a report.json, which has several", metavar="SCORES.json"
    )
    output: tuple[str, ...] = option(
        help="a folder, which gets report.md, report.png and report.json, or single files, named .md, .png, .svg or "
        ".json",
        metavar="PATH",
    )
    title: str | None = option(
        None, "heading of page and picture (default: the one in report.json, else 'Systems compared')", metavar="TEXT"
    )
    note: str | None = option(
        None, "a caution on page and picture, such as 'one run' (default: the one in report.json)", metavar="TEXT"
    )


def run(args: Options) -> None:
    from fairseq_compress.evaluation.report import write_report

    print(*write_report(args.scores, args.output, args.title, args.note), sep="\n")
