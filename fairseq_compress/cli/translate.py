"""``fairseq-compress translate``: raw text in, raw text out, with a model directory or a checkpoint."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fairseq_compress.cli import common
from fairseq_compress.cli.opening import open_checkpoint
from fairseq_compress.cli.parser import part
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.options import option

if TYPE_CHECKING:
    from fairseq_compress.decoding.translation_lines import Translation

HELP = (
    "Translate the lines of the standard input, in order, in bounded memory; when the input pauses, what has come is "
    "translated and written. Empty lines stay empty; a line that is not UTF-8 is reported and left unchanged."
)
EXAMPLES = (
    "student-int8 < in.en > out.cs",
    "student.pt --data data-bin/en-cs --sentencepiece-model spm.model --beam 1 < in.en > out.cs",
)
POSITIONAL = ("checkpoint",)


@dataclass(frozen=True)
class LineSettings:
    """How lines are read and written."""

    longest: int = option(256, "subwords of a line that are translated at once", range="[1, inf)", metavar="N")
    long_lines: str = option(
        "split", "cut longer ones at ends of sentences, clauses or words, or stop there", choices=("split", "refuse")
    )
    nbest: int | None = option(
        None, "write K lines 'number<TAB>score<TAB>text' for each line, from 0", range="[1, inf)", metavar="K"
    )
    scores: bool = option(False, "the same with K = 1")
    flush_every: int | None = option(
        None, "translate and write N lines at a time, whether the input pauses or not; 1: line by line",
        range="[1, inf)", metavar="N",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the verb."""

    checkpoint: str = common.checkpoint("a directory of export, or a checkpoint, packed or not", "DIR|C.pt")
    data: str | None = common.data("with a checkpoint: folder with dict.LANG.txt; default: next to the checkpoint")
    threads: int | None = common.threads()
    sentencepiece: common.SentencePieceModels = part(common.SentencePieceModels, "subwords, with a checkpoint")
    lines: LineSettings = part(LineSettings, "lines")
    search: dict[str, Any] = part(
        SearchOptions, "search; defaults: those of the export, else of fairseq-generate", given=True
    )


def run(args: Options) -> int:
    """Translate stdin to stdout."""
    from fairseq_compress.decoding.line_input import read_lines, read_lines_as_they_come
    from fairseq_compress.decoding.translation_lines import LINES_AT_ONCE, translate_lines
    from fairseq_compress.errors import ConfigError

    for name, stream in (("input", sys.stdin), ("output", sys.stdout)):
        if stream is None:  # it is, when the shell has closed it
            raise ConfigError(f"standard {name}: must be open, is closed")
    lines, nbest, every = args.lines, args.lines.nbest or 1, args.lines.flush_every
    opened = open_checkpoint(args.checkpoint, args.data, args.sentencepiece, args.search, nbest, args.threads)
    options = opened.line_options(nbest=nbest, longest=lines.longest, split=lines.long_lines == "split")
    output = sys.stdout.buffer
    read = read_lines_as_they_come(sys.stdin.buffer, output.flush) if every is None else read_lines(sys.stdin.buffer)
    found = translate_lines(read, opened.model, opened.segmenter, options, _report, every or LINES_AT_ONCE)
    for number, translation in enumerate(_progress(found)):
        output.write(_line(number, translation, lines.nbest is not None or lines.scores))
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
    common.tell(f"fairseq-compress translate: {message}")
