"""``fairseq-compress kd-data collect``: log of fairseq-generate -> translations in source order."""

from collections.abc import Iterator
from dataclasses import dataclass

from fairseq_compress.cli import common
from fairseq_compress.options import option

HELP = (
    "Extract the translations (D- lines) from the output of fairseq-generate and write them in source order. Each "
    "source line must have exactly one. They are written as fairseq printed them: as subwords, if it ran without "
    "--bpe. --source or --expected-lines gives the number of lines."
)
EXAMPLES = (
    "--input generate.log --source test.en --output hypotheses.subwords",
    "--input shard0.log shard1.log --expected-lines 2000000 --output train.cs --scores train.scores",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    input: tuple[str, ...] = option(help="output of fairseq-generate; several files if it ran in shards", metavar="LOG")
    source: str | None = common.source("the source text, whose lines are counted", required=False)
    expected_lines: int | None = option(None, "number of source lines", metavar="N")
    output: str = common.output("translations, one a line")
    scores: str | None = option(None, "also write the scores, one a line: log2-probability / length", metavar="FILE")

    def problems(self) -> Iterator[str]:
        if (self.source is None) == (self.expected_lines is None):
            yield "--source, --expected-lines: exactly one must be given"


def run(args: Options) -> None:
    from fairseq_compress.corpus.hypotheses import collect_hypotheses, write_hypotheses
    from fairseq_compress.work.files import check_distinct, check_not_empty

    sources = [] if args.source is None else [args.source]
    check_distinct([*args.input, *sources], [args.output, *([args.scores] if args.scores else [])])
    expected = (args.expected_lines or 0) if args.source is None else check_not_empty(args.source)
    hypotheses = collect_hypotheses(args.input, expected)
    write_hypotheses(hypotheses, args.output, args.scores)
    common.tell(f"{args.output}: {len(hypotheses)} lines")
