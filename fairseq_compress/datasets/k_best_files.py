"""K hypotheses of each training sentence on the disk, beside fairseq's binarized files.

For a split of N sentences with H hypotheses in all, best first, ``DATA/SPLIT.SRC-TGT.kbest`` and

=================  ==============================================================================================
``.bin``, ``.idx``  the hypotheses, as fairseq's MMapIndexedDataset has sentences (end of the sentence included)
``.offsets.npy``    int64 (N + 1,): the hypotheses of sentence i are those from ``offsets[i]`` to ``offsets[i + 1]``
``.scores.npy``     float32 (H,), length-normalized log-probabilities in nats
``.json``           counts, the SHA-256 of these files, of the binarized data and of both dictionaries
=================  ==============================================================================================

Hypothesis 1 of a sentence is its binarized target.
"""

import json
import os
import struct
from pathlib import Path
from typing import IO, Any

import numpy as np
from fairseq.data.indexed_dataset import MMapIndexedDataset, _dtype_header_code, best_fitting_int_dtype

from fairseq_compress.errors import DataError
from fairseq_compress.work.files import file_sha256

FORMAT = "fairseq-compress k-best 1"
FILES = ("bin", "idx", "offsets.npy", "scores.npy")
KEYS = ("sentences", "hypotheses", "sha256", "data", "dictionaries", "nbest_sha256")
AT_ONCE = 1 << 20  # lengths


def k_best_prefix(folder: str | os.PathLike[str], split: str, source: str, target: str) -> Path:
    """What the names of all files of a split begin with."""
    return Path(folder) / f"{split}.{source}-{target}.kbest"


class KBestFiles:
    """The files of one split, opened and memory-mapped.

    Args:
        prefix: :func:`k_best_prefix`.

    Raises:
        DataError: a file is missing or damaged, or counts disagree.
    """

    def __init__(self, prefix: str | os.PathLike[str]) -> None:
        self.prefix = Path(prefix)
        self.meta = _read_meta(Path(f"{prefix}.json"))
        if missing := [name for name in FILES if not os.path.isfile(f"{prefix}.{name}")]:
            raise DataError(f"{prefix}: {', '.join(missing)} missing; binarize-hypotheses writes all files")
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
        """Compare the files with the checksums of the ``.json`` (about 1 second a GB).

        Raises:
            DataError: naming the first file that differs.
        """
        for name in FILES:
            found = file_sha256(f"{self.prefix}.{name}")
            if found != self.meta["sha256"][name]:
                raise DataError(f"{self.prefix}.{name}: SHA-256 must be {self.meta['sha256'][name]}, got {found}")

    def check_made_from(self, kind: str, found: dict[str, Any]) -> None:
        """Compare checksums of the data or the dictionaries (``kind``) with those that the hypotheses were made for.

        Raises:
            DataError: naming the first that differs.
        """
        expected = self.meta[kind]
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                raise DataError(
                    f"{self.prefix}: made for other {kind}: {name} was {expected.get(name)}, is {found.get(name)}; "
                    "run binarize-hypotheses again"
                )

    def _check_counts(self) -> None:
        facts = {"sentences": len(self), "hypotheses": int(self.offsets[-1])}
        lists = np.diff(self.offsets)
        same = len({facts["hypotheses"], len(self.hypotheses), len(self.scores), int(lists.sum())}) == 1
        if not same or self.offsets[0] != 0 or (len(lists) and lists.min() < 1):
            raise DataError(f"{self.prefix}: damaged, offsets, scores and hypotheses have different counts")
        for name, value in facts.items():
            if self.meta[name] != value:
                raise DataError(f"{self.prefix}: {name} must be {self.meta[name]} as in the .json, got {value}")


class KBestWriter:
    """Writes the files of one split; they get their names when all is there (``finish``), and go otherwise.

    Memory does not grow with the number of sentences.

    Args:
        prefix: :func:`k_best_prefix`.
        vocabulary: entries of the target dictionary, which decide the integer type.
        sentences: how many lists there will be.
        hypotheses: how many hypotheses in all of them.
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
        """The hypotheses of the next sentence, as ids with the end of the sentence.

        Raises:
            DataError: there are more than were announced.
        """
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
        """Write what is left, then ``facts`` with counts and checksums, and put all in place."""
        self._bin.close()
        with open(self._temporary("idx"), "wb") as stream:
            write_index(stream, self._lengths, self._ids_type)
        for values in (self._scores, self._offsets):
            values.flush()
        meta = {
            "format": FORMAT,
            "sentences": self.sentences,
            "hypotheses": self.hypotheses,
            "sha256": {name: file_sha256(self._temporary(name)) for name in FILES},
            **facts,
        }
        self._temporary("json").write_text(json.dumps(meta, indent=2) + "\n")
        Path(f"{self.prefix}.json").unlink(missing_ok=True)  # a kill now must not leave it beside other files
        for name in (*FILES, "json"):
            os.replace(self._temporary(name), f"{self.prefix}.{name}")

    def discard(self) -> None:
        """Remove what was written under temporary names."""
        self._bin.close()
        for name in (*FILES, "lengths.npy", "json"):
            self._temporary(name).unlink(missing_ok=True)

    def _array(self, name: str, dtype: type, length: int) -> np.memmap:
        return np.lib.format.open_memmap(self._temporary(name), mode="w+", dtype=dtype, shape=(length,))

    def _temporary(self, name: str) -> Path:
        return Path(f"{self.prefix}.{name}.tmp-{os.getpid()}")


def write_index(stream: IO[bytes], lengths: np.ndarray, dtype: np.dtype) -> None:
    """The ``.idx`` file of an MMapIndexedDataset; fairseq's own writer needs 100 bytes of memory a sentence."""
    header = MMapIndexedDataset.Index._HDR_MAGIC + struct.pack("<Q", 1)
    stream.write(header + struct.pack("<BQ", _dtype_header_code(dtype.type), len(lengths)))
    pieces = [slice(first, first + AT_ONCE) for first in range(0, len(lengths), AT_ONCE)]
    for piece in pieces:
        stream.write(lengths[piece].astype(np.int32).tobytes())
    start = 0
    for piece in pieces:
        ends = start + np.cumsum(lengths[piece], dtype=np.int64)
        stream.write((np.concatenate(([start], ends[:-1])) * dtype.itemsize).tobytes())
        start = int(ends[-1])


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        meta = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; binarize-hypotheses writes it") from error
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error})") from error
    found = meta.get("format") if isinstance(meta, dict) else meta
    if found != FORMAT:
        raise DataError(f"{path}: the format must be {FORMAT!r}, got {found!r}")
    if missing := [key for key in KEYS if key not in meta]:
        raise DataError(f"{path}: {', '.join(missing)} missing")
    return dict(meta)
