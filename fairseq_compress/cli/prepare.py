"""``fairseq-compress prepare``: raw parallel files -> one clean pair of files."""

from dataclasses import dataclass

from fairseq_compress.cli import common
from fairseq_compress.cli.parser import part
from fairseq_compress.corpus.cleaning import CleaningRules, PairCleaner, clean_parallel
from fairseq_compress.languages import check_language
from fairseq_compress.options import option

HELP = (
    "Normalize parallel text (Unicode NFC; control characters and odd spaces become one space, invisible characters "
    "that carry nothing are dropped; case and quotes stay), drop empty, over-long, badly matched and duplicate pairs, "
    "and write PREFIX.SRC, PREFIX.TGT and a JSON report. Text without spaces has words too: 1.5 logographs (Chinese) "
    "or 3.5 letters of kana, Thai, Lao, Khmer, Burmese, Tibetan and the like count as one."
)
EXAMPLES = (
    "--source-lang en --target-lang cs --source raw.en --target raw.cs --output train",
    "--source-lang en --target-lang cs --source dev.en --target dev.cs --output valid --no-filter",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    source_lang: str = common.language("suffix of the source output, such as en, pt_BR, zho_Hans", required=True)
    target_lang: str = common.language("suffix of the target output, such as cs", required=True)
    source: tuple[str, ...] = common.source("source text, one sentence a line")
    target: tuple[str, ...] = option(help="its translation, file by file", metavar="FILE")
    output: str = common.output("start of the names of the outputs", "PREFIX")
    no_filter: bool = option(
        False, "for validation and test sets: normalize, drop nothing; a line over --max-words is an error"
    )
    report: str | None = option(None, "JSON counts of what was dropped; default: PREFIX.report.json", metavar="FILE")
    rules: CleaningRules = part(CleaningRules, "rules")


def run(args: Options) -> None:
    check_language("--source-lang", args.source_lang)
    check_language("--target-lang", args.target_lang)
    report = clean_parallel(
        args.source, args.target, f"{args.output}.{args.source_lang}", f"{args.output}.{args.target_lang}",
        args.report or f"{args.output}.report.json", PairCleaner(args.rules, drop=not args.no_filter),
    )  # fmt: skip
    common.tell(f"{args.output}: {report.summary()}")
