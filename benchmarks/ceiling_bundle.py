"""A bundle whose detect graph is a chain of matrix products and nothing else, for backends that take ONNX graphs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import psarm
from psarm.runtime.manifest import (
    EmbeddingInfo,
    GraphSpec,
    Manifest,
    ModelInfo,
    Preprocessing,
    TensorSpec,
    Thresholds,
    describe_files,
    write_manifest,
)

if TYPE_CHECKING:
    import onnx

SIDE = 512
"""Of the images, whose values are the first matrix."""
COLUMNS = 1024
ROWS = 3 * SIDE * SIDE // COLUMNS
OPSET = 18
F32, I64 = "float32", "int64"
GRAPHS = {
    "detect": GraphSpec(
        {"images": TensorSpec(F32, (1, 3, SIDE, SIDE)), "image_sizes": TensorSpec(I64, (1, 2))},
        {
            "boxes": TensorSpec(F32, (1, 1, 4)),
            "scores": TensorSpec(F32, (1, 1)),
            "counts": TensorSpec(I64, (1,)),
            "features": TensorSpec(F32, (1, 1, 1, 1)),
        },
    ),
    "reid": GraphSpec(
        {
            "features": TensorSpec(F32, (1, 1, 1, 1)),
            "boxes": TensorSpec(F32, ("R", 4)),
            "batch_indices": TensorSpec(I64, ("R",)),
        },
        {"refined_boxes": TensorSpec(F32, ("R", 4)), "embeddings": TensorSpec(F32, ("R", 4))},
    ),
}


def make_ceiling_bundle(folder: Path, precision: str, length: int) -> Path:
    """Write one with `length` products of [ROWS,COLUMNS] with [COLUMNS,COLUMNS]; returns `folder`.

    In bf16 the graphs are the fp32 ones, as in every bundle.
    """
    import onnx

    held = "fp32" if precision == "bf16" else precision
    folder.mkdir(parents=True)
    files = {name: f"{name}.onnx" for name in GRAPHS}
    onnx.save(_detect(held, length), folder / files["detect"])
    onnx.save(_reid(), folder / files["reid"])
    manifest = Manifest(
        schema=1,
        psarm_version=psarm.__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        model=ModelInfo("ceiling", "paper", "none", 1.0, 0),
        embedding=EmbeddingInfo(4, "0" * 64),
        preprocessing=Preprocessing(SIDE, SIDE, 32, (0, 0, 0), (1, 1, 1), "RGB", (0, 1), "bilinear"),
        thresholds=Thresholds(0.5, 0.4, 0.5, 1, 0.01),
        graphs=GRAPHS,
        opset=OPSET,
        precisions={held: files},
        files=describe_files(folder, files.values()),
        dataset=None,
        licence="none",
    )
    write_manifest(folder, manifest)
    return folder


def _detect(precision: str, length: int) -> onnx.ModelProto:
    from onnx import TensorProto
    from onnx.helper import make_node

    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((COLUMNS, COLUMNS)).astype(np.float32) / COLUMNS**0.5
    constants: dict[str, Any] = {"shape": np.array([ROWS, COLUMNS]), "matrix": matrix}
    nodes = [make_node("Reshape", ["images", "shape"], ["x0"])]
    if precision == "fp16":
        constants["matrix"] = matrix.astype(np.float16)
        nodes.append(make_node("Cast", ["x0"], ["x_half"], to=TensorProto.FLOAT16))
        nodes[0].output[0], nodes[1].input[0], nodes[1].output[0] = "x_float", "x_float", "x0"
    if precision == "int8":
        scales = {
            "scale": np.float32(1 / 64),
            "zero": np.uint8(0),
            "w_scale": np.float32(1 / 512),
            "w_zero": np.int8(0),
        }
        constants |= scales | {"matrix": np.clip(np.round(512 * matrix), -127, 127).astype(np.int8)}
        nodes.append(make_node("DequantizeLinear", ["matrix", "w_scale", "w_zero"], ["weights"]))
    for step in range(length):
        given, weights = f"x{step}", "matrix"
        if precision == "int8":
            nodes.append(make_node("QuantizeLinear", [given, "scale", "zero"], [f"q{step}"]))
            nodes.append(make_node("DequantizeLinear", [f"q{step}", "scale", "zero"], [f"d{step}"]))
            given, weights = f"d{step}", "weights"
        nodes.append(make_node("MatMul", [given, weights], [f"y{step}"]))
        nodes.append(make_node("Relu", [f"y{step}"], [f"x{step + 1}"]))
    nodes += [
        make_node("Cast", [f"x{length}"], ["last"], to=TensorProto.FLOAT),
        make_node("ReduceMax", ["last"], ["one"], keepdims=0),
        *(make_node("Expand", ["one", f"{name}_shape"], [name]) for name in ("boxes", "scores", "features")),
        make_node("Slice", ["image_sizes", "start", "end"], ["size"]),
        make_node("ReduceMin", ["size"], ["counts_2d"], keepdims=1),
        make_node("Reshape", ["counts_2d", "end"], ["counts"]),
    ]
    sizes = {
        f"{name}_shape": np.array(GRAPHS["detect"].outputs[name].shape) for name in ("boxes", "scores", "features")
    }
    return _model("detect", nodes, {**constants, **sizes, "start": np.array([0]), "end": np.array([1])})


def _reid() -> onnx.ModelProto:
    from onnx.helper import make_node

    nodes = [make_node("Identity", ["boxes"], ["refined_boxes"]), make_node("Identity", ["boxes"], ["embeddings"])]
    return _model("reid", nodes, {})


def _model(name: str, nodes: list[onnx.NodeProto], constants: dict[str, Any]) -> onnx.ModelProto:
    from onnx import helper, numpy_helper

    inputs, outputs = (
        [
            helper.make_tensor_value_info(key, helper.np_dtype_to_tensor_dtype(np.dtype(one.dtype)), list(one.shape))
            for key, one in tensors.items()
        ]
        for tensors in (GRAPHS[name].inputs, GRAPHS[name].outputs)
    )
    initializers = [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
