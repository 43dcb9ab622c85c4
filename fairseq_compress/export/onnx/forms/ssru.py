"""The simpler simple recurrent unit; equations: :mod:`fairseq_compress.modules.ssru`. Its state is c ``(B G, C)``."""

from fairseq_compress.export.onnx.registry import UNITS, register
from fairseq_compress.export.onnx.step import Step


@register(UNITS, "ssru")
def ssru(step: Step, number: int, x: str) -> str:
    graph, own = step.graph, f"{step.prefix(number)}.self_attn"
    forget, value = step.separate(x, f"{own}.forget", f"{own}.project")
    former = step.state(f"{number}_cell", step.width)
    # v + f (c' - v), as torch.lerp computes it
    kept = graph.node("Mul", graph.node("Sigmoid", forget), graph.node("Sub", former, value))
    state = graph.node("Add", value, kept)
    step.renew(f"{number}_cell", state)
    return graph.node("Relu", state)
