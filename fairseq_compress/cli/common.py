"""The options that verbs share, with the same name for the same thing everywhere."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass
from typing import Any

from fairseq_compress.options import option


def _noun(metavar: str, help: str = "", required: bool = True) -> Callable[..., Any]:
    """A function that declares an option, with defaults for help and metavar."""

    def declare(help: str = help, metavar: str = metavar, required: bool = required) -> Any:
        return option(MISSING if required else None, help, metavar=metavar)

    return declare


checkpoint = _noun("C.pt", "a checkpoint, packed or not")
output = _noun("FILE")
source = _noun("FILE", "the text that was translated")
reference = _noun("FILE")
nbest = _noun("FILE", "n-best file, with FILE.json")
data = _noun("DIR", "folder with dict.LANG.txt; default: next to the checkpoint", required=False)
sentencepiece_model = _noun("M.model", "SentencePiece model")
language = _noun("LANG", required=False)


def number(default: int | None, help: str) -> Any:
    """An option that is a whole number above 0."""
    return option(default, help, range="[1, inf)", metavar="N")


def window(of: str) -> Any:
    return number(65_536, f"number of {of} that are sorted by length together")


def threads() -> Any:
    return number(None, "CPU threads; default: OMP_NUM_THREADS if set, else all cores")


def processes() -> Any:
    help = "processes on this machine that share the work and its cores; not under torchrun or srun"
    return number(1, help)


def device() -> Any:
    return option("auto", "device of the model", choices=("auto", "cpu", "cuda"))


def precision(of: str) -> Any:
    return option("float32", f"type {of}", choices=("float32", "bfloat16"))


def join_only() -> Any:
    return option(False, "only verify and join the logs of a run")


@dataclass(frozen=True)
class SentencePieceModels:
    """One SentencePiece model for both languages, or one for each."""

    sentencepiece_model: str | None = option(
        None, "SentencePiece model used to segment the training text", metavar="M.model"
    )
    source_sentencepiece_model: str | None = option(
        None, "SentencePiece model of the source, if each language has its own", metavar="M.model"
    )
    target_sentencepiece_model: str | None = option(
        None, "SentencePiece model of the target, if each language has its own", metavar="M.model"
    )

    def given(self) -> tuple[str, str | None] | None:
        """The model of the source, and that of the target, None if it is the same; None without models."""
        source, target = self._both()
        return None if source is None else (source, None if target == source else target)

    def problems(self) -> Iterator[str]:
        source, target = self._both()
        if (source is None) != (target is None):
            side = "source" if source is None else "target"
            yield f"--{side}-sentencepiece-model: must be given too, or --sentencepiece-model for both sides"

    def _both(self) -> tuple[str | None, str | None]:
        both = self.sentencepiece_model
        return self.source_sentencepiece_model or both, self.target_sentencepiece_model or both


def tell(message: str) -> None:
    """Print a message on the standard error."""
    print(message, file=sys.stderr)
