"""Arrays with many zeros in fewer bytes: their nonzero blocks, and where these are.

The graph makes them dense with operators of constants, which ONNX Runtime computes once, when a model is loaded: no
kernel of it multiplies by sparse matrices. A file gets this form where it saves a tenth: sparse layers, masks, biases
that are zero.

Forms, of which the smallest is taken, with n nonzero blocks of b x b entries, b one of 1, 8, 16, 32:

``gaps``
    the distance of each block to the one before it, in 1, 2 or 4 bytes.
``bits``
    a bit for every entry, the first in the highest bit of a byte (b = 1).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

BLOCKS = (1, 8, 16, 32)
WORTH = 0.9  # of the dense bytes; above it an array stays dense
LEAST_SAVED = 1024  # bytes
Array = NDArray[Any]


class Graph(Protocol):
    """A graph of nodes."""

    def integers(self, *values: int) -> str: ...
    def constant(self, array: Array) -> str: ...
    def node(self, operator: str, *inputs: str, **attributes: Any) -> Any: ...


class Sparse(NamedTuple):
    """The nonzero blocks of an array."""

    shape: tuple[int, ...]
    values: Array
    """(n,) for b = 1, else (n, b, b)."""
    gaps: Array | None
    """(n,) place of a block, counted along the rows of blocks, less that of the one before it; of the first its own."""
    bits: Array | None
    """(⌈size / 8⌉,) bytes, in the place of ``gaps``."""

    def parts(self) -> dict[str, Array]:
        """The arrays to store, by name; none if all entries are zero."""
        every = {"values": self.values, "gaps": self.gaps, "bits": self.bits}
        return {name: part for name, part in every.items() if part is not None and len(self.values)}

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts().values())

    @property
    def dense_bytes(self) -> int:
        return int(np.prod(self.shape)) * self.values.itemsize

    @property
    def block(self) -> int:
        return 1 if self.values.ndim == 1 else self.values.shape[1]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of blocks of a matrix."""
        return self.shape[0] // self.block, self.shape[1] // self.block


def sparse_form(array: Array) -> Sparse | None:
    """The smallest form of an array that is worth it, or None."""
    if array.nbytes <= LEAST_SAVED or array.ndim == 0:
        return None
    best = min(_forms(array), key=lambda form: form.nbytes)
    return best if best.nbytes <= min(WORTH * array.nbytes, array.nbytes - LEAST_SAVED) else None


def _forms(array: Array) -> Iterator[Sparse]:
    filled = array != 0
    for block in BLOCKS:
        if block > 1 and (array.ndim != 2 or array.shape[0] % block or array.shape[1] % block):
            continue
        tiles, marks = (_tiles(each, block) for each in (array, filled))
        kept = marks if block == 1 else np.any(marks, axis=(1, 2))
        places = np.flatnonzero(kept)
        yield Sparse(array.shape, tiles[places], _smallest(np.diff(places, prepend=0)), None)
        if block == 1:
            yield Sparse(array.shape, tiles[places], None, np.packbits(kept))


def _tiles(array: Array, block: int) -> Array:
    """(size,) for blocks of one entry, else (R C, b, b)."""
    if block == 1:
        return array.reshape(-1)
    rows, columns = array.shape
    return array.reshape(rows // block, block, columns // block, block).swapaxes(1, 2).reshape(-1, block, block)


def _smallest(gaps: Array) -> Array:
    """In the smallest unsigned type; the largest has a sign, as ONNX Runtime has no cast from uint32 everywhere."""
    greatest = int(gaps.max(initial=0))
    kinds = ((np.uint8, 0xFF), (np.uint16, 0xFFFF), (np.int32, 0x7FFFFFFF))
    return gaps.astype(next(kind for kind, most in kinds if greatest <= most))


def expand(graph: Graph, form: Sparse, parts: dict[str, str]) -> str:
    """Nodes that make the dense array of the stored ``parts``."""
    block = form.block
    zero = numpy_helper.from_array(np.zeros(1, form.values.dtype))
    if "bits" in parts:
        dense = _gathered(graph, form, parts, graph.constant(np.zeros(1, form.values.dtype)))
    else:
        tiles = (int(np.prod(form.shape)),) if block == 1 else (form.grid[0] * form.grid[1], block, block)
        dense = graph.node("ConstantOfShape", graph.integers(*tiles), value=zero)
    if "gaps" in parts:
        gaps = graph.node("Cast", parts["gaps"], to=TensorProto.INT64)
        places = graph.node("CumSum", gaps, graph.constant(np.asarray(0, np.int64)))
        places = graph.node("Unsqueeze", places, graph.integers(1))
        dense = graph.node("ScatterND", dense, places, parts["values"])
    if block > 1:
        rows, columns = form.grid
        dense = graph.node("Reshape", dense, graph.integers(rows, columns, block, block))
        dense = graph.node("Transpose", dense, perm=[0, 2, 1, 3])
    return graph.node("Reshape", dense, graph.integers(*form.shape))


def _gathered(graph: Graph, form: Sparse, parts: dict[str, str], zero: str) -> str:
    """The entries in a row: of the values behind a zero, number bit_i · Σ_{j <= i} bit_j.

    Only operators whose output has a shape that does not depend on values are computed when a model is loaded.
    """
    whole = graph.node("Unsqueeze", parts["bits"], graph.integers(1))
    shifted = graph.node("BitShift", whole, graph.constant(np.arange(7, -1, -1, dtype=np.uint8)), direction="RIGHT")
    bits = graph.node("BitwiseAnd", shifted, graph.constant(np.asarray([1], np.uint8)))
    bits = graph.node("Reshape", graph.node("Cast", bits, to=TensorProto.INT32), graph.integers(-1))
    size = graph.integers(int(np.prod(form.shape)))
    bits = graph.node("Slice", bits, graph.integers(0), size)
    numbers = graph.node("Mul", bits, graph.node("CumSum", bits, graph.constant(np.asarray(0, np.int64))))
    return graph.node("Gather", graph.node("Concat", zero, parts["values"], axis=0), numbers)
