"""A model directory: the files of a runtime, those of the segmentation (one or one of each side) and ``metadata.json``.

``metadata.json`` has the format, the runtime and its version, the quantization, languages, architecture, parameters,
the size and SHA-256 of every other file, how the model was trained, and what the check of the export measured.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from fairseq_compress.corpus.segmentation import SEGMENTERS, TOKENIZERS
from fairseq_compress.corpus.segmentation.choice import Segmentation
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.decoding.vocabulary import ENTRIES
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.options import option, read
from fairseq_compress.runtimes import RUNTIMES, exported
from fairseq_compress.work.files import PathLike, file_sha256

FORMAT = "fairseq-compress model 1"
FORMAT_OF_TWO = "fairseq-compress model 2"  # with a sentencepiece model of each side, which older versions would mix up
METADATA = "metadata.json"
FORMAT_OF_SEGMENTATIONS = "fairseq-compress model 3"  # with another segmentation than sentencepiece, or a tokenizer
FORMAT_OF_ENTRIES = "fairseq-compress model 4"  # with dictionaries that name pieces of the sentencepiece model
FORMAT_OF_SHORTLISTS = "fairseq-compress model 5"  # whose graphs require a lexical shortlist
FORMATS = (FORMAT, FORMAT_OF_TWO, FORMAT_OF_SEGMENTATIONS, FORMAT_OF_ENTRIES, FORMAT_OF_SHORTLISTS)
T = TypeVar("T")
SMALL = 1 << 21  # bytes, which take some milliseconds


@dataclass(frozen=True)
class _Languages:
    source: str
    target: str


@dataclass(frozen=True)
class _Positions:
    source: int = option(range="[2, inf)")
    target: int = option(range="[2, inf)")


@dataclass(frozen=True)
class _File:
    bytes: int
    sha256: str


@dataclass(frozen=True)
class _Segmentation:
    """See :meth:`fairseq_compress.corpus.segmentation.choice.Segmentation.facts`."""

    kind: str = option("sentencepiece", choices=SEGMENTERS)
    tokenizer: str = option("none", choices=TOKENIZERS)
    no_escape: bool = option(False)
    no_dash_splits: bool = option(False)


@dataclass(frozen=True)
class _Metadata:
    """What is read of the metadata; they have more."""

    runtime: str
    runtime_version: str
    quantization: str
    checkpoint_sha256: str
    languages: _Languages
    vocabulary: dict[str, Any]
    positions: _Positions
    search: SearchOptions
    files: dict[str, _File]
    segmentation: _Segmentation = field(default_factory=_Segmentation)

    def problems(self) -> Iterator[str]:
        """A message for each rule that is broken."""
        if self.runtime not in (known := sorted(exported())):
            yield f"runtime must be one of {', '.join(known)}, got {self.runtime!r}"
        for name in ("source_dictionary", "target_dictionary"):
            if not isinstance(self.vocabulary.get(name), str):
                yield f"vocabulary.{name}: must be a text"
        file = SEGMENTERS[self.segmentation.kind].file
        if file is not None and file not in self.files and not self.files.keys() >= (own := set(_of_sides(file))):
            yield f"files must name {file}, or {' and '.join(sorted(own))}"


@dataclass(frozen=True)
class ModelDirectory:
    """A directory whose metadata were read and whose files are those that were written."""

    path: Path
    metadata: dict[str, Any]
    loading: Any = field(default=None, compare=False)
    """What the runtime has begun to load (:attr:`fairseq_compress.runtimes.Runtime.early`)."""

    @classmethod
    def open(cls, path: PathLike) -> "ModelDirectory":
        """Read the metadata; compare sizes, and checksums of small files. :meth:`verify` compares all checksums."""
        folder = Path(path)
        try:
            metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"{folder}: is no model directory: {METADATA}: {error.strerror}") from None
        except (ValueError, RecursionError):
            raise DataError(f"{folder / METADATA}: is damaged: it must be JSON") from None
        found = metadata.get("format") if isinstance(metadata, dict) else None
        if found not in FORMATS:
            raise DataError(f"{folder}: must have the format {', '.join(map(repr, FORMATS))}, has {found!r}")
        known = {each.name: metadata[each.name] for each in fields(_Metadata) if each.name in metadata}
        for name, file in read_metadata(_Metadata, known, folder).files.items():
            size = (folder / name).stat().st_size if (folder / name).is_file() else None
            if size != file.bytes:
                state = "is missing" if size is None else f"has {size} bytes"
                raise DataError(f"{folder / name}: must have {file.bytes} bytes, {state}")
        directory = cls(folder, metadata)
        directory.verify(SMALL)
        return directory

    def verify(self, most: int | None = None) -> None:
        """Compare every file with its checksum, or every one of at most ``most`` bytes."""
        for name, facts in self.metadata.get("files", {}).items():  # there are none while it is being made
            if most is not None and facts["bytes"] > most:
                continue
            if file_sha256(self.path / name) != facts["sha256"]:
                raise DataError(f"{self.path / name}: was altered, its SHA-256 is not that of {METADATA}")

    def weight_bytes(self) -> int:
        """Bytes of the files that hold the weights."""
        files, weights = self.metadata["files"], RUNTIMES[self.metadata["runtime"]].weight_files
        return sum(files[name]["bytes"] for name in files if any(fnmatchcase(name, each) for each in weights))

    def identity(self) -> dict[str, Any]:
        """Checksums of the model and its dictionaries."""
        metadata = self.metadata
        files = json.dumps(metadata.get("files"), sort_keys=True)
        return {
            "checkpoints": [metadata["checkpoint_sha256"]],
            "source_dictionary": metadata["vocabulary"]["source_dictionary"],
            "target_dictionary": metadata["vocabulary"]["target_dictionary"],
            "runtime": f"{metadata['runtime']} {metadata['runtime_version']}",
            "model": hashlib.sha256(files.encode()).hexdigest(),
        }

    def segmentation(self) -> Segmentation:
        """Its segmentation, with the files in the directory; most directories have one for both sides."""
        facts = asdict(read_metadata(_Segmentation, self.metadata.get("segmentation", {}), self.path, "segmentation"))
        if (name := SEGMENTERS[facts["kind"]].file) is None:
            return Segmentation(**facts)
        source, target = (self.path / each for each in _of_sides(name))
        return Segmentation(source, target, **facts) if source.is_file() else Segmentation(self.path / name, **facts)


def segmentation_files(segmentation: Segmentation) -> dict[str, PathLike]:
    """Name in a directory -> file, for one of both sides or one of each."""
    name, source, target = SEGMENTERS[segmentation.kind].file, segmentation.source, segmentation.target
    if name is None or source is None:
        return {}
    return {name: source} if target is None else dict(zip(_of_sides(name), (source, target), strict=True))


def format_of(metadata: Mapping[str, Any], files: Iterable[str]) -> str:
    """The oldest format whose readers understand a directory."""
    if "shortlist" in metadata:
        return FORMAT_OF_SHORTLISTS
    if any(name.endswith(ENTRIES) for name in files):
        return FORMAT_OF_ENTRIES
    if "segmentation" in metadata:
        return FORMAT_OF_SEGMENTATIONS
    return FORMAT_OF_TWO if _of_sides(str(SEGMENTERS["sentencepiece"].file))[1] in files else FORMAT


def _of_sides(name: str) -> tuple[str, str]:
    return f"source_{name}", f"target_{name}"


def read_metadata(kind: type[T], values: Any, folder: Path, place: str = "") -> T:
    """A part of the metadata as the dataclass that declares it.

    Args:
        place: the key of the part.
    """
    found: list[str] = []
    made = None
    try:
        made = read(kind, values, found, place)
    except ConfigError as error:
        found.append(str(error))
    if made is None:
        raise DataError(f"{folder / METADATA}: is damaged: {'; '.join(found)}")
    return made
