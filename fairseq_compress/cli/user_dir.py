"""``fairseq-compress user-dir``: the folder of this package."""

from dataclasses import dataclass
from pathlib import Path

import fairseq_compress

HELP = (
    "Print the folder of the installed package, for --user-dir of fairseq's commands: fairseq-train --user-dir "
    '"$(fairseq-compress user-dir)". fairseq looks for a relative path in the folder that it is called from.'
)
EXAMPLES = ("", "> folder.txt")


@dataclass(frozen=True)
class Options:
    """None."""


def run(args: Options) -> None:
    print(Path(fairseq_compress.__file__).resolve().parent)
