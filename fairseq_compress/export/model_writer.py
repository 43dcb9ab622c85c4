"""Atomic writing of a model directory, and unsupported options of a model."""

import errno
import glob
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairseq_compress.corpus.segmentation.choice import Segmentation
from fairseq_compress.decoding.shortlist_file import ShortlistFile
from fairseq_compress.errors import ConfigError
from fairseq_compress.runtimes.model_directory import METADATA, ModelDirectory, format_of
from fairseq_compress.system import lock_file
from fairseq_compress.work.files import PathLike, file_sha256


@dataclass(frozen=True)
class TextSide:
    """What a writer may need to know of the text of a model."""

    languages: tuple[str, str]
    """Of source and target."""
    segmentation: Segmentation
    shortlist: ShortlistFile | None = None
    """The output is computed for its entries only."""


def create_directory(output: PathLike, fill: Callable[[Path], dict[str, Any]]) -> ModelDirectory:
    """Write a model directory under a temporary name, and rename it when it is complete.

    Args:
        output: must not exist.
        fill: writes the files into a folder, and returns the metadata except format and files.
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


def unsupported_options(values: dict[str, Any], activations: Collection[str], switches: Iterable[str]) -> list[str]:
    """Options of a transformer that a runtime does not support.

    Args:
        values: of :func:`fairseq_compress.checkpoint.materialize.model_values`.
        activations: those that the runtime supports.
        switches: options that must be off.
    """
    reasons = []
    if values["activation_fn"] not in activations:
        reasons.append(f"--activation-fn {values['activation_fn']}")
    reasons += [f"--{option.replace('_', '-')}" for option in switches if values.get(option)]
    return reasons + ["--adaptive-softmax-cutoff"] * bool(values.get("adaptive_softmax_cutoff"))


def refuse(runtime: str, reasons: list[str]) -> None:
    """Raise an error if there are reasons why a runtime cannot hold a model."""
    if reasons:
        raise ConfigError(f"--runtime {runtime}: cannot hold this model: {'; '.join(reasons)}")


def _fill(folder: Path, fill: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Write all files, synced to disk, and return the metadata."""
    metadata = fill(folder)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    facts: dict[str, dict[str, Any]] = {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
        for file in files
    }
    total = sum(fact["bytes"] for fact in facts.values())
    whole = {"format": format_of(metadata, facts), **metadata, "bytes": total, "files": facts}
    (folder / METADATA).write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for file in [*files, folder / METADATA]:
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())
    return whole


def _temporary_start(path: Path) -> str:
    """With the machine's name: on some shared file systems a machine does not see the locks of others."""
    return f".{path.name}.{socket.gethostname()}."


def _remove_stale(path: Path) -> None:
    """Remove the temporary folders of killed exports to ``path``: those that no process has locked."""
    for stale in path.parent.glob(glob.escape(_temporary_start(path)) + "?" * 8):
        if (lock := _lock(stale)) is not None:
            shutil.rmtree(stale, ignore_errors=True)
            os.close(lock)


def _make_temporary(path: Path) -> tuple[Path, int | None]:
    """A folder next to the output, and its lock, which ends with the process."""
    while True:
        temporary = Path(tempfile.mkdtemp(prefix=_temporary_start(path), dir=path.parent))
        lock = _lock(temporary, wait=True)
        if temporary.is_dir():  # else another export took it for stale before it had its lock
            return temporary, lock
        if lock is not None:
            os.close(lock)


def _lock(folder: Path, wait: bool = False) -> int | None:
    """An open file that holds the folder's lock; None if another process holds it, or the system has no locks."""
    try:
        file = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0))
    except OSError:  # Windows opens no folders
        return None
    try:
        taken = lock_file(file, wait)
    except OSError:
        taken = False
    if not taken:
        os.close(file)
        return None
    return file
