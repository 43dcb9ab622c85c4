"""Models of Marian: ``.npz`` and ``.bin``, and those of Firefox Translations (``intgemm.alphas.bin``)."""

from pathlib import Path

from fairseq_compress.checkpoint.imports import ImportRequest
from fairseq_compress.checkpoint.imports.imported import ImportedModel
from fairseq_compress.errors import DataError

TITLE = "Marian: .npz or .bin"


def recognizes(path: Path) -> bool:
    return path.suffix in (".npz", ".bin") and path.is_file()


def read(path: Path, request: ImportRequest) -> ImportedModel:
    raise DataError(f"{path}: cannot be read yet")
