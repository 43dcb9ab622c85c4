"""A model directory: the files of a runtime, ``sentencepiece.model`` and ``metadata.json``, complete or not there.

``metadata.json`` has the format, the runtime and its version, the quantization, languages, architecture, parameters,
the size and SHA-256 of every other file, how the model was trained, and what the check of the export measured.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairseq_compress.corpus.files import PathLike, file_sha256
from fairseq_compress.errors import ConfigError, DataError

FORMAT = "fairseq-compress model 1"
METADATA = "metadata.json"
VOCABULARY = "sentencepiece.model"


@dataclass(frozen=True)
class ModelDirectory:
    """A directory whose metadata were read and whose files are there with their sizes.

    Args:
        path: the directory.

    Raises:
        DataError: it is no model directory, of another version, or a file is missing or cut off.
    """

    path: Path
    metadata: dict[str, Any]

    @classmethod
    def open(cls, path: PathLike) -> "ModelDirectory":
        """Read the metadata; contents are compared by :meth:`verify`, which reads every byte."""
        folder = Path(path)
        try:
            metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"{folder}: is no model directory: {METADATA}: {error.strerror}") from None
        except ValueError:
            raise DataError(f"{folder / METADATA}: is damaged: it must be JSON") from None
        found = metadata.get("format") if isinstance(metadata, dict) else None
        if found != FORMAT:
            raise DataError(f"{folder}: must have the format {FORMAT!r}, has {found!r}")
        for name, facts in metadata["files"].items():
            size = (folder / name).stat().st_size if (folder / name).is_file() else None
            if size != facts["bytes"]:
                state = "is missing" if size is None else f"has {size} bytes"
                raise DataError(f"{folder / name}: must have {facts['bytes']} bytes, {state}")
        return cls(folder, metadata)

    def verify(self) -> None:
        """Compare every file with its checksum.

        Raises:
            DataError: one was altered.
        """
        for name, facts in self.metadata["files"].items():
            if file_sha256(self.path / name) != facts["sha256"]:
                raise DataError(f"{self.path / name}: was altered, its SHA-256 is not that of {METADATA}")

    @property
    def vocabulary(self) -> Path:
        """The sentencepiece model."""
        return self.path / VOCABULARY


def create_directory(output: PathLike, fill: Callable[[Path], dict[str, Any]]) -> ModelDirectory:
    """Make a model directory under a temporary name, and rename it when all is written.

    Args:
        output: must not be there.
        fill: writes the files into the folder it is given, and returns the metadata but for format and files.

    Raises:
        ConfigError: the output is there, or appeared meanwhile; its parent cannot be written.
    """
    path = Path(output)
    if path.exists():
        raise ConfigError(f"--output: must not be there yet, {path} is")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise ConfigError(f"--output: cannot write to {path.parent}: {error.strerror}") from None
    try:
        metadata = fill(temporary)
        files = sorted(file for file in temporary.rglob("*") if file.is_file())
        facts: dict[str, dict[str, Any]] = {
            str(file.relative_to(temporary)): {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
            for file in files
        }
        total = sum(fact["bytes"] for fact in facts.values())
        whole = {"format": FORMAT, **metadata, "bytes": total, "files": facts}
        (temporary / METADATA).write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        temporary.chmod(0o755)  # mkdtemp lets nobody else in
        try:
            os.rename(temporary, path)
        except OSError as error:
            raise ConfigError(f"--output: {path} appeared meanwhile or cannot be made: {error.strerror}") from None
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return ModelDirectory(path, whole)
