"""Tiny ONNX graphs for engine builds: they compile in well under a second without a GPU."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


def write_conv(path: Path, half: bool = False) -> Path:
    """y = relu(conv(x)) with float32 x, y [N,*,H,W]; inside in half where asked."""
    kind = np.float16 if half else np.float32
    node = helper.make_node
    cast_in = [node("Cast", ["x"], ["inner"], to=HALF if half else FLOAT)]
    body = [node("Conv", ["inner", "w"], ["conv"], name="conv_one", pads=[1] * 4), node("Relu", ["conv"], ["relu"])]
    cast_out = [node("Cast", ["relu"], ["y"], to=FLOAT)]
    weights = np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(kind)
    return write(
        path, [*cast_in, *body, *cast_out], {"x": ["N", 3, "H", "W"]}, {"y": ["N", 8, "H", "W"]}, {"w": weights}
    )


def write_topk(path: Path, k: int) -> Path:
    """The k largest of x [N,8000]."""
    node = helper.make_node("TopK", ["x", "k"], ["y", "where"], name="the_best")
    model_outputs = {"y": ["N", k]}
    return write(path, [node], {"x": ["N", 8000]}, model_outputs, {"k": np.array([k])})


def write(path: Path, nodes: list, inputs: dict, outputs: dict, constants: dict) -> Path:
    """A model of float32 inputs and outputs."""
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path
