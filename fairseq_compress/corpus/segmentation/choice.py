"""Which segmentation a model has: a value that options, model directories and checksums are made of."""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fairseq_compress.corpus.segmentation import SEGMENTERS, TOKENIZERS
from fairseq_compress.errors import ConfigError
from fairseq_compress.extras import explained
from fairseq_compress.options import check, option
from fairseq_compress.work.files import PathLike, file_sha256

if TYPE_CHECKING:
    from fairseq_compress.corpus.segmentation.segmenter import Segmenter, Tokenizer

Languages = tuple[str | None, str | None]
"""Of the source and of the target."""
OPTIONS = {
    "kind": "--segmentation",
    "tokenizer": "--tokenizer",
    "no_escape": "--moses-no-escape",
    "no_dash_splits": "--moses-no-dash-splits",
}
"""What verbs call its parts."""


@dataclass(frozen=True)
class Segmentation:
    """A kind of segmentation with its files, and the tokenizer before it."""

    source: PathLike | None = None
    """The file of the source; None: the kind has none."""
    target: PathLike | None = None
    """The file of the target if it has its own."""
    kind: str = option("sentencepiece", choices=SEGMENTERS)
    tokenizer: str = option("none", choices=TOKENIZERS)
    no_escape: bool = option(False)
    """See :class:`fairseq_compress.corpus.segmentation.moses.Moses`, as ``no_dash_splits``."""
    no_dash_splits: bool = option(False)

    def __post_init__(self) -> None:
        check(self, self._rules(), spelling=OPTIONS.__getitem__)

    @property
    def is_plain(self) -> bool:
        """Whether it is one that older versions know: sentencepiece alone."""
        return self.kind == "sentencepiece" and self.tokenizer == "none"

    def open(self, languages: Languages = (None, None)) -> "Segmenter":
        """The segmenter of the source, with that of the target."""
        segmenter = self._open(self.source, languages[0], "source")
        if self.target is not None or self.tokenizer != "none":
            segmenter.target = self._open(self.target or self.source, languages[1], "target")
        return segmenter

    def target_side(self) -> "Segmentation":
        """With the file of the target for both sides."""
        return replace(self, source=self.target or self.source, target=None)

    def of_one_language(self, language: str | None) -> "Segmenter":
        """The segmenter of the source, for both directions."""
        return replace(self, target=None).open((language, language))

    def paths(self) -> list[PathLike]:
        """Its files."""
        return [path for path in (self.source, self.target) if path is not None]

    def facts(self) -> dict[str, Any]:
        """Everything but the files, as JSON can hold it."""
        facts: dict[str, Any] = {"kind": self.kind, "tokenizer": self.tokenizer}
        moses = {"no_escape": self.no_escape, "no_dash_splits": self.no_dash_splits}
        return facts if self.tokenizer == "none" else facts | moses

    def metadata(self) -> dict[str, Any]:
        """The same with the checksums of its files; for sentencepiece alone as older versions write it."""
        if self.is_plain:
            names = ("sentencepiece_model", "target_sentencepiece_model")
            return {name: file_sha256(path) for name, path in zip(names, self.paths(), strict=False)}
        return {"segmentation": self.facts() | {"files": [file_sha256(path) for path in self.paths()]}}

    def identity(self) -> str:
        """The checksums of its files, with all that is not as in older versions: equal for equal output."""
        sums = ",".join(file_sha256(path) for path in self.paths())
        return sums if self.is_plain else " ".join([*(f"{key}={value}" for key, value in self.facts().items()), sums])

    def _rules(self) -> Iterator[str]:
        if (kind := SEGMENTERS.get(self.kind)) is not None:
            if kind.file is None and self.paths():
                yield f"--segmentation: {self.kind} takes no file, got {self.paths()[0]}"
            if kind.file is not None and self.source is None:
                yield f"{kind.option}: must be given with --segmentation {self.kind}"

    def _open(self, path: PathLike | None, language: str | None, side: str) -> "Segmenter":
        kind = SEGMENTERS[self.kind]
        made: Segmenter = getattr(importlib.import_module(kind.module), kind.name)(
            path, self._tokenizer(language, side)
        )
        return made

    def _tokenizer(self, language: str | None, side: str) -> "Tokenizer | None":
        if self.tokenizer == "none":
            return None
        if language is None:
            raise ConfigError(f"--tokenizer {self.tokenizer}: requires the {side} language, it is not known")
        with explained():
            from fairseq_compress.corpus.segmentation.moses import Moses

        return Moses(language, not self.no_escape, not self.no_dash_splits)
