"""The compressed weights of a checkpoint as its plan stores them, found by their values, and what an export keeps.

A writer of graphs hands over matrices, several of which may be joined: the rows of q, k and v, or a table with rows of
zeros behind it. :meth:`StoredWeights.parts` finds the packed weights in them. A weight is found only if all of its
values ŵ are there, bit for bit, so its integers or indices can be written in the place of the values.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fairseq_compress.checkpoint.load import load_upgraded
from fairseq_compress.checkpoint.pack import pack_model
from fairseq_compress.checkpoint.packed_file import is_packed, read_packed
from fairseq_compress.decoding.beam_search import Floats
from fairseq_compress.weights.packed import Packed, unpack
from fairseq_compress.weights.reading import plan_of
from fairseq_compress.work.files import PathLike

KEPT, EXPANDED, LOST = "kept", "expanded", "lost"


class Stored(NamedTuple):
    """A compressed weight of the checkpoint."""

    name: str
    packed: Packed
    values: Floats
    """ŵ (R, C), float32."""


class Rows(NamedTuple):
    """Rows of a matrix that are one stored weight, or have no stored form."""

    values: Floats
    stored: Stored | None = None


class StoredWeights:
    """Compressed weights by name, and for each of them what an export made of it."""

    def __init__(self, weights: Mapping[str, Packed] | None = None) -> None:
        self._stored: dict[str, Stored] = {}
        self._found: dict[str, tuple[str, int, int]] = {}
        self._starts: dict[tuple[int, bytes], list[Stored]] = {}
        for name, packed in (weights or {}).items():
            stored = Stored(name, packed, unpack(packed).float().numpy())
            self._stored[name] = stored
            self._starts.setdefault(_start(stored.values), []).append(stored)

    def __len__(self) -> int:
        return len(self._stored)

    def parts(self, weight: Floats) -> list[Rows]:
        """The rows of a matrix, cut where a stored weight begins or ends."""
        found: list[Rows] = []
        at = last = 0
        while at < len(weight):
            stored = self._at(weight[at:]) if self._stored else None
            if stored is None:
                at += 1 if self._stored else len(weight)
                continue
            if at > last:
                found.append(Rows(weight[last:at]))
            at += len(stored.values)
            last = at
            found.append(Rows(stored.values, stored))
        return [*found, Rows(weight[last:])] if at > last else found

    def record(self, stored: Stored, what: str, in_file: int = 0, in_memory: int = 0) -> None:
        """Note that a weight was KEPT, EXPANDED (bytes in the file, bytes in memory) or LOST."""
        self._found[stored.name] = what, in_file, in_memory

    def record_kept(self, keeps: Callable[[Packed], bool]) -> None:
        """Note all weights whose form a runtime keeps."""
        for stored in self._stored.values():
            if keeps(stored.packed):
                self.record(stored, KEPT)

    def forms(self) -> dict[str, Any]:
        """For the metadata: forms, as :meth:`Packed.__str__` names them, with numbers of matrices and bytes."""
        found: dict[str, Any] = {}
        for what in (KEPT, EXPANDED, LOST):
            names = [name for name in self._stored if self._found.get(name, (LOST, 0, 0))[0] == what]
            if names:
                found[what] = dict(Counter(str(self._stored[name].packed) for name in names))
        expanded = [sizes for what, *sizes in self._found.values() if what == EXPANDED]
        if expanded:
            in_file, in_memory = (sum(column) for column in zip(*expanded, strict=True))
            found["expanded_bytes"] = {"file": in_file, "memory": in_memory}
        return found

    def _at(self, weight: Floats) -> Stored | None:
        every = self._starts.get(_start(weight), [])
        return next((each for each in every if np.array_equal(each.values, weight[: len(each.values)])), None)


def packed_weights(path: PathLike) -> dict[str, Packed]:
    """The compressed weights of a packed file, or of a checkpoint with a plan."""
    if is_packed(path):
        model = read_packed(path)
    else:
        plan = plan_of(load_upgraded(path)[1].model)
        if plan is None or not plan.weights:
            return {}
        model = pack_model(path)
    return {name: packed for name, packed in model.weights.items() if packed.kind != "plain"}


def _start(weight: Floats) -> tuple[int, bytes]:
    return weight.shape[1], (weight[0] + 0.0).tobytes()  # -0.0 is 0.0: a plan may compute either
