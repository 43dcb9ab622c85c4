"""A graph that is one ``Loop`` over the nodes of a builder, written with short names: it is a third of the bytes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from fairseq_compress.export.onnx_graph import GraphBuilder, Tensors, described, write_graph

MOST = "most"  # input: the greatest number of steps
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def save_loop(
    graph: GraphBuilder, path: Path, inputs: Tensors, carried: dict[str, str], results: Tensors, go_on: str
) -> None:
    """Write the nodes of a builder as the body of a loop of at most ``most`` steps.

    Args:
        inputs: what the nodes read, with the values of the first step; those that no node reads are left out.
        carried: input -> the value that it has in the next step. After the last step it is an output.
        results: values of each step; outputs, with the steps along a new first axis.
        go_on: a value (1,) or (), bool: whether another step follows.
    """
    read = {name for node in graph.nodes for name in node.input}
    inputs = {name: kind for name, kind in inputs.items() if name in read}
    of_step = {name: inputs[name] for name in carried}
    last = {new: inputs[name] for name, new in carried.items()}
    short = _short_names(set(inputs) - set(carried))

    def without_shapes(table: Tensors) -> list[onnx.ValueInfoProto]:
        return described({short(name): (dtype, None) for name, (dtype, _) in table.items()})

    number = described({short("number of the step"): (np.int64, []), short("goes on"): (np.bool_, [])})
    body = helper.make_graph(
        [_renamed(node, short) for node in graph.nodes], "b",
        number + without_shapes(of_step), without_shapes({go_on: (np.bool_, None), **last, **results}),
    )  # fmt: skip
    loop = helper.make_node("Loop", [MOST, "", *carried], [*last, *results], body=body)
    every: Tensors = {MOST: (np.int64, []), **inputs}
    outputs: Tensors = last | {name: (dtype, ["T", *(shape or [])]) for name, (dtype, shape) in results.items()}
    tensors = [_renamed_tensor(tensor, short) for tensor in graph.tensors()]
    write_graph(path, [loop], described(every), described(outputs), tensors)


def _short_names(kept: set[str]) -> Callable[[str], str]:
    """A function from names to short ones, but for the empty one and those that are ``kept``."""
    found: dict[str, str] = {"": "", **{name: name for name in kept}}

    def short(name: str) -> str:
        if name not in found:
            number, digits = len(found), ""
            while number:
                number, digit = divmod(number, len(DIGITS))
                digits += DIGITS[digit]
            found[name] = digits
        return found[name]

    return short


def _renamed(node: onnx.NodeProto, short: Callable[[str], str]) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[:], copy.output[:] = map(short, node.input), map(short, node.output)
    return copy


def _renamed_tensor(tensor: TensorProto, short: Callable[[str], str]) -> TensorProto:
    copy = TensorProto()
    copy.CopyFrom(tensor)
    copy.name = short(tensor.name)
    return copy
