"""The options that verbs share, with the same name for the same thing everywhere."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass
from typing import Any

from fairseq_compress.corpus.segmentation import SEGMENTERS, TOKENIZERS
from fairseq_compress.corpus.segmentation.choice import Segmentation
from fairseq_compress.options import flag, option


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
class SegmentationOptions:
    """How text becomes subwords: a kind, one file for both languages or one for each, and the tokenizer before it."""

    segmentation: str | None = option(
        None, "how the training text was segmented; default: sentencepiece", choices=SEGMENTERS
    )
    sentencepiece_model: str | None = option(
        None, "SentencePiece model used to segment the training text", metavar="M.model"
    )
    source_sentencepiece_model: str | None = option(
        None, "SentencePiece model of the source, if each language has its own", metavar="M.model"
    )
    target_sentencepiece_model: str | None = option(
        None, "SentencePiece model of the target, if each language has its own", metavar="M.model"
    )
    bpe_codes: str | None = option(
        None, "merges of subword-nmt or fastBPE used to segment the training text", metavar="CODES"
    )
    source_bpe_codes: str | None = option(None, "merges of the source, if each language has its own", metavar="CODES")
    target_bpe_codes: str | None = option(None, "merges of the target, if each language has its own", metavar="CODES")
    tokenizer: str = option("none", "tokenizer of the training text, before its segmentation", choices=TOKENIZERS)
    moses_no_escape: bool = option(
        False, "the tokenizer wrote no &apos; and the like (-no-escape of Moses)", needs="tokenizer=moses"
    )
    moses_no_dash_splits: bool = option(
        False, "the tokenizer did not split hyphens as @-@ (without -a of Moses)", needs="tokenizer=moses"
    )

    def given(self) -> Segmentation | None:
        """The segmentation; None if no option was given."""
        files = self._files()
        if self.segmentation is None and self.tokenizer == "none" and not any(files.values()):
            return None
        kind = self.segmentation or "sentencepiece"
        source, target = self._sides(kind)
        other = None if target == source else target
        return Segmentation(source, other, kind, self.tokenizer, self.moses_no_escape, self.moses_no_dash_splits)

    def problems(self) -> Iterator[str]:
        kind = self.segmentation or "sentencepiece"
        if kind not in SEGMENTERS:
            return  # told by its choices
        wrong = [name for name, file in self._files().items() if file is not None and self._stem(kind) not in name]
        if wrong:
            fit = " or ".join(name for name in SEGMENTERS if self._stem(name) in wrong[0])
            yield f"{flag(wrong[0])}: requires --segmentation {fit}, got {kind}"
        source, target = self._sides(kind)
        if (source is None) != (target is None):
            side, name = "source" if source is None else "target", SEGMENTERS[kind].option
            yield f"--{side}-{name[2:]}: must be given too, or {name} for both sides"
        elif source is None and SEGMENTERS[kind].file and not wrong and (self.segmentation or self.tokenizer != "none"):
            by = f"--tokenizer {self.tokenizer}" if self.segmentation is None else f"--segmentation {kind}"
            yield f"{SEGMENTERS[kind].option}: must be given with {by}, or one for each side"

    def _files(self) -> dict[str, str | None]:
        names = (
            f"{side}{stem}" for stem in ("sentencepiece_model", "bpe_codes") for side in ("", "source_", "target_")
        )
        return {name: getattr(self, name) for name in names}

    def _sides(self, kind: str) -> tuple[str | None, str | None]:
        files, stem = self._files(), self._stem(kind)
        source, target = (files.get(f"{side}_{stem}") or files.get(stem) for side in ("source", "target"))
        return source, target

    def _stem(self, kind: str) -> str:
        """The name of its file in the names of options."""
        return SEGMENTERS[kind].option[2:].replace("-", "_") if SEGMENTERS[kind].file else "no file"


def required_segmentation(options: SegmentationOptions) -> Iterator[str]:
    """A message if no segmentation was given, for verbs that require one."""
    if not list(options.problems()) and options.given() is None:
        yield "--sentencepiece-model: must be given, or one for each side, or another --segmentation"


def tell(message: str) -> None:
    """Print a message on the standard error."""
    print(message, file=sys.stderr)
