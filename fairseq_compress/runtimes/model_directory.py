"""A model directory: the files of a runtime, ``sentencepiece.model`` (or one of each side) and ``metadata.json``.

``metadata.json`` has the format, the runtime and its version, the quantization, languages, architecture, parameters,
the size and SHA-256 of every other file, how the model was trained, and what the check of the export measured.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args

from fairseq_compress.corpus.segmentation import Segmenter
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.options import read
from fairseq_compress.runtimes import RUNTIMES, exported
from fairseq_compress.work.files import PathLike, file_sha256

FORMAT = "fairseq-compress model 1"
FORMAT_OF_TWO = "fairseq-compress model 2"  # with a sentencepiece model of each side, which older versions would mix up
METADATA = "metadata.json"
VOCABULARY = "sentencepiece.model"
VOCABULARIES = {side: f"{side}_{VOCABULARY}" for side in ("source", "target")}
SMALL = 1 << 21  # bytes, which take some milliseconds

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
        """Read the metadata, compare all sizes, and the contents of small files; :meth:`verify` compares all contents.

        Raises:
            DataError: it is no model directory, of another version, or a file is missing or cut off.
        """
        folder = Path(path)
        try:
            metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"{folder}: is no model directory: {METADATA}: {error.strerror}") from None
        except (ValueError, RecursionError):
            raise DataError(f"{folder / METADATA}: is damaged: it must be JSON") from None
        found = metadata.get("format") if isinstance(metadata, dict) else None
        if found not in (FORMAT, FORMAT_OF_TWO):
            raise DataError(f"{folder}: must have the format {FORMAT!r} or {FORMAT_OF_TWO!r}, has {found!r}")
        if problem := _problem(metadata):
            raise DataError(f"{folder / METADATA}: is damaged: {problem}")
        for name, facts in metadata["files"].items():
            size = (folder / name).stat().st_size if (folder / name).is_file() else None
            if size != facts["bytes"]:
                state = "is missing" if size is None else f"has {size} bytes"
                raise DataError(f"{folder / name}: must have {facts['bytes']} bytes, {state}")
        directory = cls(folder, metadata)
        directory.verify(SMALL)
        return directory

    def verify(self, most: int | None = None) -> None:
        """Compare every file with its checksum, or every one of at most so many bytes.

        Raises:
            DataError: one was altered.
        """
        for name, facts in self.metadata.get("files", {}).items():  # there are none while it is being made
            if most is not None and facts["bytes"] > most:
                continue
            if file_sha256(self.path / name) != facts["sha256"]:
                raise DataError(f"{self.path / name}: was altered, its SHA-256 is not that of {METADATA}")

    def weight_bytes(self) -> int:
        """Bytes of the files that hold the weights; not of vocabularies, sentencepiece models and configuration."""
        files, weights = self.metadata["files"], RUNTIMES[self.metadata["runtime"]].weight_files
        return sum(files[name]["bytes"] for name in weights if name in files)

    def identity(self) -> dict[str, Any]:
        """What two directories have in common only if they translate alike, as JSON can hold it."""
        metadata = self.metadata
        files = json.dumps(metadata.get("files"), sort_keys=True)
        return {
            "checkpoints": [metadata["checkpoint_sha256"]],
            "source_dictionary": metadata["vocabulary"]["source_dictionary"],
            "target_dictionary": metadata["vocabulary"]["target_dictionary"],
            "runtime": f"{metadata['runtime']} {metadata['runtime_version']}",
            "model": hashlib.sha256(files.encode()).hexdigest(),
        }

    def sentencepiece_model(self, side: str) -> Path:
        """The sentencepiece model of a side, ``source`` or ``target``; most directories have one for both."""
        own = self.path / VOCABULARIES[side]
        return own if own.is_file() else self.path / VOCABULARY

    def segmenter(self) -> Segmenter:
        """Raw text to pieces of the source, and pieces of the target to raw text."""
        source, target = map(self.sentencepiece_model, ("source", "target"))
        return Segmenter(source, None if target == source else target)


def wrong_type(metadata: dict[str, Any], needed: Mapping[str, type | UnionType]) -> str | None:
    """What is wrong with the first value that is missing or of another type, by names like ``positions.source``."""
    for name, kind in needed.items():
        value: Any = metadata
        for key in name.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        kinds = get_args(kind) or (kind,)
        if type(value) not in kinds:
            return f"{name} must be of type {' or '.join(each.__name__ for each in kinds)}, is {json.dumps(value)[:50]}"
    return None


def _problem(metadata: dict[str, Any]) -> str | None:
    """What is wrong with metadata of our format, or None."""
    if problem := wrong_type(metadata, _NEEDED):
        return problem
    if metadata["runtime"] not in (known := sorted(exported())):
        return f"runtime must be one of {', '.join(known)}, is {metadata['runtime']!r}"
    if not all(metadata["positions"][side] >= 2 for side in ("source", "target")):
        return f"positions must be at least 2, are {json.dumps(metadata['positions'])[:50]}"
    problems: list[str] = []
    try:
        read(SearchOptions, metadata["search"], problems, "search")
    except ConfigError as error:
        problems.append(f"search: {error}")
    if problems:
        return "; ".join(problems)
    for name, facts in metadata["files"].items():
        if not isinstance(facts, dict) or not {"bytes", "sha256"} <= facts.keys():
            return f"files must tell bytes and sha256 of {name}"
    if VOCABULARY in metadata["files"] or metadata["files"].keys() >= set(VOCABULARIES.values()):
        return None
    return f"files must name {VOCABULARY}, or {' and '.join(VOCABULARIES.values())}"
