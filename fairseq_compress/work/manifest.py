"""Manifests: JSON files that describe other files, validated against the dataclass that declares their fields.

Example::

    @dataclass(frozen=True, kw_only=True)
    class NBestManifest(Manifest, name="n-best", version=1, written_by="nbest"):
        sentences: int = count()
        sha256: str
        languages: dict[str, str] = field(default_factory=dict)

    manifest = NBestManifest.read("list.json")      # DataError unless every field has its type and range
    NBestManifest(sentences=3, sha256="3fa9...").write("list.json")

The file is one JSON object with ``"format": "fairseq-compress n-best 1"`` and the fields, whose types and ranges are
those of :mod:`fairseq_compress.options`. A field without a default is required; keys that no field has are ignored.
Files of earlier versions pass :mod:`fairseq_compress.work.migrate` first.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from fairseq_compress import options
from fairseq_compress.errors import DataError
from fairseq_compress.work.files import PathLike, atomic_write, check_sha256, file_sha256
from fairseq_compress.work.migrate import upgrade

Kind = TypeVar("Kind", bound="Manifest")
KindOfSidecar = TypeVar("KindOfSidecar", bound="Sidecar")


def count(default: Any = MISSING) -> Any:
    """A field of a manifest that holds a whole number of at least 0."""
    return options.option(default, range="[0, inf)")


@dataclass(frozen=True)
class Manifest:
    """Base of manifests; a subclass names its format and the verb that writes it, and declares the fields."""

    format: ClassVar[str]
    written_by: ClassVar[str]

    def __init_subclass__(cls, *, name: str = "", version: int = 1, written_by: str = "") -> None:
        cls.format, cls.written_by = f"fairseq-compress {name} {version}", written_by

    @classmethod
    def read(cls: type[Kind], path: PathLike, remedy: str = "") -> Kind:
        """Read and validate a file.

        Args:
            remedy: what the message about a missing file ends with; default: which verb writes it.
        """
        return cls.parse(read_json(path, remedy or (f"{cls.written_by} writes it" if cls.written_by else "")), path)

    @classmethod
    def parse(cls: type[Kind], content: Any, path: PathLike) -> Kind:
        """Validate JSON that was read from the file ``path``."""
        content = upgrade(content)
        found = content.get("format") if isinstance(content, dict) else content
        if found != cls.format:
            damaged = "" if isinstance(found, str) else "damaged: "
            again = f"; run {cls.written_by} again" if cls.written_by else ""
            raise DataError(f"{path}: {damaged}the format must be {cls.format!r}, got {repr(found)[:60]}{again}")
        known, wrong = {each.name for each in fields(cls)}, list[str]()
        made = options.read(cls, {name: value for name, value in content.items() if name in known}, wrong)
        if made is None:
            raise DataError(f"{path}: damaged: {'; '.join(wrong)}")
        return made

    def problems(self) -> Iterator[str]:
        """A message for each broken rule between fields, of subclasses."""
        yield from ()

    def to_json(self) -> str:
        """The text of the file: equal manifests give equal bytes."""
        return json.dumps({"format": self.format, **asdict(self)}, ensure_ascii=False, indent=2) + "\n"

    def write(self, path: PathLike) -> None:
        """Write the file, complete or not at all. Write it last, so that it never describes other files."""
        with atomic_write(path) as stream:
            stream.write(self.to_json())


@dataclass(frozen=True, kw_only=True)
class Sidecar(Manifest):
    """``FILE.json``, the manifest of ``FILE``."""

    sha256: str
    """Of the file."""
    facts: dict[str, Any]
    """Everything that determined the contents of the file."""

    @classmethod
    def of(cls: type[KindOfSidecar], path: PathLike) -> KindOfSidecar:
        """The sidecar of the file ``path``."""
        return cls.read(sidecar_path(path))

    @classmethod
    def matches(cls, path: PathLike, facts: Mapping[str, Any]) -> bool:
        """Whether the file ``path`` is complete, undamaged and was made from ``facts``."""
        try:
            sidecar = cls.of(path)
            return sidecar.facts == through_json(facts) and sidecar.sha256 == file_sha256(path)
        except DataError:
            return False

    def check(self, path: PathLike, found: Mapping[str, object]) -> None:
        """Compare values found in the file ``path`` with the fields of its sidecar."""
        for name, value in found.items():
            if (expected := getattr(self, name)) != value:
                raise DataError(f"{path}: {name} must be {expected} as in {sidecar_path(path)}, got {value}")


def sidecar_path(path: PathLike) -> Path:
    """The path of a file's manifest."""
    return Path(f"{os.fspath(path)}.json")


def read_json(path: PathLike, remedy: str = "") -> Any:
    """The content of a JSON file."""
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}" + (f"; {remedy}" if remedy else "")) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: damaged: not valid JSON ({type(error).__name__}: {error})") from None


def fingerprint_of(metadata: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode()).hexdigest()


def through_json(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping after a round trip through JSON: tuples become lists, keys become text."""
    found: dict[str, Any] = json.loads(json.dumps(dict(metadata)))
    return found


def difference(expected: Any, found: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """Path of keys and both values of the first entry in which nested mappings differ, or None; missing is None too."""
    if not (isinstance(expected, Mapping) and isinstance(found, Mapping)):
        return None if expected == found else (name, expected, found)
    names = dict.fromkeys((*expected, *found))
    inner = (difference(expected.get(key), found.get(key), f"{name} {key}".strip()) for key in names)
    return next((each for each in inner if each), None)


def check_checksums(checksums: Mapping[str, str], start: str, manifest: str) -> None:
    """Compare the files ``start + name`` with the SHA-256 in their manifest (about 1 second a GB)."""
    for name, expected in checksums.items():
        check_sha256(f"{start}{name}", expected, manifest)
