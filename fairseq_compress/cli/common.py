"""The options that verbs share: one name for one thing everywhere.

``--checkpoint`` a model, ``--data`` a binarized folder, ``--sentencepiece-model``, ``--source`` and ``--reference``
text, ``--output`` what is written. The functions return an option with the help of the verb.
"""

import sys
from collections.abc import Iterator
from dataclasses import MISSING, dataclass
from typing import Any

from fairseq_compress.options import option


def checkpoint(help: str = "a checkpoint, packed or not", metavar: str = "C.pt", default: Any = MISSING) -> Any:
    """``--checkpoint``: a model of any form that the verb takes."""
    return option(default, help, metavar=metavar)


def output(help: str, metavar: str = "FILE") -> Any:
    """``--output``: a file, folder or prefix."""
    return option(help=help, metavar=metavar)


def source(help: str = "the text that was translated", default: Any = MISSING) -> Any:
    """``--source``: text, one sentence a line."""
    return option(default, help, metavar="FILE")


def reference(help: str, default: Any = MISSING) -> Any:
    """``--reference``: translations of the source by people."""
    return option(default, help, metavar="FILE")


def data(help: str = "folder with dict.LANG.txt; default: next to the checkpoint", required: bool = False) -> Any:
    """``--data``: a binarized folder."""
    return option(MISSING if required else None, help, metavar="DIR")


def sentencepiece_model(help: str = "written by train-vocabulary", default: Any = MISSING) -> Any:
    """``--sentencepiece-model``: one for both languages."""
    return option(default, help, metavar="M.model")


def language(help: str, required: bool = False) -> Any:
    """``--source-lang`` and ``--target-lang``."""
    return option(MISSING if required else None, help, metavar="LANG")


def nbest(help: str = "n-best file, with FILE.json") -> Any:
    """``--nbest``: hypotheses of a teacher."""
    return option(help=help, metavar="FILE")


def device() -> Any:
    """``--device``."""
    return option("auto", "where the model runs", choices=("auto", "cpu", "cuda"))


def threads() -> Any:
    """``--threads``."""
    return option(None, "default: OMP_NUM_THREADS if set, else all cores", range="[1, inf)", metavar="N")


def processes() -> Any:
    """``--processes``, of a verb that :mod:`fairseq_compress.cli.local_ranks` starts several times."""
    return option(
        1, "share the work between N processes on this machine, each with its share of the cores; torchrun and srun "
        "start the processes themselves", range="[1, inf)", metavar="N",
    )  # fmt: skip


def precision(of: str) -> Any:
    """``--precision``."""
    return option("float32", f"type {of}", choices=("float32", "bfloat16"))


def window(of: str) -> Any:
    """``--window``."""
    return option(65_536, f"{of} that are sorted by length at a time", range="[1, inf)", metavar="N")


def join_only() -> Any:
    """``--join-only``."""
    return option(False, "compute nothing, only join what the processes of a run have written")


@dataclass(frozen=True)
class SentencePieceModels:
    """One SentencePiece model for both languages, or one for each."""

    sentencepiece_model: str | None = option(
        None, "SentencePiece model used to segment the training text", metavar="M.model"
    )
    source_sentencepiece_model: str | None = option(None, "that of the source alone", metavar="M.model")
    target_sentencepiece_model: str | None = option(None, "that of the target alone", metavar="M.model")

    def given(self) -> tuple[str, str | None] | None:
        """The model of the source, and that of the target or None if it is the same; None without any of them."""
        source, target = self._both()
        return None if source is None else (source, None if target == source else target)

    def problems(self) -> Iterator[str]:
        """One side alone has a model."""
        for side, own, other in zip(("source", "target"), self._both(), reversed(self._both()), strict=True):
            if own is None and other is not None:
                yield f"--{side}-sentencepiece-model: must be given too, or --sentencepiece-model for both sides"

    def _both(self) -> tuple[str | None, str | None]:
        both = self.sentencepiece_model
        return self.source_sentencepiece_model or both, self.target_sentencepiece_model or both


def tell(message: str) -> None:
    """Print a result for people, on the standard error."""
    print(message, file=sys.stderr)
