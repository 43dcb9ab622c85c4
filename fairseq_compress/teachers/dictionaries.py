"""The dictionaries of a checkpoint: where they are, and their checksums."""

import hashlib
from pathlib import Path

from fairseq.data import Dictionary
from omegaconf import DictConfig

from fairseq_compress.errors import ConfigError


def find_dictionary(
    checkpoint: str, cfg: DictConfig, language: str, given_dir: str | None, option: str = "--teacher-data"
) -> Dictionary:
    """The dictionary a teacher was trained with, ``dict.LANGUAGE.txt``.

    Looked for in ``given_dir``, the value of ``option``, when there is one, else beside the checkpoint (where published
    models keep it), else in the data folder that the checkpoint names.
    """
    name = f"dict.{language}.txt"
    trained_on = [Path(part) for part in str(cfg.task.get("data") or "").split(":")[:1] if part]
    folders = [Path(given_dir)] if given_dir else [Path(checkpoint).parent, *trained_on]
    for folder in folders:
        if (folder / name).is_file():
            return Dictionary.load(str(folder / name))
    looked = ", ".join(str(folder) for folder in folders)
    raise ConfigError(
        f"{option}: must name the folder with the teacher's {name}; there is none in {looked} (teacher {checkpoint})"
    )


def dictionary_sha256(dictionary: Dictionary) -> str:
    """SHA-256 of the symbols in their order; counts do not matter."""
    return hashlib.sha256("\n".join(dictionary.symbols).encode()).hexdigest()
