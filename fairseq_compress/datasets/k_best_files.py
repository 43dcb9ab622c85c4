"""Files of the K hypotheses of each training sentence, next to fairseq's binarized files.

For a split of N sentences with H hypotheses in all, best first, ``DATA/SPLIT.SRC-TGT.kbest`` and

=================  ==============================================================================================
``.bin``, ``.idx``  the hypotheses, as fairseq's MMapIndexedDataset has sentences (end of the sentence included)
``.offsets.npy``    int64 (N + 1,): the hypotheses of sentence i are those from ``offsets[i]`` to ``offsets[i + 1]``
``.scores.npy``     float32 (H,), length-normalized log-probabilities in nats
``.json``           counts, the SHA-256 of these files, of the binarized data and of both dictionaries
=================  ==============================================================================================

Hypothesis 1 of a sentence is its binarized target.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from fairseq.data.indexed_dataset import MMapIndexedDataset, _dtype_header_code, best_fitting_int_dtype

from fairseq_compress.errors import DataError
from fairseq_compress.work.files import file_sha256
from fairseq_compress.work.manifest import Manifest, check_checksums, count, difference

FILES = ("bin", "idx", "offsets.npy", "scores.npy")
AT_ONCE = 1 << 20  # lengths


@dataclass(frozen=True, kw_only=True)
class KBestManifest(Manifest, name="k-best", written_by="kd-data binarize"):
    """The ``.json`` file."""

    sentences: int = count()
    hypotheses: int = count()
    sha256: dict[str, str]
    """Of :data:`FILES`."""
    data: dict[str, str]
    dictionaries: dict[str, Any]
    nbest_sha256: str
    split: str = ""
    source_lang: str = ""
    target_lang: str = ""
    unknown_sources: int = count(0)


def k_best_prefix(folder: str | os.PathLike[str], split: str, source: str, target: str) -> Path:
    """The common prefix of the files of a split."""
    return Path(folder) / f"{split}.{source}-{target}.kbest"


class KBestFiles:
    """The files of one split, memory-mapped."""

    def __init__(self, prefix: str | os.PathLike[str]) -> None:
        self.prefix = Path(prefix)
        self.meta = KBestManifest.read(f"{prefix}.json")
        if missing := [name for name in FILES if not os.path.isfile(f"{prefix}.{name}")]:
            raise DataError(f"{prefix}: {', '.join(missing)} missing; kd-data binarize writes all files")
        try:
            self.hypotheses = MMapIndexedDataset(str(prefix))
            self.offsets: np.ndarray = np.load(f"{prefix}.offsets.npy", mmap_mode="r")
            self.scores: np.ndarray = np.load(f"{prefix}.scores.npy", mmap_mode="r")
        except (OSError, ValueError, AssertionError, struct.error) as error:
            raise DataError(f"{prefix}: missing or damaged ({error})") from error
        self._check_counts()

    def __reduce__(self) -> tuple[type["KBestFiles"], tuple[Path]]:
        return KBestFiles, (self.prefix,)  # a worker process maps the files itself

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def check_files(self) -> None:
        """Compare the files with the checksums of the ``.json`` (about 1 second a GB)."""
        check_checksums(self.meta.sha256, f"{self.prefix}.", "the .json")

    def check_made_from(self, kind: str, found: dict[str, Any]) -> None:
        """Compare checksums of the data or the dictionaries (``kind``) with those in the manifest."""
        if differs := difference(getattr(self.meta, kind), found):
            name, was, now = differs
            raise DataError(
                f"{self.prefix}: made for other {kind}: {name} was {was}, is {now}; run kd-data binarize again"
            )

    def _check_counts(self) -> None:
        sentences, hypotheses = len(self), int(self.offsets[-1])
        lists = np.diff(self.offsets)
        same = len({hypotheses, len(self.hypotheses), len(self.scores), int(lists.sum())}) == 1
        if not same or self.offsets[0] != 0 or (len(lists) and lists.min() < 1):
            raise DataError(f"{self.prefix}: damaged, offsets, scores and hypotheses have different counts")
        expected = {"sentences": self.meta.sentences, "hypotheses": self.meta.hypotheses}
        if differs := difference(expected, {"sentences": sentences, "hypotheses": hypotheses}):
            name, was, now = differs
            raise DataError(f"{self.prefix}: {name} must be {was} as in the .json, got {now}")


class KBestWriter:
    """Writes the files of one split under temporary names; ``finish`` renames and ``discard`` removes them.

    Args:
        vocabulary: entries of the target dictionary.
        sentences: number of lists.
        hypotheses: number of hypotheses in all lists.
    """

    def __init__(self, prefix: Path, vocabulary: int, sentences: int, hypotheses: int) -> None:
        self.prefix = prefix
        self.sentences = self.hypotheses = 0
        self._ids_type = np.dtype(best_fitting_int_dtype(vocabulary))
        self._bin: IO[bytes] = open(self._temporary("bin"), "wb")  # noqa: SIM115 - closed by finish or discard
        self._lengths = self._array("lengths.npy", np.int32, hypotheses)
        self._scores = self._array("scores.npy", np.float32, hypotheses)
        self._offsets = self._array("offsets.npy", np.int64, sentences + 1)

    def add(self, hypotheses: list[np.ndarray], scores: list[float]) -> None:
        """Add the hypotheses of the next sentence, as ids with the end of the sentence."""
        end = self.hypotheses + len(hypotheses)
        if end > len(self._scores) or self.sentences + 1 >= len(self._offsets):
            raise DataError(
                f"{self.prefix}: more than {len(self._scores)} hypotheses, or {len(self._offsets) - 1} lists"
            )
        for ids in hypotheses:
            self._bin.write(ids.astype(self._ids_type).tobytes())
        self._lengths[self.hypotheses : end] = [len(ids) for ids in hypotheses]
        self._scores[self.hypotheses : end] = scores
        self.sentences, self.hypotheses = self.sentences + 1, end
        self._offsets[self.sentences] = end

    def finish(self, facts: dict[str, Any]) -> None:
        """Write the index and the manifest, with ``facts``, and rename all files."""
        self._bin.close()
        with open(self._temporary("idx"), "wb") as stream:
            write_index(stream, self._lengths, self._ids_type)
        for values in (self._scores, self._offsets):
            values.flush()
        sha256 = {name: file_sha256(self._temporary(name)) for name in FILES}
        counts: dict[str, Any] = {"sentences": self.sentences, "hypotheses": self.hypotheses}
        KBestManifest(**counts, sha256=sha256, **facts).write(self._temporary("json"))
        Path(f"{self.prefix}.json").unlink(missing_ok=True)  # a kill now must not leave it next to other files
        for name in (*FILES, "json"):
            os.replace(self._temporary(name), f"{self.prefix}.{name}")

    def discard(self) -> None:
        """Remove the temporary files."""
        self._bin.close()
        for name in (*FILES, "lengths.npy", "json"):
            self._temporary(name).unlink(missing_ok=True)

    def _array(self, name: str, dtype: type, length: int) -> np.memmap:
        return np.lib.format.open_memmap(self._temporary(name), mode="w+", dtype=dtype, shape=(length,))

    def _temporary(self, name: str) -> Path:
        return Path(f"{self.prefix}.{name}.tmp-{os.getpid()}")


def write_index(stream: IO[bytes], lengths: np.ndarray, dtype: np.dtype) -> None:
    """The ``.idx`` file of an MMapIndexedDataset; fairseq's own writer needs 100 bytes of memory per sentence."""
    header = MMapIndexedDataset.Index._HDR_MAGIC + struct.pack("<Q", 1)
    stream.write(header + struct.pack("<BQ", _dtype_header_code(dtype.type), len(lengths)))
    parts = [slice(first, first + AT_ONCE) for first in range(0, len(lengths), AT_ONCE)]
    for part in parts:
        stream.write(lengths[part].astype(np.int32).tobytes())
    start = 0
    for part in parts:
        ends = start + np.cumsum(lengths[part], dtype=np.int64)
        stream.write((np.concatenate(([start], ends[:-1])) * dtype.itemsize).tobytes())
        start = int(ends[-1])
