"""``mask``: a fixed mask removes weights. In a chain with a quantization, which then sees the masked weight."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from fairseq_compress.functional.draws import seed_of
from fairseq_compress.functional.pruning.masks import CRITERIA, pack_mask, unpack_mask
from fairseq_compress.functional.quantization.bit_packing import pack_unsigned, packed_bytes, unpack_unsigned
from fairseq_compress.modules.evaluation_cache import EvaluationCache
from fairseq_compress.options import option
from fairseq_compress.weights.chain import MASK, STATE_NAMES, WeightTransform
from fairseq_compress.weights.packed import FORMS, Packed, check_bytes, packed_form, unpack
from fairseq_compress.weights.rules import WeightRule, method


@method("mask")
@dataclass(frozen=True, kw_only=True)
class MaskRule(WeightRule):
    """A fixed mask, computed from the loaded weight."""

    sparsity: float = option(help="fraction of each weight that is removed", range="[0, 1)")
    criterion: str = option("random", "which weights are removed", choices=CRITERIA)
    seed: int = option(1, "of everything random")

    place: ClassVar[str] = MASK

    def transform(self, rows: int, columns: int, name: str = "") -> "Mask":
        criterion = partial(CRITERIA[self.criterion], sparsity=self.sparsity, seed=seed_of(self.seed, name))
        return Mask((rows, columns), criterion)


class Mask(WeightTransform):
    """w̃ = m ⊙ w with m in {0, 1}; gradients are zero where m is. The parameter w keeps its values.

    The mask is a buffer of bits. For a checkpoint without one, ``criterion`` computes it from the weight (R, C).
    """

    place = MASK
    bits: Tensor

    def __init__(self, shape: tuple[int, int], criterion: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.shape, self.criterion = shape, criterion
        self.register_buffer("bits", pack_mask(torch.ones(shape, dtype=torch.bool)))
        self._cache = EvaluationCache()

    def kept(self) -> Tensor:
        """m (R, C), bool."""
        return self._cache.get("mask", (self.bits,), lambda: unpack_mask(self.bits, self.shape))

    def begin(self, weight: Tensor) -> None:
        """Make the mask of the weight to which it is attached."""
        self.bits.copy_(pack_mask(self.criterion(weight.detach())))

    def whole(self, weight: Tensor) -> Tensor:
        return torch.where(self.kept(), weight, 0)

    def rows(self, rows: Tensor, used: Tensor, weight: Callable[[], Tensor]) -> Tensor:
        return torch.where(self.kept()[used], rows, 0)

    def take_plain(self, weight: Tensor | None, state: dict[str, Tensor], prefix: str) -> Tensor | None:
        """Complete a state dict that has no mask; returns the masked weight."""
        key = f"{prefix}{STATE_NAMES[MASK]}bits"
        if key not in state:
            state[key] = self.bits if weight is None else pack_mask(self.criterion(weight))
        return None if weight is None else torch.where(unpack_mask(state[key], self.shape), weight, 0)

    def pack_masked(self, packed: Packed) -> Packed:
        """The packed form of a masked weight, with the mask where needed."""
        return pack_masked(packed, self.kept().cpu())

    def extra_repr(self) -> str:
        return f"sparsity={1 - self.kept().float().mean().item():.4g}"


def pack_masked(packed: Packed, mask: Tensor) -> Packed:
    """A bitmap and the codes of kept weights; or the packed form as it is, where that is smaller and has the zeros."""
    spec = {"kind": packed.kind, "spec": packed.spec, "shape": list(mask.shape)}
    tensors = dict(packed.tensors)
    if packed.kind == "plain":
        tensors[""] = tensors[""][mask]
    elif found := FORMS[packed.kind].codes(packed):
        part, bits = found
        codes = unpack_unsigned(tensors[part], bits, mask.numel())
        tensors[part] = pack_unsigned(codes[mask.flatten()], bits)
    masked = Packed("masked", spec, {f"kept:{part}": tensor for part, tensor in tensors.items()})
    masked.tensors["mask"] = pack_mask(mask)
    has_zeros = packed.kind != "codes"
    return packed if has_zeros and packed.bytes <= masked.bytes else masked


@packed_form("masked")
def unpack_masked(packed: Packed) -> Tensor:
    """The weight of :func:`pack_masked`."""
    rows, columns = packed.spec["shape"]
    check_bytes("mask", packed.tensors["mask"], packed_bytes(rows * columns, 1), 8)
    mask = unpack_mask(packed.tensors["mask"], (rows, columns))
    tensors = {part.removeprefix("kept:"): t for part, t in packed.tensors.items() if part != "mask"}
    inner = Packed(packed.spec["kind"], packed.spec["spec"], tensors)
    count = int(mask.sum())
    if inner.kind == "plain":
        check_bytes("kept", tensors[""], count, 8)
        tensors[""] = tensors[""].new_zeros(mask.shape).masked_scatter_(mask, tensors[""])
    elif inner.kind in FORMS and (found := FORMS[inner.kind].codes(inner)):
        part, bits = found
        check_bytes("kept", tensors[part], count, bits)
        codes = torch.zeros(mask.numel(), dtype=torch.int32)
        codes[mask.flatten()] = unpack_unsigned(tensors[part], bits, count)
        tensors[part] = pack_unsigned(codes, bits)
    return torch.where(mask, unpack(inner), 0)
