"""A low-rank linear layer, ``B (A x) + b``: two products."""

from fairseq_compress.export.onnx.part import Part
from fairseq_compress.export.onnx.registry import LINEAR, register


@register(LINEAR, "low_rank")
def low_rank(part: Part, x: str, name: str) -> str:
    return part.joined(part.joined(x, f"{name}.down"), f"{name}.up")
