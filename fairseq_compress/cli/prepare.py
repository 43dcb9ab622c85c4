"""``fairseq-compress prepare``: raw parallel files -> one clean pair of files."""

import argparse
import sys

HELP = (
    "Normalize parallel text (Unicode NFC, control characters and odd spaces to one space, invisible characters that "
    "carry nothing dropped; case and quotes stay), drop empty, over-long, badly matched and duplicate pairs, and write "
    "PREFIX.SRC, PREFIX.TGT and a JSON report. Text without spaces has words too: 1.5 logographs (Chinese) or 3.5 "
    "letters of kana, Thai, Lao, Khmer, Burmese, Tibetan and the like count as one."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument(
        "--source-lang", required=True, metavar="SRC", help="suffix of the source output, such as en, pt_BR, zho_Hans"
    )
    parser.add_argument("--target-lang", required=True, metavar="TGT", help="suffix of the target output, such as cs")
    parser.add_argument("--source", nargs="+", required=True, metavar="FILE", help="source text, one sentence a line")
    parser.add_argument("--target", nargs="+", required=True, metavar="FILE", help="its translation, file by file")
    parser.add_argument("--output-prefix", required=True, metavar="PREFIX", help="start of the names of the outputs")
    parser.add_argument("--max-words", type=int, default=250, help="drop pairs with a side of more words")
    parser.add_argument("--min-words", type=int, default=1, help="drop pairs with a side of fewer words")
    parser.add_argument(
        "--max-ratio", type=float, default=3.0, help="drop pairs over this ratio of words, if over 5 words apart"
    )
    parser.add_argument("--no-deduplicate", action="store_true", help="keep repeated pairs")
    parser.add_argument("--drop-identical", action="store_true", help="drop pairs whose two sides are equal")
    parser.add_argument(
        "--no-filter",
        action="store_true",
        help="for validation and test sets: normalize, drop nothing; a line over --max-words is an error",
    )
    parser.add_argument("--report", metavar="FILE", help="JSON counts of what was dropped (PREFIX.report.json)")


def run(args: argparse.Namespace) -> int:
    """Clean and tell the counts on the standard error."""
    from fairseq_compress.corpus.cleaning import CleaningRules, PairCleaner, clean_parallel
    from fairseq_compress.languages import check_language

    check_language("--source-lang", args.source_lang)
    check_language("--target-lang", args.target_lang)
    rules = CleaningRules(
        min_words=args.min_words,
        max_words=args.max_words,
        max_ratio=args.max_ratio,
        deduplicate=not args.no_deduplicate,
        drop_identical=args.drop_identical,
    )
    report = clean_parallel(
        args.source,
        args.target,
        f"{args.output_prefix}.{args.source_lang}",
        f"{args.output_prefix}.{args.target_lang}",
        args.report or f"{args.output_prefix}.report.json",
        PairCleaner(rules, drop=not args.no_filter),
    )
    print(f"{args.output_prefix}: {report.summary()}", file=sys.stderr)
    return 0
