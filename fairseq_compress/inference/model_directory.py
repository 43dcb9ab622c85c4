"""A model directory: the files of a runtime, ``sentencepiece.model`` and ``metadata.json``, complete or not there.

``metadata.json`` has the format, the runtime and its version, the quantization, languages, architecture, parameters,
the size and SHA-256 of every other file, how the model was trained, and what the check of the export measured.
"""

import errno
import fcntl
import glob
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairseq_compress.corpus.files import PathLike, file_sha256
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.inference.search_options import SearchOptions

FORMAT = "fairseq-compress model 1"
METADATA = "metadata.json"
VOCABULARY = "sentencepiece.model"
RUNTIMES = ("ctranslate2", "onnx")

# What the verbs read of the metadata, with its type.
_NEEDED: dict[str, type] = {
    **dict.fromkeys(("runtime", "runtime_version", "quantization", "checkpoint_sha256"), str),
    **dict.fromkeys(("languages.source", "languages.target"), str),
    **dict.fromkeys(("vocabulary.source_dictionary", "vocabulary.target_dictionary"), str),
    **dict.fromkeys(("positions.source", "positions.target"), int),
    **dict.fromkeys(("search", "files"), dict),
}


@dataclass(frozen=True)
class ModelDirectory:
    """A directory whose metadata were read and whose files are those that were written."""

    path: Path
    metadata: dict[str, Any]

    @classmethod
    def open(cls, path: PathLike) -> "ModelDirectory":
        """Read the metadata, and compare every file with its size and checksum: altered ones crash some runtimes.

        Raises:
            DataError: it is no model directory, of another version, or a file is missing, cut off or altered.
        """
        folder = Path(path)
        try:
            metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"{folder}: is no model directory: {METADATA}: {error.strerror}") from None
        except (ValueError, RecursionError):
            raise DataError(f"{folder / METADATA}: is damaged: it must be JSON") from None
        found = metadata.get("format") if isinstance(metadata, dict) else None
        if found != FORMAT:
            raise DataError(f"{folder}: must have the format {FORMAT!r}, has {found!r}")
        if problem := _problem(metadata):
            raise DataError(f"{folder / METADATA}: is damaged: {problem}")
        for name, facts in metadata["files"].items():
            size = (folder / name).stat().st_size if (folder / name).is_file() else None
            if size != facts["bytes"]:
                state = "is missing" if size is None else f"has {size} bytes"
                raise DataError(f"{folder / name}: must have {facts['bytes']} bytes, {state}")
        directory = cls(folder, metadata)
        directory.verify()
        return directory

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
        ConfigError: the output is there, or appeared meanwhile; it cannot be written.
    """
    path = Path(output)
    try:
        _remove_stale(path)
        if os.path.lexists(path):
            raise ConfigError(f"--output: must not be there yet, {path} is")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, lock = _make_temporary(path)
    except OSError as error:
        reason = os.strerror(errno.ENOTDIR) if isinstance(error, FileExistsError) else error.strerror
        raise ConfigError(f"--output: cannot write to {path.parent}: {reason}") from None
    try:
        folder = temporary / "model"  # which may be removed and made again, as CTranslate2 does: the lock stays
        folder.mkdir()
        whole = _fill(folder, fill)
        try:
            os.rename(folder, path)
        except OSError as error:
            raise ConfigError(f"--output: {path} appeared meanwhile or cannot be made: {error.strerror}") from None
    except OSError as error:
        raise ConfigError(f"--output: cannot write {path}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if lock is not None:
            os.close(lock)
    return ModelDirectory(path, whole)


def _fill(folder: Path, fill: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Write all files, to the disk itself, and return the metadata."""
    metadata = fill(folder)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    facts: dict[str, dict[str, Any]] = {
        str(file.relative_to(folder)): {"bytes": file.stat().st_size, "sha256": file_sha256(file)} for file in files
    }
    total = sum(fact["bytes"] for fact in facts.values())
    whole = {"format": FORMAT, **metadata, "bytes": total, "files": facts}
    (folder / METADATA).write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for file in [*files, folder / METADATA]:
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())
    return whole


def _temporary_start(path: Path) -> str:
    """With the machine's name: on some shared file systems a machine does not see the locks of others."""
    return f".{path.name}.{socket.gethostname()}."


def _remove_stale(path: Path) -> None:
    """Remove what killed exports to ``path`` left: temporary folders whose locks nobody holds."""
    for stale in path.parent.glob(glob.escape(_temporary_start(path)) + "?" * 8):
        if (lock := _lock(stale)) is not None:
            shutil.rmtree(stale, ignore_errors=True)
            os.close(lock)


def _make_temporary(path: Path) -> tuple[Path, int | None]:
    """A folder beside the output, and its lock, which ends with the process."""
    while True:
        temporary = Path(tempfile.mkdtemp(prefix=_temporary_start(path), dir=path.parent))
        lock = _lock(temporary, wait=True)
        if temporary.is_dir():  # else another export took it for stale before it had its lock
            return temporary, lock
        if lock is not None:
            os.close(lock)


def _lock(folder: Path, wait: bool = False) -> int | None:
    """An open file that holds the folder's lock; None if somebody else holds it, or there are no locks here."""
    try:
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(file)
        return None
    return file


def _problem(metadata: dict[str, Any]) -> str | None:
    """What is wrong with metadata of our format, or None."""
    for name, kind in _NEEDED.items():
        group, _, key = name.rpartition(".")
        inner = metadata.get(group) if group else metadata
        value = inner.get(key) if isinstance(inner, dict) else None
        if type(value) is not kind:
            return f"{name} must be of type {kind.__name__}, is {json.dumps(value)[:50]}"
    if metadata["runtime"] not in RUNTIMES:
        return f"runtime must be one of {', '.join(RUNTIMES)}, is {metadata['runtime']!r}"
    known = SearchOptions.__dataclass_fields__
    for name, value in metadata["search"].items():
        if name not in known or type(value) not in (int, type(known[name].default)):
            return f"search has no {name} of {json.dumps(value)[:50]}"
    try:
        SearchOptions(**metadata["search"])
    except ConfigError as error:
        return f"search: {error}"
    for name, facts in metadata["files"].items():
        if not isinstance(facts, dict) or not {"bytes", "sha256"} <= facts.keys():
            return f"files must tell bytes and sha256 of {name}"
    return None if VOCABULARY in metadata["files"] else f"files must name {VOCABULARY}"
