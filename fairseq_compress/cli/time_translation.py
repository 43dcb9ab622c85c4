"""``fairseq-compress time-translation``: a text through an exported model, and its speed from several timings."""

import argparse

HELP = (
    "Translate a text with a directory of fairseq-compress export, then a sample of it several times again. The "
    "standard output has a line for each line of the text, then '# sentences: N' and '# seconds: S S S', which are for "
    "score --timed-sentences and --translation-seconds."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("--model", required=True, metavar="DIR", help="directory of fairseq-compress export")
    parser.add_argument("--source", required=True, metavar="FILE", help="raw text, one sentence a line")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="timings; 3 at least")


def run(args: argparse.Namespace) -> int:
    """Translate, time and print both."""
    from fairseq_compress.corpus.files import read_lines
    from fairseq_compress.errors import ConfigError
    from fairseq_compress.evaluation.timed_translation import translate_and_time

    if args.runs < 3:
        raise ConfigError(f"--runs: must be at least 3, got {args.runs}")
    found = translate_and_time(args.model, list(read_lines(args.source)), args.runs)
    timings = " ".join(f"{value:.4f}" for value in found.seconds)
    print(*found.lines, f"# sentences: {found.sentences}", f"# seconds: {timings}", sep="\n")
    return 0
