"""Building ONNX graphs whose weights are stored once, in one file next to them."""

import hashlib
from collections.abc import Hashable
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fairseq_compress.export.onnx.storage import Sparse, expand, sparse_form

OPSET = 18
MICROSOFT = "com.microsoft"  # operators of ONNX Runtime itself
IR_VERSION = 10
ALIGNMENT = 64  # bytes, a cache line
Tensors = dict[str, tuple[Any, list[Any] | None]]
"""Name -> dtype and shape, of numbers and names."""


class WeightFile:
    """The file of external data that the graphs of a model share. Equal arrays are stored once, under one name."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._file: IO[bytes] = path.open("wb")
        self._written: dict[Hashable, TensorProto] = {}
        self._names: set[str] = set()
        self.sparse: dict[str, Sparse] = {}
        """The arrays that are stored in sparse form, by name."""

    def add(self, name: str, array: NDArray[Any]) -> TensorProto:
        """A tensor that refers to the array in the file, of this name or that of an equal array."""
        data = np.ascontiguousarray(array).tobytes()
        key = (array.dtype.str, array.shape, hashlib.sha256(data).digest())
        if key not in self._written:
            self._written[key] = self._write(self._unused(name), array, data)
        return self._written[key]

    def _write(self, name: str, array: NDArray[Any], data: bytes) -> TensorProto:
        self._file.write(b"\0" * (-self._file.tell() % ALIGNMENT))
        tensor = TensorProto(
            name=name, dims=array.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
            data_location=TensorProto.EXTERNAL,
        )  # fmt: skip
        for key, value in (("location", self.name), ("offset", self._file.tell()), ("length", len(data))):
            tensor.external_data.add(key=key, value=str(value))
        self._file.write(data)
        return tensor

    def _unused(self, name: str) -> str:
        """The name, with a number where another array has it."""
        number, unused = 1, name
        while unused in self._names:
            number += 1
            unused = f"{name}:{number}"
        self._names.add(unused)
        return unused

    def close(self) -> None:
        self._file.close()


class GraphBuilder:
    """The nodes of a graph and their weights."""

    def __init__(self, weights: WeightFile) -> None:
        self._weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self._tensors: dict[str, TensorProto] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._shapes: dict[tuple[str | int, ...], str] = {}
        self._expanded: dict[tuple[str, ...], str] = {}
        self._made: dict[tuple[str, ...], str] = {}
        self._more: Tensors = {}

    def watch(self, name: str, value: str, shape: list[Any]) -> None:
        """Make a float32 tensor an output of the graph, in addition to those of :meth:`save`."""
        self.node("Identity", value, outputs=[name])
        self._more[name] = (np.float32, shape)

    def weight(self, name: str, array: NDArray[Any]) -> str:
        """A tensor in the weight file, once for all graphs; in sparse form where that is smaller."""
        form = sparse_form(array)
        if form is None:
            return self.dense(name, array)
        self._weights.sparse[name] = form
        parts = {part: self.dense(f"{name}.{part}", values) for part, values in form.parts().items()}
        key = (str(form.shape), *parts.values())
        if key not in self._expanded:
            self._expanded[key] = expand(self, form, parts)
        return self._expanded[key]

    def dense(self, name: str, array: NDArray[Any]) -> str:
        """A tensor in the weight file, as it is."""
        tensor = self._weights.add(name, array)
        self._tensors[tensor.name] = tensor
        return tensor.name

    def constant(self, array: NDArray[Any]) -> str:
        """A small tensor inside the graph."""
        data = np.ascontiguousarray(array).reshape(array.shape)
        key = (data.dtype.str, data.shape, data.tobytes())
        if key not in self._constants:
            name = self._constants[key] = f"c{len(self._constants)}"
            self._tensors[name] = numpy_helper.from_array(data, name)
        return self._constants[key]

    def integers(self, *values: int) -> str:
        """A one-dimensional constant, for shapes and axes."""
        return self.constant(np.array(values, np.int64))

    def numbers(self, count: int) -> str:
        """0 to ``count`` - 1, int64, made when the graph is loaded."""
        return self.node("Range", *(self.constant(np.asarray(value, np.int64)) for value in (0, count, 1)))

    def node(
        self, operator: str, *inputs: str, outputs: int | list[str] = 1, domain: str = "", **attributes: Any
    ) -> Any:
        """Append an operator with ``outputs`` (number or names); return its output, or the list of several."""
        number = len(self.nodes)
        names = [f"n{number}_{place}" for place in range(outputs)] if isinstance(outputs, int) else outputs
        self.nodes.append(helper.make_node(operator, list(inputs), names, domain=domain, **attributes))
        return names[0] if len(names) == 1 else names

    def once(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """As :meth:`node`, with one output that later calls with equal arguments share."""
        key = (operator, *inputs, str(sorted(attributes.items())))
        if key not in self._made:
            self._made[key] = self.node(operator, *inputs, **attributes)
        return self._made[key]

    def reshape(self, value: str, *shape: int) -> str:
        return self.node("Reshape", value, self.integers(*shape))

    def scaled(self, value: str, scale: float) -> str:
        """A float32 tensor times a constant."""
        return value if scale == 1 else self.node("Mul", value, self.constant(np.asarray(scale, np.float32)))

    def joined(self, parts: list[str]) -> str:
        """Tensors one below another; of none the empty name."""
        return self.node("Concat", *parts, axis=0) if len(parts) > 1 else "".join(parts)

    def shape(self, of: str, *more: int) -> str:
        """The sizes of a tensor followed by ``more``, cached."""
        key: tuple[str | int, ...] = (of, *more)
        if key not in self._shapes:
            inputs = (self.shape(of), self.integers(*more)) if more else (of,)
            self._shapes[key] = self.node("Concat", *inputs, axis=0) if more else self.node("Shape", *inputs)
        return self._shapes[key]

    def save(self, path: Path, inputs: Tensors, outputs: Tensors) -> None:
        """Write the graph; ``inputs`` and ``outputs`` map names to dtype and shape (numbers or names)."""
        write_graph(path, self.nodes, described(inputs), described(outputs | self._more), self.tensors())

    def tensors(self) -> list[TensorProto]:
        """The weights and constants of the nodes."""
        return list(self._tensors.values())


def described(table: Tensors) -> list[onnx.ValueInfoProto]:
    """Inputs or outputs; a shape of None is not told."""
    return [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
        for name, (dtype, shape) in table.items()
    ]


def write_graph(
    path: Path, nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto],
    tensors: list[TensorProto],
) -> None:  # fmt: skip
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="fairseq-compress")
    path.write_bytes(model.SerializeToString())
