"""``fairseq-compress prepare``: raw parallel files -> one clean pair of files."""

from dataclasses import dataclass

from fairseq_compress.cli import common
from fairseq_compress.cli.parser import part
from fairseq_compress.corpus.cleaning import CleaningRules, PairCleaner, clean_parallel
from fairseq_compress.languages import check_language
from fairseq_compress.options import option

HELP = (
    "Normalize parallel text (Unicode NFC; control characters and odd spaces become one space, invisible characters "
    "without meaning are dropped; case and quotes stay), drop empty, over-long, badly matched and duplicate pairs, "
    "and write PREFIX.SRC, PREFIX.TGT and a JSON report. In text without spaces 1.5 logographs (Chinese), or 3.5 "
    "letters of kana, Thai, Lao, Khmer, Burmese, Tibetan and similar scripts, count as one word."
)
EXAMPLES = (
    "--source-lang en --target-lang cs --source raw.en --target raw.cs --output train",
    "--source-lang en --target-lang cs --source dev.en --target dev.cs --output valid --no-filter",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    source_lang: str = common.language(
        "source language, the suffix of its output, such as en, pt_BR, zho_Hans", required=True
    )
    target_lang: str = common.language("target language, the suffix of its output, such as cs", required=True)
    source: tuple[str, ...] = common.source("source text, one sentence a line")
    target: tuple[str, ...] = option(help="target text, file by file in the same order", metavar="FILE")
    output: str = common.output("prefix of the output files", "PREFIX")
    no_filter: bool = option(False, "only normalize, for validation and test sets; a line over --max-words is an error")
    report: str | None = option(None, "counts of dropped pairs, as JSON; default: PREFIX.report.json", metavar="FILE")
    rules: CleaningRules = part(CleaningRules, "filter")


def run(args: Options) -> None:
    check_language("--source-lang", args.source_lang)
    check_language("--target-lang", args.target_lang)
    report = clean_parallel(
        args.source, args.target, f"{args.output}.{args.source_lang}", f"{args.output}.{args.target_lang}",
        args.report or f"{args.output}.report.json", PairCleaner(args.rules, drop=not args.no_filter),
    )  # fmt: skip
    common.tell(f"{args.output}: {report.summary()}")
