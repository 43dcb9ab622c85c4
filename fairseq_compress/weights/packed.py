"""Compressed weights as the tensors that a packed checkpoint stores, and back."""

from typing import Any, NamedTuple

from torch import Tensor

from fairseq_compress.functional.quantization.bit_packing import (
    pack_integers,
    pack_unsigned,
    packed_bytes,
    unpack_integers,
    unpack_unsigned,
)
from fairseq_compress.functional.quantization.codes import Codes, Int8Centroids, int8_centroids, reconstruct
from fairseq_compress.functional.quantization.linear import (
    Linear,
    dequantize,
    quantize,
    scale_count,
    weight_scales,
)


class Packed(NamedTuple):
    """A weight as it is stored."""

    kind: str
    """A key of :data:`KINDS`."""
    spec: dict[str, Any]
    """What is needed beside the tensors, in values of JSON."""
    tensors: dict[str, Tensor]


def pack_plain(weight: Tensor) -> Packed:
    """A weight as it is, in its own type."""
    return Packed("plain", {}, {"": weight.detach().contiguous()})


def pack_linear(weight: Tensor, how: Linear) -> Packed:
    """Integers of b bits without gaps, and their scales: float16 of groups, else float32."""
    scales = weight_scales(weight, how)
    stored = scales.half() if scale_count(_matrix(weight), how)[1] == 16 else scales
    integers = pack_integers(quantize(weight, scales, how), how.bits)
    return Packed("linear", how._asdict() | {"shape": list(weight.shape)}, {"integers": integers, "scales": stored})


def pack_codes(codes: Codes, centroid_bits: int) -> Packed:
    """Assignments in ceil(log2 K) bits without gaps, and centroids in float16 or int8; a rotation in float16."""
    codebooks, entries, block = codes.centroids.shape
    bits = (entries - 1).bit_length()
    spec = {"shape": list(codes.shape), "block": block, "codebooks": codebooks, "centroids": entries}
    tensors = {"assignments": pack_unsigned(codes.assignments, bits)}
    if centroid_bits == 8:
        values, scale = int8_centroids(codes.centroids)
        tensors |= {"centroids": values, "scale": scale}
    else:
        tensors["centroids"] = codes.centroids.half()
    if codes.rotation is not None:
        tensors["rotation"] = codes.rotation.half()
    return Packed("codes", spec, tensors)


def unpack(packed: Packed) -> Tensor:
    """The weight that was packed: x̂ of a quantized one.

    Raises:
        ValueError: spec and tensors do not fit each other.
    """
    if packed.kind not in KINDS:
        raise ValueError(f"kind: must be one of {', '.join(KINDS)}, got {packed.kind!r}")
    unpacked: Tensor = KINDS[packed.kind](packed)
    return unpacked


def _unpack_linear(packed: Packed) -> Tensor:
    how = Linear(*(packed.spec[name] for name in Linear._fields))
    rows, columns = packed.spec["shape"]
    how.check((rows, columns))
    integers, scales = packed.tensors["integers"], packed.tensors["scales"].float()
    if (
        integers.numel() != packed_bytes(rows * columns, how.bits)
        or scales.numel() != scale_count((rows, columns), how)[0]
    ):
        raise ValueError(f"integers and scales: must be those of a matrix {rows} x {columns}")
    return dequantize(unpack_integers(integers, how.bits, rows * columns).view(rows, columns), scales, how)


def _unpack_codes(packed: Packed) -> Tensor:
    (rows, columns), tensors = packed.spec["shape"], packed.tensors
    block, codebooks, entries = (packed.spec[name] for name in ("block", "codebooks", "centroids"))
    count, bits = rows * (columns // block) * codebooks, (entries - 1).bit_length()
    if tuple(tensors["centroids"].shape) != (codebooks, entries, block) or columns % block:
        raise ValueError(f"centroids: must be {codebooks} x {entries} x {block} for {columns} columns")
    if tensors["assignments"].numel() != packed_bytes(count, bits):
        raise ValueError(f"assignments: must be {count} numbers of {bits} bits")
    assignments = unpack_unsigned(tensors["assignments"], bits, count).view(rows, -1, codebooks)
    if count and int(assignments.max()) >= entries:
        raise ValueError(f"assignments: must be below {entries}, got {int(assignments.max())}")
    centroids, rotation = tensors["centroids"], tensors.get("rotation")
    values = Int8Centroids(centroids, tensors["scale"]).dequantize() if "scale" in tensors else centroids.float()
    return reconstruct(Codes(values, assignments, None if rotation is None else rotation.float()))


def _matrix(weight: Tensor) -> tuple[int, int]:
    rows, columns = weight.shape
    return rows, columns


KINDS = {"plain": lambda packed: packed.tensors[""], "linear": _unpack_linear, "codes": _unpack_codes}
