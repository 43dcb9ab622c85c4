"""The dictionaries of a checkpoint: where they are, their checksums, and ids of words."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from fairseq.data import Dictionary
from omegaconf import DictConfig

from fairseq_compress.errors import ConfigError


def find_dictionary(
    checkpoint: str, cfg: DictConfig, language: str, given_dir: str | None, option: str = "--teacher-data"
) -> Dictionary:
    """The dictionary of a teacher, ``dict.LANGUAGE.txt``.

    Searched in ``given_dir``, the value of ``option``, if any, else next to the checkpoint, else in the data folder
    that the checkpoint names.
    """
    name = f"dict.{language}.txt"
    trained_on = [Path(part) for part in str(getattr(cfg.task, "data", None) or "").split(":")[:1] if part]
    folders = [Path(given_dir)] if given_dir else [Path(checkpoint).parent, *trained_on]
    for folder in folders:
        if (folder / name).is_file():
            return Dictionary.load(str(folder / name))
    looked = ", ".join(str(folder) for folder in folders)
    raise ConfigError(
        f"{option}: must name the folder with the teacher's {name}; there is none in {looked} (teacher {checkpoint})"
    )


def dictionary_sha256(dictionary: Dictionary) -> str:
    """SHA-256 of the symbols in their order, without counts."""
    return hashlib.sha256("\n".join(dictionary.symbols).encode()).hexdigest()


def word_ids(line: str, dictionary: Dictionary) -> np.ndarray:
    """As ``Dictionary.encode_line(line, add_if_not_exist=False)``, ten times as fast: int64 ids with EOS."""
    indices, unknown = dictionary.indices, dictionary.unk()
    ids = [indices.get(word, unknown) for word in line.split()]
    return np.array([*ids, dictionary.eos()], dtype=np.int64)


def count_unknown(sentences: Any, dictionary: Dictionary, most: int = 10_000) -> tuple[int, int]:
    """Numbers of unknown and of all tokens in a sample of about ``most`` sentences."""
    step = max(1, len(sentences) // most)
    sample = [sentences[index] for index in range(0, len(sentences), step)]
    unknown = sum(int((sentence == dictionary.unk()).sum()) for sentence in sample)
    return unknown, sum(len(sentence) - 1 for sentence in sample)
