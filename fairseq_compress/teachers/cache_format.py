"""Format of a teacher cache: the teacher's k most probable entries for every target token, on disk.

One folder per split. ``records.bin`` holds one little-endian record per target token (EOS included), sentences in the
order of the dataset, nothing between them:

    ids            k x uint16 (dictionaries of at most 65,536 entries) or uint32, the most probable entries
    probabilities  k x float16 or float32, softmax(z / T) of those entries, descending; the mean over an ensemble
    rest           float16 or float32, the tail mass: that of all other entries

With k = 8, uint16 and float16 that is 34 bytes per token. ``meta.json`` holds the checksums of all inputs and is
written last.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairseq_compress.errors import ConfigError
from fairseq_compress.work.manifest import Manifest, count

DTYPES = {"float16": "<f2", "float32": "<f4"}


def record_dtype(k: int, vocabulary: int, dtype: str) -> np.dtype[Any]:
    """The record of one target token, without padding bytes."""
    if not 1 <= k <= vocabulary:
        raise ConfigError(f"--top-k: must be in [1, {vocabulary}], the entries of the dictionary, got {k}")
    if (number := DTYPES.get(dtype)) is None:
        raise ConfigError(f"--dtype: must be one of {', '.join(DTYPES)}, got {dtype!r}")
    return np.dtype(
        [("ids", "<u2" if vocabulary <= 2**16 else "<u4", (k,)), ("probabilities", number, (k,)), ("rest", number)]
    )


@dataclass(frozen=True, kw_only=True)
class CacheManifest(Manifest, name="teacher cache", written_by="cache-teacher"):
    """``meta.json`` of the cache of one split."""

    split: str
    k: int = count()
    dtype: str
    temperature: float
    precision: str
    """Type of the teacher's matrix products."""
    longest: list[int]
    """The most source and target tokens of the teachers."""
    sentences: int = count()
    unread: int = count()
    """Longer sentences, whose mass is all in the tail."""
    tokens: int = count()
    """Target tokens, one record each."""
    bytes_per_token: int = count()
    sha256: str
    """Of ``records.bin``."""
    data: dict[str, str]
    dictionaries: dict[str, dict[str, Any]]
    teachers: list[str]
    settings: dict[str, Any]

    def problems(self) -> Iterator[str]:
        for side in ("source", "target"):
            if type(self.dictionaries.get(side, {}).get("entries")) is not int:
                yield f"dictionaries.{side}: must have entries and sha256, got {self.dictionaries.get(side)}"
                return
        try:
            size = self.record.itemsize
        except ConfigError as error:
            yield str(error)
            return
        if self.bytes_per_token != size:
            yield f"bytes_per_token: must be {size}, got {self.bytes_per_token}"

    @property
    def record(self) -> np.dtype[Any]:
        """The type of one record."""
        return record_dtype(self.k, self.dictionaries["target"]["entries"], self.dtype)
