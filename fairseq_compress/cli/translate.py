"""``fairseq-compress translate``: raw text in, raw text out, with a model directory or a checkpoint."""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from typing import IO, Any

from fairseq_compress.inference.search_options import SearchOptions, add_search_arguments, given_search

HELP = (
    "Translate the lines of the standard input, in order, in bounded memory. Empty lines stay empty; a line that is "
    "not UTF-8 is reported and left as it is."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument(
        "--model",
        required=True,
        metavar="DIR|C.pt",
        help="a directory of export, or a checkpoint, packed or not",
    )
    parser.add_argument(
        "--sentencepiece-model", metavar="M.model", help="with a checkpoint: that cut its training text"
    )
    parser.add_argument("--data", metavar="DIR", help="with a checkpoint: folder with dict.LANG.txt")
    parser.add_argument("--threads", type=int, metavar="N", help="default: all cores")
    lines = parser.add_argument_group("lines")
    lines.add_argument(
        "--longest", type=int, default=256, metavar="N", help="pieces of a line that are translated at once"
    )
    lines.add_argument(
        "--long-lines", choices=("split", "refuse"), default="split",
        help="cut longer ones at ends of sentences or words, or stop there",
    )  # fmt: skip
    lines.add_argument(
        "--nbest", type=int, metavar="K", help="write K lines 'number<TAB>score<TAB>text' for each line, from 0"
    )
    lines.add_argument("--scores", action="store_true", help="the same with K = 1")
    search = parser.add_argument_group("search; defaults: those of the export, else of fairseq-generate")
    add_search_arguments(search)


def run(args: argparse.Namespace) -> int:
    """Translate stdin to stdout."""
    from fairseq_compress.errors import ConfigError
    from fairseq_compress.inference.translation_lines import LINES_AT_ONCE, LineOptions, translate_lines

    if args.threads is not None and args.threads < 1:
        raise ConfigError(f"--threads: must be at least 1, got {args.threads}")
    for name, stream in (("input", sys.stdin), ("output", sys.stdout)):
        if stream is None:  # it is, when the shell has closed it
            raise ConfigError(f"standard {name}: must be open, is closed")
    options = LineOptions(1 if args.nbest is None else args.nbest, args.longest, args.long_lines == "split")
    if not os.path.exists(args.model):
        raise ConfigError(
            f"--model: must be a directory of fairseq-compress export or a checkpoint, {args.model} is not there"
        )
    model, segmenter = _open_directory(args) if os.path.isdir(args.model) else _open_checkpoint(args)
    numbered = args.nbest is not None or args.scores
    output = sys.stdout.buffer
    typed = sys.stdin.isatty()  # who types a line waits for its translation
    found = translate_lines(_lines(sys.stdin.buffer), model, segmenter, options, _report, 1 if typed else LINES_AT_ONCE)
    for number, translation in enumerate(_progress(found)):
        if numbered:
            for score, text in translation.hypotheses:
                output.write(f"{number}\t{score:.6f}\t{text}\n".encode())
        else:
            output.write((translation.raw or translation.hypotheses[0][1].encode()) + b"\n")
        if typed:
            output.flush()
    output.flush()
    return 0


def _open_directory(args: argparse.Namespace) -> tuple[Any, Any]:
    from fairseq_compress.corpus.segmentation import Segmenter
    from fairseq_compress.errors import ConfigError
    from fairseq_compress.inference.model_directory import ModelDirectory
    from fairseq_compress.inference.open_model import open_model

    for option in ("sentencepiece_model", "data"):
        if getattr(args, option) is not None:
            raise ConfigError(f"--{option.replace('_', '-')}: goes with a checkpoint, {args.model} is a directory")
    directory = ModelDirectory.open(args.model)
    search = _search(args, directory.metadata["search"])
    return open_model(directory, search, args.nbest or 1, args.threads), Segmenter(directory.vocabulary)


def _open_checkpoint(args: argparse.Namespace) -> tuple[Any, Any]:
    from fairseq_compress.errors import ConfigError

    if args.sentencepiece_model is None:
        raise ConfigError(f"--sentencepiece-model: must be given with the checkpoint {args.model}")
    import fairseq.tasks.translation  # noqa: F401 - before register(), which does nothing without fairseq
    import torch

    import fairseq_compress
    from fairseq_compress.corpus.segmentation import Segmenter
    from fairseq_compress.teachers.loading import load_models, pick_device
    from fairseq_compress.teachers.translator import CheckpointModel

    fairseq_compress.register()
    if args.threads:
        torch.set_num_threads(args.threads)
    models = load_models(args.model, args.data, device=pick_device("auto"))
    return CheckpointModel(models, _search(args, {}), args.nbest or 1), Segmenter(args.sentencepiece_model)


def _search(args: argparse.Namespace, defaults: dict[str, Any]) -> SearchOptions:
    """Options of the command line over those of the model; a beam holds at least the hypotheses that are wanted."""
    search = SearchOptions(**(defaults | given_search(args)))
    if args.nbest is not None and args.nbest > search.beam:
        from fairseq_compress.errors import ConfigError

        raise ConfigError(f"--nbest: must be at most --beam ({search.beam}), got {args.nbest}")
    return search


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    for line in stream:
        yield line.removesuffix(b"\n").removesuffix(b"\r")


def _progress(items: Iterable[Any]) -> Iterable[Any]:
    """A counter on a terminal, when the translations go elsewhere."""
    if not sys.stderr.isatty() or sys.stdout.isatty():
        return items
    from tqdm import tqdm

    counted: Iterable[Any] = tqdm(items, unit=" lines", file=sys.stderr)
    return counted


def _report(message: str) -> None:
    print(f"fairseq-compress translate: {message}", file=sys.stderr)
