"""MobileBERT's layer; equations: :mod:`fairseq_compress.modules.bottleneck_layer`."""

from fairseq_compress.export.onnx.part import Part
from fairseq_compress.export.onnx.registry import LAYERS, register


@register(LAYERS, "bottleneck")
def bottleneck(part: Part, number: int, x: str) -> str:
    layer, form = part.prefix(number), part.layers[number]
    assert form.bottleneck is not None
    kind, add = form.bottleneck.norm, lambda one, two: part.graph.node("Add", one, two)

    def enter(name: str) -> str:
        return part.norm(part.linear(x, f"{layer}.{name}.linear"), f"{layer}.{name}.norm", kind)

    attended = part.self_attention(number, enter("bottleneck_shared"), values=x)
    hidden = part.norm(add(enter("bottleneck_in"), attended), f"{layer}.self_attn_norm", kind)
    if form.cross_attention is not None:
        attended = part.cross_attention(number, hidden)
        hidden = part.norm(add(hidden, attended), f"{layer}.encoder_attn_norm", kind)
    for place in range(form.bottleneck.ffn_stack):
        network = f"{layer}.ffns.{place}"
        hidden = part.norm(add(hidden, part.feed_forward(hidden, network)), f"{network}.norm", kind)
    left = part.linear(hidden, f"{layer}.bottleneck_out.linear")
    return part.norm(add(x, left), f"{layer}.bottleneck_out.norm", kind)
