"""What the axes of the weights of fairseq's transformer are, by the names that the weights have in checkpoints."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from fairseq.models.transformer import TransformerModelBase
from torch import Tensor

from fairseq_compress.functional.layer_map import PARTS
from fairseq_compress.surgery.width_reduction import Axis, leading, leading_in_heads, principal

ENTRIES = "entries"  # of a dictionary
WIDTH, FFN, HEADS, POSITIONS = "width", "FFN width", "heads", "positions"

# A module in encoder or decoder, in a layer or not -> the axes of its weight; its bias has the first. A {} stands for
# encoder or decoder.
_MATRICES = {
    r"embed_tokens|output_projection": (ENTRIES, "{} width"),
    r"embed_positions": ("{} positions", "{} width"),
    r"self_attn\.[qkv]_proj|encoder_attn\.q_proj": ("{} heads", "{} width"),
    r"encoder_attn\.[kv]_proj": ("{} heads", "encoder width"),
    r"(self|encoder)_attn\.out_proj": ("{} width", "{} heads"),
    r"self_attn\.(forget|project)": ("{} width", "{} width"),  # of an SSRU
    r"fc1": ("{} FFN width", "{} width"),
    r"fc2": ("{} width", "{} FFN width"),
}
_NORMS = r"layernorm_embedding|layer_norm|(self_attn|encoder_attn|final)_layer_norm"
_KEY = re.compile(r"(?P<part>encoder|decoder)\.(layers\.\d+\.)?(?P<module>.+)\.(?P<kind>weight|bias)")

Sizes = dict[str, tuple[int, ...]]
"""The size of each axis by its name; of heads their number and the width of one."""


class AxisNames(NamedTuple):
    """The axes of a weight."""

    names: tuple[str, ...]
    gain: bool
    """Whether it is the gain of a layer norm."""


def axes_of(key: str) -> AxisNames | None:
    """The axes of a weight, None if it is none that every transformer has."""
    found = _KEY.fullmatch(key)
    if found is None:
        return None
    part, is_weight = found["part"], found["kind"] == "weight"
    if re.fullmatch(_NORMS, found["module"]):
        return AxisNames((f"{part} width",), is_weight)
    for pattern, names in _MATRICES.items():
        if re.fullmatch(pattern, found["module"]):
            filled = tuple(name.format(part) for name in names)
            return AxisNames(filled if is_weight else filled[:1], False)
    return None


def axis_sizes(model: TransformerModelBase, shapes: Mapping[str, tuple[int, ...]]) -> Sizes:
    """The sizes of a model's axes. An axis on which nothing of the model lies is left out."""
    sizes: Sizes = {}
    for part in PARTS:
        cfg = getattr(model.cfg, part)
        width, heads = int(cfg.embed_dim), int(cfg.attention_heads)
        sizes[f"{part} {WIDTH}"] = (width,)
        if len(getattr(model, part).layers):
            sizes[f"{part} {FFN}"] = (int(cfg.ffn_embed_dim),)
            sizes[f"{part} {HEADS}"] = (heads, width // heads)
        if f"{part}.embed_positions.weight" in shapes:
            sizes[f"{part} {POSITIONS}"] = shapes[f"{part}.embed_positions.weight"][:1]
    return sizes


def reductions(teacher: Sizes, student: Sizes, tables: Mapping[str, Tensor] | None) -> dict[str, Axis]:
    """How each axis that both models have becomes the student's.

    Args:
        tables: the embedding tables of the teacher's encoder and decoder, by these names, whose principal directions
            their streams are projected on; None for slices.
    """
    found = {}
    for name, kept in student.items():
        size = teacher.get(name)
        part, kind = name.split(" ", 1)
        if size is None:
            continue
        if kind == HEADS:
            found[name] = leading_in_heads(*size, *kept)
        elif kind == WIDTH and tables is not None and size != kept:
            found[name] = principal(tables[part], *kept)
        else:
            found[name] = leading(*size, *kept)
    return found
