"""``fairseq-compress time``: a translation with its speed from several timings."""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairseq_compress import register
from fairseq_compress.cli import common
from fairseq_compress.cli.parser import part
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.options import flag, option

HELP = (
    "Measure translation speed. A text is translated with a checkpoint or a directory written by export, then a sample "
    "of it is translated and timed several times. With arguments of fairseq-generate after --, fairseq-generate runs "
    "instead, then its search is timed on a sample of the batches. The last two lines of standard output are "
    "'# sentences: N' and '# seconds: S S S', the values of score --timed-sentences and --translation-seconds."
)
EXAMPLES = (
    "student-int8 --source test.en > test.log",
    "-- data-bin/en-cs --path student.pt --beam 5 --gen-subset test > test.log",
)
POSITIONAL = ("checkpoint",)
REST = "DATA fairseq-generate options"


@dataclass(frozen=True, kw_only=True)
class Options:
    checkpoint: str | None = common.checkpoint(
        "a directory written by export, or a checkpoint", "DIR|C.pt", required=False
    )
    source: str | None = common.source("raw text", required=False)
    data: str | None = common.data("with a checkpoint: folder with dict.LANG.txt; default: next to the checkpoint")
    threads: int | None = common.threads()
    runs: int = option(3, "number of timings", range="[3, inf)", metavar="N")
    segmentation: common.SegmentationOptions = part(common.SegmentationOptions, "subwords, with a checkpoint")
    search: dict[str, Any] = part(
        SearchOptions, "search; defaults: the options of the export, or those of fairseq-generate", given=True
    )
    rest: tuple[str, ...] = ()

    def problems(self) -> Iterator[str]:
        if (self.checkpoint is None) != bool(self.rest):
            yield "CHECKPOINT: exactly one of it and the arguments of fairseq-generate, after --, must be given"
        if (self.checkpoint is None) != (self.source is None):
            yield "--source: must be given with CHECKPOINT, and not without"
        if self.rest and self.search:
            names = ", ".join(map(flag, self.search))
            yield f"{names}: must be among the arguments of fairseq-generate, after --"


def run(args: Options) -> int:
    if args.checkpoint is None or args.source is None:
        return _generate(args)
    from fairseq_compress.evaluation.timing import translate_and_time
    from fairseq_compress.runtimes.options import RuntimeOptions
    from fairseq_compress.work.files import read_lines

    options = RuntimeOptions(args.search, threads=args.threads, segmentation=args.segmentation.given(), data=args.data)
    translated, timings = translate_and_time(args.checkpoint, list(read_lines(args.source)), args.runs, options)
    print(*translated, *timings.lines(), sep="\n")
    return 0


def _generate(args: Options) -> int:
    logging.basicConfig(level=logging.INFO)  # else fairseq's goes to the standard output
    sys.argv = ["fairseq-generate", *_without_plugin(args.rest)]
    register()
    from fairseq_compress.evaluation.timed_generation import generate_and_time

    print(*generate_and_time(args.runs).lines(), sep="\n")
    return 0


def _without_plugin(arguments: Sequence[str]) -> list[str]:
    """The arguments without the ``--user-dir`` of this package, which is already loaded."""
    package = Path(__file__).resolve().parents[1]
    for place, word in enumerate(arguments):
        option, equals, value = word.partition("=")
        given = [value] if equals else arguments[place + 1 : place + 2]
        if option == "--user-dir" and given and os.path.realpath(given[0]) == str(package):
            return [*arguments[:place], *arguments[place + (1 if equals else 2) :]]
    return list(arguments)
