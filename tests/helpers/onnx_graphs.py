"""Small ONNX graphs in memory, and the products of ``MatMulNBits`` computed at the level of integers."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

KINDS = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64}


def session(model, threads=1):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def one_operator(operator, inputs, constants, output=np.float32, threads=1, **attributes):
    """A function of the inputs that are no constants, float32, of one operator of ONNX Runtime."""
    node = helper.make_node(operator, inputs, ["y"], domain="com.microsoft", **attributes)
    free = [name for name in inputs if name and name not in constants]
    described = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in free]
    outputs = [helper.make_tensor_value_info("y", KINDS[np.dtype(output)], None)]
    graph = helper.make_graph(
        [node], "g", described, outputs, [numpy_helper.from_array(value, name) for name, value in constants.items()]
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    made = session(model.SerializeToString(), threads)
    return lambda *values: made.run(None, dict(zip(free, values, strict=True)))[0]


def block_product(x, values, scales, zeros):
    """x (N, K) times the dequantized matrix transposed, with activations in 8 bits a block, integers summed exactly.

    Args:
        values: (R, blocks, k), unsigned integers.
        scales, zeros: (R, blocks).
    """
    (rows, columns), (_, blocks, block) = x.shape, values.shape
    padded = np.pad(x, ((0, 0), (0, blocks * block - columns))).reshape(rows, blocks, block)
    greatest = np.abs(padded).max(axis=2)
    inverse = np.where(greatest > 0, np.float32(127) / np.where(greatest > 0, greatest, 1), 0).astype(np.float32)
    steps = (greatest / np.float32(127)).astype(np.float64)
    rounded = np.rint(padded * inverse[..., None]).astype(np.int64)
    centred = values.astype(np.int64) - zeros.astype(np.int64)[..., None]
    sums = np.einsum("nbk,rbk->nrb", rounded, centred)
    return (sums * steps[:, None] * scales.astype(np.float64)[None]).sum(axis=2)


def nodes_after_loading(path, folder):
    """Operators that are left when the constant ones are computed."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath, options.log_severity_level = str(folder / "optimized.onnx"), 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(folder / "optimized.onnx", load_external_data=False).graph
    return [node.op_type for node in graph.node]


def operands(path, operator, places):
    """For each node of an operator of a saved graph the values of its inputs at ``places``, which are constant.

    They are computed as when the model is loaded, of the external data next to the graph.
    """
    model = onnx.load(path, load_external_data=False)
    wanted = [[node.input[place] for place in places] for node in model.graph.node if node.op_type == operator]
    names = list(dict.fromkeys(name for row in wanted for name in row))
    makers = {output: node for node in model.graph.node for output in node.output}
    needed, ahead = set(), list(names)
    while ahead:
        node = makers.get(ahead.pop())
        if node is not None and id(node) not in needed:
            needed.add(id(node))
            ahead += node.input
    nodes = [node for node in model.graph.node if id(node) in needed]
    nodes += [helper.make_node("Identity", [name], [f"value {name}"]) for name in names]  # initializers are no outputs
    read = {name for node in nodes for name in node.input}
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in read]
    outputs = [onnx.ValueInfoProto(name=f"value {name}") for name in names]
    graph = helper.make_graph(nodes, "constants", [], outputs, tensors)
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    cut = path.with_name(f"constants of {path.name}")
    cut.write_bytes(part.SerializeToString())
    values = dict(zip(names, session(str(cut)).run(None, {}), strict=True))
    cut.unlink()
    return [[values[name] for name in row] for row in wanted]
