"""Tiny ONNX graphs for engine builds: they compile in well under a second without a GPU."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from toy_bundle import (
    CHANNELS,
    FRACTIONS,
    GRAPHS,
    PADDING,
    PROJECTION,
    PROPOSALS,
    SHIFT,
    make_toy_bundle,
    toy_manifest,
)

from psarm.runtime.manifest import describe_files, write_manifest

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


def make_trt_bundle(directory: Path) -> Path:
    """The toy bundle with TensorRT graphs in fp32 and fp16: the right inputs and outputs, next to no work inside."""
    make_toy_bundle(directory)
    (directory / "tensorrt").mkdir()
    names = {
        precision: {graph: f"tensorrt/{graph}.{precision}.onnx" for graph in ("detect", "reid")}
        for precision in ("fp32", "fp16")
    }
    for precision, files in names.items():
        onnx.save(_detect(half=precision == "fp16"), directory / files["detect"])
        onnx.save(_reid(half=precision == "fp16"), directory / files["reid"])
    plain = toy_manifest(directory)
    added = describe_files(directory, [file for files in names.values() for file in files.values()])
    write_manifest(directory, dataclasses.replace(plain, tensorrt=names, files=plain.files | added))
    return directory


def _detect(half: bool) -> onnx.ModelProto:
    node = helper.make_node
    kind = HALF if half else FLOAT
    nodes = [
        node("Cast", ["images"], ["pixels"], to=kind),
        node("Conv", ["pixels", "mix"], ["features"], kernel_shape=[16, 16], strides=[16, 16]),
        node("Gather", ["image_sizes", "w_h_w_h"], ["sides"], axis=1),
        node("Cast", ["sides"], ["sides_float"], to=FLOAT),
        node("Unsqueeze", ["sides_float", "one"], ["sides_3d"]),
        node("Mul", ["sides_3d", "fractions"], ["boxes"]),
        node("ReduceMean", ["boxes", "two"], ["middle"], keepdims=0),
        node("Sigmoid", ["middle"], ["scores"]),
        node("Gather", ["image_sizes", "zero"], ["heights"], axis=1),
        node("Mul", ["heights", "zero"], ["nothing"]),
        node("Add", ["nothing", "valid"], ["counts"]),
    ]
    constants = {
        "mix": np.full((CHANNELS, 3, 16, 16), 1 / 256, np.float16 if half else np.float32),
        "w_h_w_h": np.array([1, 0, 1, 0]),
        "fractions": FRACTIONS[None],
        "one": np.array([1]),
        "two": np.array([2]),
        "zero": np.array(0),
        "valid": np.array(PROPOSALS - PADDING),
    }
    return _toy("detect", nodes, constants, half)


def _reid(half: bool) -> onnx.ModelProto:
    node = helper.make_node
    nodes = [
        node("ReduceMean", ["features", "sides"], ["means"], keepdims=0),
        node("MatMul", ["means", "projection"], ["projected"]),
        node("Cast", ["projected"], ["projected_float"], to=FLOAT),
        node("Gather", ["projected_float", "batch_indices"], ["embeddings"], axis=0),
        node("Add", ["boxes", "shift"], ["refined_boxes"]),
    ]
    constants = {
        "sides": np.array([2, 3]),
        "projection": PROJECTION[:CHANNELS].astype(np.float16 if half else np.float32),
        "shift": SHIFT,
    }
    return _toy("reid", nodes, constants, half)


def _toy(name: str, nodes: list, constants: dict, half: bool) -> onnx.ModelProto:
    """A graph of the contract; the features, which stay on the device, may be half."""
    inputs, outputs = (
        [
            helper.make_tensor_value_info(
                key, HALF if half and key == "features" else _type(spec.dtype), list(spec.shape)
            )
            for key, spec in specs.items()
        ]
        for specs in (GRAPHS[name].inputs, GRAPHS[name].outputs)
    )
    initializers = [numpy_helper.from_array(value, key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def _type(dtype: str) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
