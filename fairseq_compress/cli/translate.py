"""``fairseq-compress translate``: raw text in, raw text out, with a model directory or a checkpoint."""

import argparse
import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fairseq_compress.cli.sentencepiece_models import OPTIONS, add_sentencepiece_arguments, given_models
from fairseq_compress.decoding.search_options import SearchOptions, add_search_arguments, given_search

if TYPE_CHECKING:
    from fairseq_compress.corpus.segmentation import Segmenter
    from fairseq_compress.decoding.translation_lines import PieceTranslator, Translation

    Opened = tuple[PieceTranslator, Segmenter, tuple[str, str]]  # and the languages

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
    lines.add_argument(
        "--longest", type=int, default=256, metavar="N", help="pieces of a line that are translated at once"
    )
    lines.add_argument(
        "--long-lines", choices=("split", "refuse"), default="split",
        help="cut longer ones at ends of sentences, clauses or words, or stop there",
    )  # fmt: skip
    lines.add_argument(
        "--nbest", type=int, metavar="K", help="write K lines 'number<TAB>score<TAB>text' for each line, from 0"
    )
    lines.add_argument("--scores", action="store_true", help="the same with K = 1")
    lines.add_argument(
        "--flush-every", type=int, metavar="N",
        help="translate and write N lines at a time, whether the input pauses or not; 1: line by line",
    )  # fmt: skip
    search = parser.add_argument_group("search; defaults: those of the export, else of fairseq-generate")
    add_search_arguments(search)


def run(args: argparse.Namespace) -> int:
    """Translate stdin to stdout."""
    from fairseq_compress.decoding.line_input import read_lines, read_lines_as_they_come
    from fairseq_compress.decoding.translation_lines import LINES_AT_ONCE, LineOptions, translate_lines
    from fairseq_compress.errors import ConfigError

    for option, value in (("--threads", args.threads), ("--flush-every", args.flush_every)):
        if value is not None and value < 1:
            raise ConfigError(f"{option}: must be at least 1, got {value}")
    for name, stream in (("input", sys.stdin), ("output", sys.stdout)):
        if stream is None:  # it is, when the shell has closed it
            raise ConfigError(f"standard {name}: must be open, is closed")
    options = LineOptions(1 if args.nbest is None else args.nbest, args.longest, args.long_lines == "split")
    if not os.path.exists(args.model):
        raise ConfigError(
            f"--model: must be a directory of fairseq-compress export or a checkpoint, {args.model} is not there"
        )
    model, segmenter, languages = _open_directory(args) if os.path.isdir(args.model) else _open_checkpoint(args)
    options = replace(options, source_lang=languages[0], target_lang=languages[1])
    output, every = sys.stdout.buffer, args.flush_every
    lines = read_lines_as_they_come(sys.stdin.buffer, output.flush) if every is None else read_lines(sys.stdin.buffer)
    found = translate_lines(lines, model, segmenter, options, _report, every or LINES_AT_ONCE)
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


def _open_directory(args: argparse.Namespace) -> "Opened":
    from fairseq_compress.errors import ConfigError
    from fairseq_compress.runtimes.open_model import open_directory

    for option in (*OPTIONS, "data"):
        if getattr(args, option) is not None:
            raise ConfigError(f"--{option.replace('_', '-')}: requires a checkpoint, {args.model} is a directory")
    opened = open_directory(args.model, given_search(args), args.nbest or 1, args.threads)
    return opened.model, opened.segmenter, opened.languages


def _open_checkpoint(args: argparse.Namespace) -> "Opened":
    from fairseq_compress.errors import ConfigError

    if (files := given_models(args)) is None:
        raise ConfigError(f"--sentencepiece-model: must be given with the checkpoint {args.model}")
    search = SearchOptions(**given_search(args))
    search.check_nbest(args.nbest or 1)
    import fairseq.tasks.translation  # noqa: F401 - before register(), which does nothing without fairseq
    import torch

    import fairseq_compress
    from fairseq_compress.runtimes.torch.translator import CheckpointModel
    from fairseq_compress.teachers.loading import load_models, pick_device

    fairseq_compress.register()
    if args.threads:
        torch.set_num_threads(args.threads)
    models = load_models(args.model, args.data, device=pick_device("auto"))
    segmenter = models.open_segmenter(*files)
    model = CheckpointModel(models, search, args.nbest or 1)
    return model, segmenter, (models.source_lang, models.target_lang)


def _progress(items: Iterable[Any]) -> Iterable[Any]:
    """A counter on a terminal, when the translations go elsewhere."""
    if not sys.stderr.isatty() or sys.stdout.isatty():
        return items
    from fairseq_compress.work.files import progress

    return progress(items, None, "translate")


def _report(message: str) -> None:
    print(f"fairseq-compress translate: {message}", file=sys.stderr)
