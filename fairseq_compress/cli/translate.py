"""``fairseq-compress translate``: raw text in, raw text out, with a model directory or a checkpoint."""

import argparse
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fairseq_compress.cli.sentencepiece_models import add_sentencepiece_arguments, given_models
from fairseq_compress.decoding.line_options import LineOptions
from fairseq_compress.decoding.search_options import SearchOptions, given_search
from fairseq_compress.options import add_arguments as add_options

if TYPE_CHECKING:
    from fairseq_compress.decoding.translation_lines import Translation

HELP = (
    "Translate the lines of the standard input, in order, in bounded memory; when the input pauses, what has come is "
    "translated and written. Empty lines stay empty; a line that is not UTF-8 is reported and left as it is."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument(
        "--model",
        required=True,
        metavar="DIR|C.pt",
        help="a directory of export, or a checkpoint, packed or not",
    )
    add_sentencepiece_arguments(parser, "with a checkpoint: that cut its training text")
    parser.add_argument("--data", metavar="DIR", help="with a checkpoint: folder with dict.LANG.txt")
    parser.add_argument("--threads", type=int, metavar="N", help="default: OMP_NUM_THREADS if set, else all cores")
    lines = parser.add_argument_group("lines")
    add_options(lines, LineOptions, names=("longest", "long_lines"))
    lines.add_argument(
        "--nbest", type=int, metavar="K", help="write K lines 'number<TAB>score<TAB>text' for each line, from 0"
    )
    lines.add_argument("--scores", action="store_true", help="the same with K = 1")
    lines.add_argument(
        "--flush-every", type=int, metavar="N",
        help="translate and write N lines at a time, whether the input pauses or not; 1: line by line",
    )  # fmt: skip
    search = parser.add_argument_group("search; defaults: those of the export, else of fairseq-generate")
    add_options(search, SearchOptions, suppress=True)


def run(args: argparse.Namespace) -> int:
    """Translate stdin to stdout."""
    from fairseq_compress import runtimes
    from fairseq_compress.decoding.line_input import read_lines, read_lines_as_they_come
    from fairseq_compress.decoding.translation_lines import LINES_AT_ONCE
    from fairseq_compress.errors import ConfigError
    from fairseq_compress.runtimes.opened import RuntimeOptions

    for option, value in (("--threads", args.threads), ("--flush-every", args.flush_every)):
        if value is not None and value < 1:
            raise ConfigError(f"{option}: must be at least 1, got {value}")
    for name, stream in (("input", sys.stdin), ("output", sys.stdout)):
        if stream is None:  # it is, when the shell has closed it
            raise ConfigError(f"standard {name}: must be open, is closed")
    nbest = 1 if args.nbest is None else args.nbest
    lines = {"nbest": nbest, "longest": args.longest, "long_lines": args.long_lines}
    LineOptions(**lines)  # checked before the model is loaded
    model = runtimes.open(
        args.model,
        RuntimeOptions(
            given_search(args), nbest, threads=args.threads, sentencepiece=given_models(args), data=args.data
        ),
    )
    output, every = sys.stdout.buffer, args.flush_every
    source = read_lines_as_they_come(sys.stdin.buffer, output.flush) if every is None else read_lines(sys.stdin.buffer)
    found = model.translate(source, report=_report, lines_at_once=every or LINES_AT_ONCE, **lines)
    for number, translation in enumerate(_progress(found)):
        output.write(_line(number, translation, args.nbest is not None or args.scores))
        if every is not None and (number + 1) % every == 0:
            output.flush()
    output.flush()
    return 0


def _line(number: int, translation: "Translation", numbered: bool) -> bytes:
    """What is written for a line of the input."""
    if numbered:
        return "".join(f"{number}\t{score:.6f}\t{text}\n" for score, text in translation.hypotheses).encode()
    return (translation.raw or translation.hypotheses[0][1].encode()) + b"\n"


def _progress(items: Iterable[Any]) -> Iterable[Any]:
    """A counter on a terminal, when the translations go elsewhere."""
    if not sys.stderr.isatty() or sys.stdout.isatty():
        return items
    from fairseq_compress.work.files import progress

    return progress(items, None, "translate")


def _report(message: str) -> None:
    print(f"fairseq-compress translate: {message}", file=sys.stderr)
