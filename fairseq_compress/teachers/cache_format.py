"""Format of a teacher cache: what a teacher said of every target token, on disk.

One folder a split. ``records.bin`` holds one little-endian record a target token (EOS included), sentences in the
order of the dataset, nothing between them:

    ids            k x uint16 (dictionaries of at most 65,536 entries) or uint32, the most probable entries
    probabilities  k x float16 or float32, softmax(z / T) of those entries, descending; the mean over an ensemble
    rest           float16 or float32, the mass of all other entries

With k = 8, uint16 and float16 that is 34 bytes a token. ``meta.json`` holds everything that the records were made
from, as checksums; it is written last, so a folder with a ``meta.json`` is whole.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.work.files import PathLike

FORMAT = "fairseq-compress teacher cache 1"
DTYPES = {"float16": "<f2", "float32": "<f4"}


def record_dtype(k: int, vocabulary: int, dtype: str) -> np.dtype[Any]:
    """The record of one target token, without padding bytes.

    Raises:
        ConfigError: ``k`` is not in [1, ``vocabulary``], or ``dtype`` is none of :data:`DTYPES`.
    """
    if not 1 <= k <= vocabulary:
        raise ConfigError(f"--top-k: must be in [1, {vocabulary}], the entries of the dictionary, got {k}")
    if dtype not in DTYPES:
        raise ConfigError(f"--dtype: must be one of {', '.join(DTYPES)}, got {dtype!r}")
    number = DTYPES[dtype]
    return np.dtype(
        [("ids", "<u2" if vocabulary <= 2**16 else "<u4", (k,)), ("probabilities", number, (k,)), ("rest", number)]
    )


@dataclass(frozen=True)
class CacheMeta:
    """Contents of ``meta.json``, beside the format."""

    split: str
    k: int
    dtype: str
    temperature: float
    precision: str
    """Type of the teacher's matrix products."""
    longest: list[int]
    """The most source and target tokens of a sentence that the teachers read."""
    sentences: int
    unread: int
    """Sentences that are longer; their records say nothing."""
    tokens: int
    """Target tokens, one record each."""
    bytes_per_token: int
    sha256: str
    """Of ``records.bin``."""
    data: dict[str, str]
    dictionaries: dict[str, dict[str, Any]]
    teachers: list[str]
    settings: dict[str, Any]

    @property
    def record(self) -> np.dtype[Any]:
        """The type of one record."""
        return record_dtype(self.k, self.dictionaries["target"]["entries"], self.dtype)

    def to_json(self) -> str:
        """The text of ``meta.json``: the same facts give the same bytes."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, sort_keys=True) + "\n"


def read_meta(folder: PathLike) -> CacheMeta:
    """Read ``meta.json`` of one split.

    Raises:
        DataError: there is none (the cache was never finished), it is damaged or of another format.
    """
    path = Path(folder) / "meta.json"
    try:
        text = path.read_bytes()
    except OSError as error:
        raise DataError(f"--teacher-cache {folder}: no finished cache there ({path}: {error.strerror})") from None
    try:
        found = json.loads(text)
        if found["format"] != FORMAT:
            raise DataError(f"{path}: the format must be {FORMAT!r}, got {found['format']!r}")
        meta = CacheMeta(**{field.name: found[field.name] for field in fields(CacheMeta)})
        if meta.bytes_per_token != meta.record.itemsize:
            raise ValueError(f"{meta.bytes_per_token} bytes per token, {meta.record.itemsize} expected")
        if not all(isinstance(number, int) for number in (meta.sentences, meta.unread, meta.tokens)):
            raise ValueError("a number is none")
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise DataError(f"{path}: damaged ({type(error).__name__}: {error})") from None
    return meta
