"""``fairseq-compress translate``: raw text in, raw text out, with a model directory or a checkpoint."""

import gc
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fairseq_compress.cli import common
from fairseq_compress.cli.parser import part
from fairseq_compress.decoding.search_options import LineOptions, SearchOptions
from fairseq_compress.options import option

if TYPE_CHECKING:
    from fairseq_compress.decoding.translation_lines import Translation

HELP = (
    "Translate standard input line by line to standard output, in constant memory. When the input pauses, all lines "
    "read so far are translated and written. Empty lines stay empty; a line that is not UTF-8 is reported and copied."
)
EXAMPLES = (
    "student-int8 < in.en > out.cs",
    "student.pt --data data-bin/en-cs --sentencepiece-model spm.model --beam 1 < in.en > out.cs",
)
POSITIONAL = ("checkpoint",)


@dataclass(frozen=True, kw_only=True)
class Options:
    checkpoint: str = common.checkpoint("a directory written by export, or a checkpoint, packed or not", "DIR|C.pt")
    data: str | None = common.data("with a checkpoint: folder with dict.LANG.txt; default: next to the checkpoint")
    threads: int | None = common.threads()
    scores: bool = option(False, "write lines 'number<TAB>score<TAB>text', numbered from 0, as --nbest also does")
    flush_every: int | None = common.number(
        None, "translate and write exactly N lines at a time, whether the input pauses or not"
    )
    segmentation: common.SegmentationOptions = part(common.SegmentationOptions, "subwords, with a checkpoint")
    lines: dict[str, Any] = part(LineOptions, "lines; defaults: 1, 256, split", given=True)
    search: dict[str, Any] = part(
        SearchOptions, "search; defaults: the options of the export, or those of fairseq-generate", given=True
    )


def run(args: Options) -> None:
    from fairseq_compress import runtimes
    from fairseq_compress.decoding.line_input import read_lines, read_lines_as_they_come
    from fairseq_compress.errors import ConfigError
    from fairseq_compress.runtimes.options import RuntimeOptions

    for name, stream in (("input", sys.stdin), ("output", sys.stdout)):
        if stream is None:  # it is, when the shell has closed it
            raise ConfigError(f"standard {name}: must be open, is closed")
    nbest, every, segmentation = LineOptions(**args.lines).nbest, args.flush_every, args.segmentation.given()
    options = RuntimeOptions(args.search, nbest, threads=args.threads, segmentation=segmentation, data=args.data)
    gc.disable()  # which takes 8 of 80 ms while modules are imported
    try:
        model = runtimes.open(args.checkpoint, options)
        from fairseq_compress.decoding.translation_lines import LINES_AT_ONCE  # when the runtime has begun to load
    finally:
        gc.enable()
    output = sys.stdout.buffer
    source = read_lines_as_they_come(sys.stdin.buffer, output.flush) if every is None else read_lines(sys.stdin.buffer)
    found = model.translate(
        source, report=lambda message: common.tell(f"fairseq-compress translate: {message}"),
        lines_at_once=every or LINES_AT_ONCE, **args.lines,
    )  # fmt: skip
    for number, translation in enumerate(_progress(found)):
        output.write(_line(number, translation, args.scores or "nbest" in args.lines))
        if every is not None and (number + 1) % every == 0:
            output.flush()
    output.flush()


def _line(number: int, translation: "Translation", numbered: bool) -> bytes:
    if numbered:
        return "".join(f"{number}\t{score:.6f}\t{text}\n" for score, text in translation.hypotheses).encode()
    return (translation.raw or translation.hypotheses[0][1].encode()) + b"\n"


def _progress(items: Iterable[Any]) -> Iterable[Any]:
    """Show a progress bar on a terminal, unless the translations go there."""
    if not sys.stderr.isatty() or sys.stdout.isatty():
        return items
    from fairseq_compress.work.files import progress

    return progress(items, None, "translate")
