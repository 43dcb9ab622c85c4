"""fairseq's layer: self-attention or a recurrent unit, attention to the source in a decoder, a feed-forward network."""

from fairseq_compress.export.onnx.part import Part
from fairseq_compress.export.onnx.registry import LAYERS, register


@register(LAYERS, "stock")
def stock(part: Part, number: int, x: str) -> str:
    layer = part.prefix(number)
    x = part.residual(x, f"{layer}.self_attn_layer_norm", lambda x: part.self_attention(number, x))
    if part.layers[number].cross_attention is not None:
        x = part.residual(x, f"{layer}.encoder_attn_layer_norm", lambda x: part.cross_attention(number, x))
    return part.residual(x, f"{layer}.final_layer_norm", lambda x: part.feed_forward(x, layer))
