"""``fairseq-compress average``: several checkpoints of one training run -> their mean."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fairseq_compress.cli import common
from fairseq_compress.options import option

HELP = (
    "Average the weights of several checkpoints: the --last N of a directory, or the files that are given. In a "
    "directory, checkpoint_best.pt, crash and temporary files are ignored; checkpoint_last.pt is used with "
    "--include-last only."
)
EXAMPLES = (
    "checkpoints averaged.pt --last 5",
    "--checkpoint checkpoint8.pt checkpoint9.pt checkpoint10.pt --output averaged.pt",
)
POSITIONAL = ("checkpoint", "output")


@dataclass(frozen=True, kw_only=True)
class Options:
    checkpoint: tuple[str, ...] = common.checkpoint("checkpoints in any order, or one directory", "C.pt|DIR")
    output: str = common.output("the averaged checkpoint, without optimizer state", "AVG.pt")
    last: int | None = common.number(None, "with a directory: number of checkpoints, the newest")
    by: str | None = option(
        None, "with a directory: order by epoch (checkpointE.pt) or by update (checkpoint_E_U.pt); default: epoch",
        choices=("epoch", "update"), needs="last",
    )  # fmt: skip
    include_last: bool = option(
        False, "with a directory: count checkpoint_last.pt as one of the N if it is newer than the others",
        needs="last",
    )  # fmt: skip

    def problems(self) -> Iterator[str]:
        directory = len(self.checkpoint) == 1 and os.path.isdir(self.checkpoint[0])
        if directory and self.last is None:
            yield f"--last: must be given with the directory {self.checkpoint[0]}"
        if self.last is not None and len(self.checkpoint) > 1:
            yield f"--last: requires one directory, got {len(self.checkpoint)} paths"
        elif self.last is not None and os.path.isfile(self.checkpoint[0]):
            yield f"--last: requires a directory, got the file {self.checkpoint[0]}"
        elif len(self.checkpoint) == 1 and not directory and os.path.exists(self.output):
            yield (
                f"--output: {self.output} exists, and there is one checkpoint; several are given by "
                "--checkpoint A.pt B.pt --output AVERAGE.pt"
            )


def run(args: Options) -> None:
    from fairseq_compress.checkpoint.average import select_checkpoints, write_average

    paths: Sequence[str | os.PathLike[str]] = args.checkpoint
    if args.last is not None:
        paths = select_checkpoints(paths[0], args.last, args.by or "epoch", args.include_last)
    state = write_average(paths, args.output, progress=True)
    sources = ", ".join(f"{s['name']} ({s['num_updates']} updates)" for s in state["extra_state"]["averaged_from"])
    common.tell(f"{args.output}: the average of {sources}")
