"""``fairseq-compress time-translation``: a text through a model, and its speed from several timings."""

import argparse

from fairseq_compress.cli.sentencepiece_models import add_sentencepiece_arguments, given_models

HELP = (
    "Translate a text with a directory of fairseq-compress export or a checkpoint, then a sample of it several times "
    "again. The standard output has a line for each line of the text, then '# sentences: N' and '# seconds: S S S', "
    "which are for score --timed-sentences and --translation-seconds."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("--model", required=True, metavar="DIR|C.pt", help="directory of export, or a checkpoint")
    add_sentencepiece_arguments(parser, "with a checkpoint: that segmented its training text")
    parser.add_argument("--data", metavar="DIR", help="with a checkpoint: folder with dict.LANG.txt")
    parser.add_argument("--source", required=True, metavar="FILE", help="raw text, one sentence a line")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="timings; 3 at least")


def run(args: argparse.Namespace) -> int:
    """Translate, time and print both."""
    from fairseq_compress.evaluation.timed_translation import translate_and_time
    from fairseq_compress.evaluation.timing import check_timings
    from fairseq_compress.runtimes.opened import RuntimeOptions
    from fairseq_compress.work.files import read_lines

    check_timings("--runs", args.runs)
    options = RuntimeOptions(sentencepiece=given_models(args), data=args.data)
    translated, timings = translate_and_time(args.model, list(read_lines(args.source)), args.runs, options)
    print(*translated, *timings.lines(), sep="\n")
    return 0
