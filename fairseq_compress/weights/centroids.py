"""Weights made of shared centroids, for product quantization and codebooks."""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from fairseq_compress.errors import CheckpointError, ConfigError
from fairseq_compress.functional.quantization.bit_packing import pack_unsigned, unpack_unsigned
from fairseq_compress.functional.quantization.codes import (
    Codes,
    Int8Centroids,
    int8_centroids,
    make_codes,
    reconstruct,
    round_centroids,
)
from fairseq_compress.functional.quantization.linear import straight_through
from fairseq_compress.options import option
from fairseq_compress.weights.chain import STATE_NAMES, STORAGE, WeightTransform
from fairseq_compress.weights.packed import Packed, check_bytes, packed_form
from fairseq_compress.weights.rules import WeightRule

DTYPES = {16: torch.float16, 8: torch.int8}


class Quantize(Protocol):
    """A matrix to codes; raises ``ValueError`` if it is not finite."""

    def __call__(self, weight: Tensor) -> Codes: ...


@dataclass(frozen=True)
class CodesRule(WeightRule):
    """Shared centroids."""

    block: int = option(1, "neighbours in a row that are looked up together", range="[1, inf)")
    centroid_bits: int = option(16, "16: float16; 8: int8", choices=DTYPES)
    seed: int = option(1, "of everything random")

    place: ClassVar[str] = STORAGE

    def transform(self, rows: int, columns: int, name: str = "") -> "Codebook":
        if columns % self.block:
            raise ValueError(f"block: must divide the {columns} columns, got {self.block}")
        books, entries = self.sizes()
        size = self.rotation_size(rows, columns)
        assignments = torch.zeros(rows * (columns // self.block), books, dtype=torch.int64)
        rotation = torch.eye(size) if size else None
        empty = make_codes(torch.zeros(books, entries, self.block), assignments, (rows, columns), rotation)
        return Codebook(empty, self.quantize(), self.centroid_bits)

    def quantize(self) -> Quantize:
        """The quantizer of a matrix."""
        raise NotImplementedError

    def sizes(self) -> tuple[int, int]:
        """Codebooks, and centroids in each."""
        raise NotImplementedError

    def rotation_size(self, rows: int, columns: int) -> int:
        """Columns that are rotated together; 0 for none."""
        return 0


class Codebook(WeightTransform):
    """Centroids, which are trained in place of the weight (arXiv:2004.07320).

    The forward pass uses the centroids as they are stored, in float16 or int8. A plain weight is quantized when it is
    loaded. The gradient of centroid k is the mean of the gradients of all N_k blocks of the matrix that it is assigned
    to (arXiv:1907.05686), Σ_{j: a_j = k} ∂L/∂b_j / N_k, zeros of rows that a batch does not use included.

    Args:
        codes: centroids, assignments and rotation, or only their sizes before a weight is loaded.
        quantize: quantizer of a plain weight.
        centroid_bits: 16 for float16, or 8.
        filled: whether ``codes`` are those of a weight.
    """

    assignments: Tensor
    rotation: Tensor | None
    place, trained_name = STORAGE, "weight_centroids"

    def __init__(self, codes: Codes, quantize: Quantize, centroid_bits: int = 16, filled: bool = False) -> None:
        super().__init__()
        self.start = codes.centroids
        self._quantize, self.centroid_bits, self._filled = quantize, centroid_bits, filled
        self._quantized: tuple[Tensor, Codes] | None = None  # of the last load, for all modules that share the weight
        self.register_buffer("assignments", codes.assignments)
        self.register_buffer("rotation", codes.rotation)

    def whole(self, weight: Tensor) -> Tensor:
        """The weight ``(R, C)`` of centroids ``(M, K, d)``."""
        return self._rows(weight, self.assignments)

    def lookup(self, used: Tensor, parameter: Tensor, padding: int | None) -> Tensor:
        """Rows ``(N, C)``; the row of the padding gives no gradient."""
        found = self._rows(parameter, self.assignments[used])
        if padding is None:
            return found
        return torch.where((used == padding).unsqueeze(-1), found.detach(), found)

    def _rows(self, centroids: Tensor, assignments: Tensor) -> Tensor:
        self._quantized = None
        if not self._filled:
            raise CheckpointError("a weight is to be made of centroids, but no trained weight was loaded")
        stored = straight_through(centroids, self._stored(centroids))
        averaged = _MeanGradient.apply(stored, self.assignments)
        rotation = None if self.rotation is None else self.rotation.float()
        return reconstruct(Codes(averaged.float(), assignments, rotation)).to(centroids.dtype)

    def _stored(self, centroids: Tensor) -> Tensor:
        values = centroids.detach()
        if self.centroid_bits == 8:
            return int8_centroids(values.float()).dequantize().to(values.dtype)
        return values.half().to(values.dtype)

    def take_plain(self, weight: Tensor, state: dict[str, Tensor], prefix: str) -> None:
        """Replace a plain weight in a state dict by centroids, assignments and rotation."""
        if self._quantized is None or not torch.equal(self._quantized[0], weight):
            try:
                codes = round_centroids(weight, self._quantize(weight), DTYPES[self.centroid_bits])
            except ValueError as error:
                raise ConfigError(f"compression plan, {prefix}weight: {error}") from None
            self._quantized = weight, codes
        codes = self._quantized[1]
        del state[f"{prefix}weight"]
        state[prefix + self.trained_name] = codes.centroids
        own = prefix + STATE_NAMES[STORAGE]
        state[f"{own}assignments"] = codes.assignments
        if self.rotation is not None:  # codes that are exact without one have none
            state[f"{own}rotation"] = torch.eye(len(self.rotation)) if codes.rotation is None else codes.rotation
        self._filled = True

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        self._filled = self._filled or f"{prefix}assignments" in state
        super()._load_from_state_dict(state, prefix, *rest)

    def pack(self, weight: Tensor) -> Packed:
        return pack_codes(Codes(weight.detach().float(), self.assignments, self.rotation), self.centroid_bits)

    def extra_repr(self) -> str:
        codebooks, centroids, block = self.start.shape
        rotated = "" if self.rotation is None else f", rotation={self.rotation.size(0)}"
        return f"centroids={centroids}, block={block}, codebooks={codebooks}, bits={self.centroid_bits}{rotated}"


class _MeanGradient(torch.autograd.Function):
    """Identity; the gradient of each centroid is divided by its number of blocks in the matrix."""

    @staticmethod
    def forward(ctx: Any, centroids: Tensor, assignments: Tensor) -> Tensor:
        ctx.save_for_backward(assignments)
        return centroids.view_as(centroids)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (assignments,) = ctx.saved_tensors
        codebooks, size, _ = gradients[0].shape
        flat = assignments.flatten(0, -2).long()
        counts = torch.stack([torch.bincount(flat[:, book], minlength=size) for book in range(codebooks)])
        return gradients[0] / counts.clamp_min(1).unsqueeze(-1), None


def pack_codes(codes: Codes, centroid_bits: int) -> Packed:
    """Assignments in ⌈log2 K⌉ bits without gaps, centroids in float16 or int8, a rotation in float16."""
    codebooks, entries, block = codes.centroids.shape
    spec = {"shape": list(codes.shape), "block": block, "codebooks": codebooks, "centroids": entries}
    tensors = {"assignments": pack_unsigned(codes.assignments, _bits(spec))}
    if centroid_bits == 8:
        values, inverse = int8_centroids(codes.centroids)
        tensors |= {"centroids": values, "inverse_scale": inverse}
    else:
        tensors["centroids"] = codes.centroids.half()
    if codes.rotation is not None:
        tensors["rotation"] = codes.rotation.half()
    return Packed("codes", spec, tensors)


def _bits(spec: dict[str, Any]) -> int:
    return int(spec["centroids"] - 1).bit_length()


def _codes_of_weights(packed: Packed) -> tuple[str, int] | None:
    several = packed.spec["block"] * packed.spec["codebooks"] > 1 or "rotation" in packed.tensors
    return None if several else ("assignments", _bits(packed.spec))


@packed_form("codes", _codes_of_weights)
def unpack_codes(packed: Packed) -> Tensor:
    """ŵ of :func:`pack_codes`."""
    (rows, columns), tensors = packed.spec["shape"], packed.tensors
    block, codebooks, entries = (packed.spec[name] for name in ("block", "codebooks", "centroids"))
    if tuple(tensors["centroids"].shape) != (codebooks, entries, block) or columns % block:
        raise ValueError(f"centroids: must be {codebooks} x {entries} x {block} for {columns} columns")
    count, bits = rows * (columns // block) * codebooks, _bits(packed.spec)
    check_bytes("assignments", tensors["assignments"], count, bits)
    assignments = unpack_unsigned(tensors["assignments"], bits, count).view(rows, -1, codebooks)
    if count and int(assignments.max()) >= entries:
        raise ValueError(f"assignments: must be below {entries}, got {int(assignments.max())}")
    centroids, inverse, rotation = (tensors.get(name) for name in ("centroids", "inverse_scale", "rotation"))
    assert centroids is not None
    values = centroids.float() if inverse is None else Int8Centroids(centroids, inverse).dequantize()
    return reconstruct(Codes(values, assignments, None if rotation is None else rotation.float()))
