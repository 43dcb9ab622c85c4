"""A weight that is made of shared centroids: product quantization and codebooks."""

from typing import Any, Protocol

import torch
from torch import Tensor

from fairseq_compress.errors import CheckpointError, ConfigError
from fairseq_compress.functional.quantization.codes import Codes, int8_centroids, reconstruct, round_centroids
from fairseq_compress.functional.quantization.linear import straight_through
from fairseq_compress.weights.packed import Packed, pack_codes
from fairseq_compress.weights.transform import WeightTransform

DTYPES = {16: torch.float16, 8: torch.int8}


class Quantize(Protocol):
    """A matrix to codes."""

    def __call__(self, weight: Tensor) -> Codes:
        """Raises ValueError where the weight is not finite."""


class Codebook(WeightTransform):
    """Centroids are trained in place of the weight, which is looked up in them (arXiv:2004.07320).

    The forward pass sees the centroids as they are stored, in float16 or int8. A plain weight that is loaded is
    quantized.

    The gradient of centroid k is the mean of the gradients of all N_k blocks of the matrix that it is assigned to
    (arXiv:1907.05686): Σ_{j: a_j = k} ∂L/∂b_j / N_k. Blocks of rows that a batch does not use count with
    a gradient of zero, so it is linear in the gradient of the weight: batches and processes may be cut in any way.

    Args:
        codes: centroids, assignments and rotation; of a model that is still to be loaded only the sizes count.
        quantize: how a plain weight is quantized.
        centroid_bits: 16 for float16, or 8.
        filled: whether ``codes`` are those of a weight; else it is still to be loaded.
    """

    assignments: Tensor
    rotation: Tensor | None
    trained_name = "weight_centroids"

    def __init__(self, codes: Codes, quantize: Quantize, centroid_bits: int = 16, filled: bool = False) -> None:
        super().__init__()
        self._start: Tensor | None = codes.centroids
        self._quantize, self.centroid_bits, self._filled = quantize, centroid_bits, filled
        self._quantized: tuple[Tensor, Codes] | None = None  # what was loaded last: all that share a weight load it
        self.sizes = tuple(codes.centroids.shape)
        self.register_buffer("assignments", codes.assignments)
        self.register_buffer("rotation", codes.rotation)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """What is trained in place of the weight: called by torch when the transform is attached."""
        assert self._start is not None
        return self._start

    def whole(self, weight: Tensor) -> Tensor:
        """The weight ``(R, C)`` of centroids ``(M, K, d)``."""
        return self._rows(weight, self.assignments)

    def rows(self, used: Tensor, weight: Tensor, padding: int | None) -> Tensor:
        found = self._rows(weight, self.assignments[used])
        if padding is None:
            return found
        is_padding = (used == padding).unsqueeze(-1)
        return torch.where(is_padding, found.detach(), found)

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

    def take_plain(self, state: dict[str, Tensor], prefix: str) -> None:
        weight = state.pop(f"{prefix}weight")
        if self._quantized is None or not torch.equal(self._quantized[0], weight):
            try:
                codes = quantize_for_storage(weight, self._quantize, self.centroid_bits)
            except ValueError as error:
                raise ConfigError(f"compression plan, {prefix}weight: {error}") from None
            self._quantized = weight, codes
        codes = self._quantized[1]
        state[prefix + self.trained_name] = codes.centroids
        state[f"{prefix}weight_transform.assignments"] = codes.assignments
        if self.rotation is not None:  # codes that are exact without one have none
            rotation = torch.eye(len(self.rotation)) if codes.rotation is None else codes.rotation
            state[f"{prefix}weight_transform.rotation"] = rotation
        self._filled = True

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        self._filled = self._filled or f"{prefix}assignments" in state
        super()._load_from_state_dict(state, prefix, *rest)

    def pack(self, weight: Tensor) -> Packed:
        return pack_codes(Codes(weight.detach().float(), self.assignments, self.rotation), self.centroid_bits)

    def extra_repr(self) -> str:
        codebooks, centroids, block = self.sizes
        rotated = "" if self.rotation is None else f", rotation={self.rotation.size(0)}"
        return f"centroids={centroids}, block={block}, codebooks={codebooks}, bits={self.centroid_bits}{rotated}"


def quantize_for_storage(weight: Tensor, quantize: Quantize, centroid_bits: int) -> Codes:
    """Codes with centroids that are stored without loss, and the weight assigned to these."""
    return round_centroids(weight, quantize(weight), DTYPES[centroid_bits])


class _MeanGradient(torch.autograd.Function):
    """Identity; the gradient of each centroid is divided by the number of blocks that it is assigned to.

    ``assignments`` are those of the whole matrix, also where only some of its rows are looked up.
    """

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
