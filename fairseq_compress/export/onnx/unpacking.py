"""Nodes that make matrices of what a packed weight stores: integers, codebooks, masks.

ONNX Runtime computes them once, when a model is loaded: the file is small, and the memory is that of the result. Only
operators whose output has a shape that does not depend on values are computed then.
"""

from typing import Any

import numpy as np
from onnx import TensorProto

from fairseq_compress.export.onnx_graph import GraphBuilder
from fairseq_compress.functional.quantization.bit_packing import pack_unsigned, unpack_integers
from fairseq_compress.weights.packed import FORMS, Packed

FLOAT, INT32, INT64, UINT8 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8


def expanded(graph: GraphBuilder, name: str, packed: Packed) -> str:
    """The values ŵ (R, C) in float32, equal to :func:`fairseq_compress.weights.packed.unpack` but for a rotation."""
    if packed.kind != "masked":
        return _EXPAND[packed.kind](graph, name, packed, None)
    inner = inner_of(packed)
    mask = mask_of(graph, name, packed)
    if inner.kind == "plain":
        return graph.reshape(
            _scattered(graph, mask, graph.dense(name, inner.tensors[""].float().numpy())), *_shape(packed)
        )
    whole = _EXPAND[inner.kind](graph, name, inner, mask if FORMS[inner.kind].codes(inner) else None)
    kept = graph.node("Cast", graph.reshape(mask, *_shape(packed)), to=TensorProto.BOOL)
    return graph.node("Where", kept, whole, graph.constant(np.zeros(1, np.float32)))


def inner_of(packed: Packed) -> Packed:
    """The form behind a mask; of its codes only those of kept weights are there."""
    tensors = {part.removeprefix("kept:"): tensor for part, tensor in packed.tensors.items() if part != "mask"}
    return Packed(packed.spec["kind"], packed.spec["spec"], tensors)


def mask_of(graph: GraphBuilder, name: str, packed: Packed) -> str:
    """The mask of a packed weight, int32 (R C,): 1 is kept."""
    rows, columns = packed.spec["shape"]
    bits = graph.dense(f"{name}.mask", packed.tensors["mask"].numpy())
    return graph.node("Cast", unsigned(graph, bits, 1, rows * columns), to=INT32)


def linear_codes(graph: GraphBuilder, name: str, packed: Packed, mask: str | None) -> str:
    """The integers q + 2^(b-1) of a ``linear`` weight, uint8 (R C,); of masked ones that of zero."""
    bits, (rows, columns) = packed.spec["bits"], packed.spec["shape"]
    half = 2 ** (bits - 1)
    count = packed.tensors["integers"].numel() * 8 // bits if mask else rows * columns
    values = unpack_integers(packed.tensors["integers"], bits, count).int() + half
    stored = graph.dense(f"{name}.integers", pack_unsigned(values, bits).numpy())
    codes = unsigned(graph, stored, bits, count)
    return codes if mask is None else _scattered(graph, mask, codes, half)


def inverse_scales(graph: GraphBuilder, name: str, packed: Packed) -> str:
    """1 / scale of a ``linear`` weight in float32: (R, G), (R, 1) or (1, 1)."""
    inverse = packed.tensors["inverse_scales"]
    stored = graph.dense(f"{name}.inverse_scales", inverse.flatten(1).numpy())
    return graph.node("Cast", stored, to=FLOAT)


def unsigned(graph: GraphBuilder, packed: str, bits: int, count: int) -> str:
    """The integers of :func:`pack_unsigned` (count,): uint8 up to 8 bits, else int32."""
    if bits == 8:
        return packed
    if 8 % bits == 0:
        shifts = graph.constant(np.arange(0, 8, bits, dtype=np.uint8))
        shifted = graph.node("BitShift", graph.node("Unsqueeze", packed, graph.integers(1)), shifts, direction="RIGHT")
        every = graph.node("BitwiseAnd", shifted, graph.constant(np.asarray([2**bits - 1], np.uint8)))
        return graph.node("Slice", graph.reshape(every, -1), graph.integers(0), graph.integers(count))
    return _across_bytes(graph, packed, bits, count)


def _across_bytes(graph: GraphBuilder, packed: str, bits: int, count: int) -> str:
    """Integer i is in bits i b to (i + 1) b - 1, at most three bytes: (Σ_k byte_k 256^k // 2^offset) mod 2^b."""
    start = graph.node("Mul", graph.numbers(count), graph.integers(bits))
    byte = graph.node("Div", start, graph.integers(8))
    offset = graph.node("Sub", start, graph.node("Mul", byte, graph.integers(8)))
    behind = graph.constant(np.zeros(2, np.uint8))
    data = graph.node("Cast", graph.node("Concat", packed, behind, axis=0), to=INT32)
    window: Any = None
    for place in range(3):
        part = graph.node("Gather", data, graph.node("Add", byte, graph.integers(place)))
        part = graph.node("Mul", part, graph.constant(np.asarray([256**place], np.int32)))
        window = part if window is None else graph.node("Add", window, part)
    divisor = graph.node("Gather", graph.constant(2 ** np.arange(8, dtype=np.int32)), offset)
    found = graph.node("Mod", graph.node("Div", window, divisor), graph.constant(np.asarray([2**bits], np.int32)))
    return graph.node("Cast", found, to=UINT8) if bits < 8 else found


def _scattered(graph: GraphBuilder, mask: str, kept: str, zero: float = 0) -> str:
    """Kept values in their places, else ``zero``, (R C,): number m_i · Σ_{j <= i} m_j of those behind a zero."""
    kind = np.float32 if zero == 0 else np.uint8
    numbers = graph.node("Mul", mask, graph.node("CumSum", mask, graph.constant(np.asarray(0, np.int64))))
    return graph.node("Gather", graph.node("Concat", graph.constant(np.asarray([zero], kind)), kept, axis=0), numbers)


def _linear(graph: GraphBuilder, name: str, packed: Packed, mask: str | None) -> str:
    """(q + 2^(b-1) - 2^(b-1)) / (1 / scale)."""
    (rows, columns), half = packed.spec["shape"], 2.0 ** (packed.spec["bits"] - 1)
    values = graph.node("Cast", linear_codes(graph, name, packed, mask), to=FLOAT)
    centred = graph.node("Sub", values, graph.constant(np.asarray([half], np.float32)))
    inverse = inverse_scales(graph, name, packed)
    groups = packed.tensors["inverse_scales"].shape[1]
    grouped = graph.node(
        "Div", graph.reshape(centred, rows, groups, -1), graph.node("Unsqueeze", inverse, graph.integers(2))
    )
    return graph.reshape(grouped, rows, columns)


def _codes(graph: GraphBuilder, name: str, packed: Packed, mask: str | None) -> str:
    """The sum of one centroid of each codebook, rotated back."""
    (rows, columns), spec, tensors = packed.spec["shape"], packed.spec, packed.tensors
    bits, books, block = (spec["centroids"] - 1).bit_length(), spec["codebooks"], spec["block"]
    stored = graph.dense(f"{name}.assignments", tensors["assignments"].numpy())
    count = tensors["assignments"].numel() * 8 // bits if mask else rows * (columns // block) * books
    indices = unsigned(graph, stored, bits, count)
    if mask is not None:
        indices = _indices_of_kept(graph, mask, indices)
    total = _chosen(graph, _centroids(graph, name, packed), graph.node("Cast", indices, to=INT64), books)
    if (rotation := tensors.get("rotation")) is not None:
        turned = graph.dense(f"{name}.rotation", rotation.t().contiguous().numpy())
        parts = graph.reshape(total, -1, len(rotation))
        total = graph.node("MatMul", parts, graph.node("Cast", turned, to=FLOAT))
    return graph.reshape(total, rows, columns)


def _chosen(graph: GraphBuilder, centroids: str, indices: str, books: int) -> str:
    """The sum of the centroids at ``indices`` (n M,), one of each codebook: (n, d)."""
    if books == 1:
        return graph.node("Gather", centroids, indices)
    indices, total = graph.reshape(indices, -1, books), ""
    for book in range(books):
        number = graph.constant(np.asarray(book, np.int64))
        found = graph.node(
            "Gather", graph.node("Gather", centroids, number), graph.node("Gather", indices, number, axis=1)
        )
        total = graph.node("Add", total, found) if total else found
    return total


def _indices_of_kept(graph: GraphBuilder, mask: str, indices: str) -> str:
    whole = graph.node("Cast", indices, to=INT32)
    numbers = graph.node("Mul", mask, graph.node("CumSum", mask, graph.constant(np.asarray(0, np.int64))))
    return graph.node("Gather", graph.node("Concat", graph.constant(np.zeros(1, np.int32)), whole, axis=0), numbers)


def _centroids(graph: GraphBuilder, name: str, packed: Packed) -> str:
    """(M, K, d) in float32; of one codebook (K, d)."""
    centroids = packed.tensors["centroids"].numpy()
    centroids = centroids[0] if len(centroids) == 1 else centroids
    values = graph.node("Cast", graph.dense(f"{name}.centroids", centroids), to=FLOAT)
    if (inverse := packed.tensors.get("inverse_scale")) is None:
        return values
    return graph.node("Div", values, graph.constant(inverse.numpy().reshape(1)))


def _shape(packed: Packed) -> tuple[int, int]:
    rows, columns = packed.spec["shape"]
    return rows, columns


_EXPAND: dict[str, Any] = {"linear": _linear, "codes": _codes}
