"""Compressed weights as the tensors that a packed checkpoint stores, and back."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from fairseq_compress.functional.quantization.bit_packing import packed_bytes


class Packed(NamedTuple):
    """A weight as it is stored."""

    kind: str
    """A key of :data:`FORMS`."""
    spec: dict[str, Any]
    """Metadata in JSON values."""
    tensors: dict[str, Tensor]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensors[""].shape if self.kind == "plain" else self.spec["shape"])

    @property
    def bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())

    def __str__(self) -> str:
        """For a table of sizes."""
        if self.kind == "plain":
            return str(next(iter(self.tensors.values())).dtype).removeprefix("torch.")
        if "kind" in self.spec:  # in another form
            return f"{self.kind}, {Packed(self.spec['kind'], self.spec['spec'], self.tensors)}"
        shown = ", ".join(f"{name}={value}" for name, value in self.spec.items() if name != "shape" and value)
        in_int8 = any(part.endswith("inverse_scale") for part in self.tensors)
        return f"{self.kind}: {shown}" + (", in int8" if in_int8 else "")


class Form(NamedTuple):
    """The readers of a kind."""

    unpack: Callable[[Packed], Tensor]
    codes: Callable[[Packed], tuple[str, int] | None]
    """The part that holds one code for each weight, and the bits of a code; None where a code is of several weights."""


FORMS: dict[str, Form] = {}


def packed_form(
    kind: str, codes: Callable[[Packed], tuple[str, int] | None] = lambda packed: None
) -> Callable[[Callable[[Packed], Tensor]], Callable[[Packed], Tensor]]:
    """Register a function as the reader of a kind of packed weight."""

    def register(unpack: Callable[[Packed], Tensor]) -> Callable[[Packed], Tensor]:
        FORMS[kind] = Form(unpack, codes)
        return unpack

    return register


def pack_plain(weight: Tensor) -> Packed:
    """A weight as it is, in its own type."""
    return Packed("plain", {}, {"": weight.detach().contiguous()})


@packed_form("plain")
def _unpack_plain(packed: Packed) -> Tensor:
    return packed.tensors[""]


def unpack(packed: Packed) -> Tensor:
    """The weight ŵ that was packed."""
    if packed.kind not in FORMS:
        raise ValueError(f"kind: must be one of {', '.join(FORMS)}, got {packed.kind!r}")
    return FORMS[packed.kind].unpack(packed)


def check_bytes(part: str, tensor: Tensor, count: int, bits: int) -> None:
    """Raise ``ValueError`` unless ``tensor`` has the bytes of ``count`` numbers."""
    if tensor.numel() != packed_bytes(count, bits):
        raise ValueError(f"{part}: must be {count} numbers of {bits} bits")
