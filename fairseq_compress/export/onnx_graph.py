"""Building ONNX graphs whose weights are stored once, in one file next to them."""

from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 18
MICROSOFT = "com.microsoft"  # operators of ONNX Runtime itself
IR_VERSION = 10
ALIGNMENT = 64  # bytes, a cache line


class WeightFile:
    """The file of external data that the graphs of a model share."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._file: IO[bytes] = path.open("wb")
        self._written: dict[str, TensorProto] = {}

    def add(self, name: str, array: NDArray[Any]) -> TensorProto:
        """A tensor that refers to the array in the file; of one name only the first array is written."""
        if name not in self._written:
            self._file.write(b"\0" * (-self._file.tell() % ALIGNMENT))
            data = np.ascontiguousarray(array).tobytes()
            tensor = TensorProto(
                name=name, dims=array.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
                data_location=TensorProto.EXTERNAL,
            )  # fmt: skip
            for key, value in (("location", self.name), ("offset", self._file.tell()), ("length", len(data))):
                tensor.external_data.add(key=key, value=str(value))
            self._file.write(data)
            self._written[name] = tensor
        tensor = self._written[name]
        assert list(tensor.dims) == list(array.shape), f"two weights of the name {name}"
        return tensor

    def close(self) -> None:
        self._file.close()


class GraphBuilder:
    """The nodes of a graph and their weights."""

    def __init__(self, weights: WeightFile) -> None:
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._tensors: dict[str, TensorProto] = {}
        self._shapes: dict[tuple[str | int, ...], str] = {}
        self._more: dict[str, tuple[Any, list[Any]]] = {}

    def watch(self, name: str, value: str, shape: list[Any]) -> None:
        """Make a float32 tensor an output of the graph, in addition to those of :meth:`save`."""
        self.node("Identity", value, outputs=[name])
        self._more[name] = (np.float32, shape)

    def weight(self, name: str, array: NDArray[Any]) -> str:
        """A tensor in the weight file, once for all graphs."""
        self._tensors[name] = self._weights.add(name, array)
        return name

    def constant(self, array: NDArray[Any]) -> str:
        """A small tensor inside the graph."""
        data = np.ascontiguousarray(array).reshape(array.shape)
        name = f"c_{data.dtype}_{'x'.join(map(str, data.shape))}_{data.tobytes().hex()}"
        self._tensors.setdefault(name, numpy_helper.from_array(data, name))
        return name

    def integers(self, *values: int) -> str:
        """A one-dimensional constant, for shapes and axes."""
        return self.constant(np.array(values, np.int64))

    def node(
        self, operator: str, *inputs: str, outputs: int | list[str] = 1, domain: str = "", **attributes: Any
    ) -> Any:
        """Append an operator with ``outputs`` (number or names); return its output, or the list of several."""
        number = len(self._nodes)
        names = [f"n{number}_{place}" for place in range(outputs)] if isinstance(outputs, int) else outputs
        self._nodes.append(helper.make_node(operator, list(inputs), names, domain=domain, **attributes))
        return names[0] if len(names) == 1 else names

    def reshape(self, value: str, *shape: int) -> str:
        return self.node("Reshape", value, self.integers(*shape))

    def scaled(self, value: str, scale: float) -> str:
        """A float32 tensor times a constant."""
        return value if scale == 1 else self.node("Mul", value, self.constant(np.asarray(scale, np.float32)))

    def shape(self, of: str, *more: int) -> str:
        """The sizes of a tensor followed by ``more``, cached."""
        key: tuple[str | int, ...] = (of, *more)
        if key not in self._shapes:
            inputs = (self.shape(of), self.integers(*more)) if more else (of,)
            self._shapes[key] = self.node("Concat", *inputs, axis=0) if more else self.node("Shape", *inputs)
        return self._shapes[key]

    def save(
        self, path: Path, inputs: dict[str, tuple[Any, list[Any]]], outputs: dict[str, tuple[Any, list[Any]]]
    ) -> None:
        """Write the graph; ``inputs`` and ``outputs`` map names to dtype and shape (numbers or names)."""
        described = [
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
                for name, (dtype, shape) in table.items()
            ]
            for table in (inputs, outputs | self._more)
        ]
        tensors = list(self._tensors.values())
        graph = helper.make_graph(self._nodes, path.stem, described[0], described[1], tensors)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="fairseq-compress")
        path.write_bytes(model.SerializeToString())
