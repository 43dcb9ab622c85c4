"""The axes of a model's parameters: which dimension is heads, FFN units, model width, entries or rank.

A method ``axes()`` declares, for children and parameters by name, the axes of the weight, outputs first; a bias has the
first of them. :data:`STOCK` has those of fairseq's modules; :func:`parameter_axes` collects those of a model.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from fairseq.models.transformer import TransformerDecoderBase, TransformerEncoderBase
from fairseq.modules import MultiheadAttention
from fairseq.modules.transformer_layer import TransformerDecoderLayerBase, TransformerEncoderLayerBase
from torch import nn

from fairseq_compress.functional.layer_map import PARTS


class Axis(NamedTuple):
    """One dimension of a parameter."""

    kind: str
    blocks: int = 1
    """Heads: the axis has blocks · width entries, a head is a run of width of them."""
    part: str = ""
    """``encoder`` or ``decoder``; in a declaration empty for the part in which the module is."""
    place: str = ""
    """The module that alone has this axis, for heads, FFN units and ranks; in a declaration relative to the module."""

    @property
    def name(self) -> str:
        """Part and kind, such as ``encoder FFN width``."""
        return f"{self.part} {self.kind}".lstrip()


Axes = tuple[Axis, ...]
Declaration = dict[str, Axes]

WIDTH, POSITIONS, ENTRIES = Axis("width"), Axis("positions"), Axis("entries")
FFN, HEADS, RANK = Axis("FFN width"), Axis("heads"), Axis("rank")
INNER, AVERAGE_FFN = Axis("bottleneck width"), Axis("average FFN width")
INPUT, OUTPUT = Axis("embedding width"), Axis("output width")  # of tables narrower than the stream
WINDOW = Axis("window")
"""Of a convolution over embeddings: taps · width of the table."""
DENSE_ROWS, DENSE_COLUMNS = Axis("rows"), Axis("columns")
"""In the declaration of a structured layer: the axes that its dense weight would have there."""
PLACED = {FFN.kind, HEADS.kind, RANK.kind}


def attention_axes(
    attention: Any, place: str = "", stream: Axis = WIDTH, keys: Axis | None = None, values: Axis | None = None
) -> Declaration:
    """The projections of multi-head attention.

    Args:
        place: name of the attention in the declaring module.
        stream: input of queries and output.
        keys, values: inputs of these; by default from the attention's flags.
    """
    source = WIDTH._replace(part=PARTS[0]) if attention.encoder_decoder_attention else stream
    heads, prefix = HEADS._replace(blocks=attention.num_heads, place=place), f"{place}." if place else ""
    return {
        f"{prefix}q_proj": (heads, stream), f"{prefix}k_proj": (heads, keys or source),
        f"{prefix}v_proj": (heads, values or source), f"{prefix}out_proj": (stream, heads),
    }  # fmt: skip


def _layer_axes(layer: Any) -> Declaration:
    norms = ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm", "attn_ln", "w_resid")
    return dict.fromkeys(norms, (WIDTH,)) | {
        "fc1": (FFN, WIDTH), "fc2": (WIDTH, FFN), "ffn_layernorm": (FFN,),
        "c_attn": (HEADS._replace(blocks=layer.self_attn.num_heads, place="self_attn"),),
    }  # fmt: skip


def _part_axes(part: Any) -> Declaration:
    read, written = (
        WIDTH if getattr(part, name, None) is None else axis
        for name, axis in (("project_in_dim", INPUT), ("project_out_dim", OUTPUT))
    )
    return {
        "embed_tokens": (ENTRIES, read), "project_in_dim": (WIDTH, read), "embed_positions": (POSITIONS, WIDTH),
        "layernorm_embedding": (WIDTH,), "layer_norm": (WIDTH,), "project_out_dim": (written, WIDTH),
        "output_projection": (ENTRIES, written),
    }  # fmt: skip


STOCK: dict[type, Callable[[Any], Declaration]] = {
    MultiheadAttention: attention_axes,
    TransformerEncoderLayerBase: _layer_axes,
    TransformerDecoderLayerBase: _layer_axes,
    TransformerEncoderBase: _part_axes,
    TransformerDecoderBase: _part_axes,
}


def declared_axes(module: Any) -> Declaration:
    """The declaration of a module, empty if it has none."""
    if hasattr(module, "axes"):
        return module.axes()
    return next((axes(module) for kind, axes in STOCK.items() if isinstance(module, kind)), {})


def parameter_axes(model: nn.Module) -> dict[str, Axes]:
    """The axes of all parameters by their names, of a structured layer those of its dense ``weight`` too.

    Declarations of outer modules come before those of inner ones.
    """
    found: dict[str, Axes] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        for child, axes in declared_axes(module).items():
            resolved = tuple(_resolved(axes, name, found))
            key = f"{name}.{child}" if name else child
            if len(resolved) == len(axes) and key not in found:
                found |= {key: resolved, f"{key}.weight": resolved, f"{key}.bias": resolved[:1]}
    return found


def _resolved(axes: Axes, name: str, found: Mapping[str, Axes]) -> Iterator[Axis]:
    """The axes declared by the module ``name`` as those of the model."""
    part = next((word for word in name.split(".") if word in PARTS), "")
    for axis in axes:
        if axis in (DENSE_ROWS, DENSE_COLUMNS):
            yield from found.get(name, ())[axis == DENSE_COLUMNS :][:1]
        elif axis.kind == ENTRIES.kind:
            yield axis
        else:
            place = ".".join(filter(None, (name, axis.place))) if axis.kind in PLACED else ""
            yield axis._replace(part=axis.part or part, place=place)
