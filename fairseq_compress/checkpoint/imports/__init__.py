"""Import of translation models from other toolkits: one module for each format, listed in :data:`FORMATS`."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from fairseq_compress.errors import DataError
from fairseq_compress.work.files import PathLike

if TYPE_CHECKING:
    from fairseq_compress.checkpoint.imports.imported import ImportedModel

# Name of a format -> its module, which has
#   TITLE                      what it reads, for help and messages
#   recognizes(path)           whether a file or folder is of this format; reads little, raises nothing
#   read(path, request)        the model as an ImportedModel, for an ImportRequest
FORMATS = {
    "huggingface": "fairseq_compress.checkpoint.imports.huggingface",  # before marian: may have .bin files too
    "marian": "fairseq_compress.checkpoint.imports.marian",
}


@dataclass(frozen=True)
class ImportRequest:
    """What the user gave besides the model."""

    languages: tuple[str | None, str | None] = (None, None)
    """Source and target; None: as the model says."""
    sentencepiece: tuple[PathLike, PathLike | None] | None = None
    """SentencePiece model of the source, and of the target if it has its own; None: those next to the model."""


def format_of(path: PathLike, name: str | None = None) -> ModuleType:
    """The module of the format ``name``, or of the first format that recognizes ``path``."""
    place = Path(path)
    if not place.exists():
        raise DataError(f"{place}: no such file or folder")
    for module in map(importlib.import_module, FORMATS.values() if name is None else [FORMATS[name]]):
        if name is not None or module.recognizes(place):
            return module
    titles = "; ".join(importlib.import_module(module).TITLE for module in FORMATS.values())
    raise DataError(f"{place}: must be a model of a known format ({titles})")


def import_model(path: PathLike, name: str | None, request: ImportRequest) -> "ImportedModel":
    """Read a model of another toolkit."""
    model: ImportedModel = format_of(path, name).read(Path(path), request)
    return model
