"""Average attention; equations: :mod:`fairseq_compress.modules.average_attention`. Its state is the sum ``(B G, C)``.

The number of its terms is that of the steps so far.
"""

import numpy as np
from onnx import TensorProto

from fairseq_compress.export.onnx.registry import UNITS, register
from fairseq_compress.export.onnx.step import STEP, Step


@register(UNITS, "average")
def average(step: Step, number: int, x: str) -> str:
    graph, own = step.graph, f"{step.prefix(number)}.self_attn"
    total = graph.node("Add", step.state(f"{number}_sum", step.width), x)
    step.renew(f"{number}_sum", total)
    count = graph.node("Add", graph.node("Cast", STEP, to=TensorProto.FLOAT), graph.constant(np.ones(1, np.float32)))
    mean = graph.node("Div", total, count)
    if step.layers[number].self_attention.ffn:
        mean = step.feed_forward(mean, own)
    gates = graph.node("Sigmoid", step.linear(graph.node("Concat", x, mean, axis=1), f"{own}.gates"))
    of_input, of_mean = graph.node("Split", gates, outputs=2, axis=1, num_outputs=2)
    return graph.node("Add", graph.node("Mul", of_input, x), graph.node("Mul", of_mean, mean))
