"""A bundle of tiny real ONNX graphs that obeys the contract: red shapes at fixed places are people.

Frames are split into 4x2 cells; a cell filled with a reddish colour is a person, and its exact colour the identity.
Every cell has two overlapping proposals, and two more proposals of high score lie in the padding.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from psarm.runtime.manifest import (
    DatasetInfo,
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

MIN_SIZE, MAX_SIZE = 96, 160
CHANNELS, DIM = 4, 8
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CELLS = [(column, row) for row in range(2) for column in range(4)]
PADDING = 2
PROPOSALS = 2 * len(CELLS) + PADDING
SHIFT = np.array([-3, 1, 2, 4], np.float32)  # what the toy re-id head does to a box, pixels

_rng = np.random.default_rng(7)
FRACTIONS = np.array(
    [[c / 4 + 0.02 + d, r / 2 + 0.05, c / 4 + 0.23 + d, r / 2 + 0.45] for c, r in CELLS for d in (0.0, 0.01)]
    + [[0.0, 0.0, 1.0, 1.0], [0.1, 0.1, 0.9, 0.9]],
    np.float32,
)  # [P,4] of the valid width and height
MIX = np.array([[1, -0.5, -0.5], [0.3, 1, 0], [0, 0.2, 1], [0.5, 0.5, -1]], np.float32)  # [C,3]
BIAS = np.array([-4 - 0.1 * (p % 3) for p in range(PROPOSALS)], np.float32)
PROJECTION = _rng.standard_normal((CHANNELS * 4, DIM)).astype(np.float32)

F32, I64 = "float32", "int64"
GRAPHS = {
    "detect": GraphSpec(
        {"images": TensorSpec(F32, ("N", 3, "H", "W")), "image_sizes": TensorSpec(I64, ("N", 2))},
        {
            "boxes": TensorSpec(F32, ("N", PROPOSALS, 4)),
            "scores": TensorSpec(F32, ("N", PROPOSALS)),
            "counts": TensorSpec(I64, ("N",)),
            "features": TensorSpec(F32, ("N", CHANNELS, "h", "w")),
        },
    ),
    "reid": GraphSpec(
        {
            "features": TensorSpec(F32, ("N", CHANNELS, "h", "w")),
            "boxes": TensorSpec(F32, ("R", 4)),
            "batch_indices": TensorSpec(I64, ("R",)),
        },
        {"refined_boxes": TensorSpec(F32, ("R", 4)), "embeddings": TensorSpec(F32, ("R", DIM))},
    ),
}


def make_toy_bundle(directory: Path) -> Path:
    """Write the bundle; returns its directory."""
    directory.mkdir(parents=True)
    onnx.save(_detect_graph(), directory / "detect.onnx")
    onnx.save(_reid_graph(), directory / "reid.onnx")
    write_manifest(directory, toy_manifest(directory))
    return directory


def toy_manifest(directory: Path) -> Manifest:
    """The manifest of the two graphs in `directory`."""
    return Manifest(
        schema=1,
        psarm_version="0.1.0",
        created="2026-01-01T00:00:00+00:00",
        model=ModelInfo("psarm", "paper", "toy", 1.0, 0),
        embedding=EmbeddingInfo(DIM, "0" * 64),
        preprocessing=Preprocessing(MIN_SIZE, MAX_SIZE, 32, MEAN, STD, "RGB", (0, 1), "bilinear"),
        thresholds=Thresholds(0.5, 0.4, 0.5, 300, 0.01),
        graphs=GRAPHS,
        opset=18,
        precisions={"fp32": {"detect": "detect.onnx", "reid": "reid.onnx"}},
        files=describe_files(directory, ["detect.onnx", "reid.onnx"]),
        dataset=DatasetInfo("toy", 0, 0),
        licence="none",
    )


def draw_scene(people: dict[int, tuple[int, int, int]], height: int = 96, width: int = 160) -> np.ndarray:
    """A grey BGR frame with each cell of `people` filled with its RGB colour."""
    frame = np.full((height, width, 3), 115, np.uint8)
    for cell, colour in people.items():
        column, row = CELLS[cell]
        top, left = height * row // 2, width * column // 4
        frame[top : top + height // 2, left : left + width // 4] = colour[::-1]
    return frame


def cell_box(cell: int, height: int = 96, width: int = 160) -> list[float]:
    """A box well inside a cell, xyxy pixels."""
    return (FRACTIONS[2 * cell] * np.array([width, height, width, height])).tolist()


def _detect_graph() -> onnx.ModelProto:
    node = helper.make_node
    nodes = [
        node("AveragePool", ["images"], ["pooled"], kernel_shape=[16, 16], strides=[16, 16]),
        node("Conv", ["pooled", "mix"], ["features"]),
        node("Gather", ["image_sizes", "w_h_w_h"], ["sides_int"], axis=1),
        node("Cast", ["sides_int"], ["sides"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["sides", "one"], ["sides_3d"]),
        node("Mul", ["sides_3d", "fractions"], ["boxes"]),
        node("Reshape", ["boxes", "flat_boxes"], ["rois"]),
        node("Shape", ["images"], ["n"], start=0, end=1),
        node("Squeeze", ["n"], ["n_scalar"]),
        node("Range", ["zero_scalar", "n_scalar", "one_scalar"], ["range"]),
        node("Unsqueeze", ["range", "one"], ["range_2d"]),
        node("Concat", ["n", "p"], ["n_p"], axis=0),
        node("Expand", ["range_2d", "n_p"], ["indices_2d"]),
        node("Reshape", ["indices_2d", "flat"], ["indices"]),
        _roi_align("features", "rois", "indices", "crops", 1),
        node("Gather", ["crops", "zero_scalar"], ["redness"], axis=1),
        node("Reshape", ["redness", "n_p"], ["redness_2d"]),
        node("Mul", ["redness_2d", "gain"], ["scaled"]),
        node("Add", ["scaled", "bias"], ["logits"]),
        node("Sigmoid", ["logits"], ["all_scores"]),
        node("Max", ["all_scores", "padding_scores"], ["scores"]),
        node("Expand", ["valid", "n"], ["counts"]),
    ]
    padding_scores = np.zeros(PROPOSALS, np.float32)
    padding_scores[-PADDING:] = 0.99  # must be ignored: beyond `counts`
    constants = {
        "mix": MIX.reshape(CHANNELS, 3, 1, 1),
        "w_h_w_h": np.array([1, 0, 1, 0]),
        "one": np.array([1]),
        "fractions": FRACTIONS[None],
        "flat_boxes": np.array([-1, 4]),
        "flat": np.array([-1]),
        "p": np.array([PROPOSALS]),
        "zero_scalar": np.array(0),
        "one_scalar": np.array(1),
        "gain": np.array(3, np.float32),
        "bias": BIAS,
        "padding_scores": padding_scores,
        "valid": np.array([PROPOSALS - PADDING]),
    }
    return _model("detect", nodes, constants)


def _reid_graph() -> onnx.ModelProto:
    nodes = [
        _roi_align("features", "boxes", "batch_indices", "crops", 2),
        helper.make_node("Flatten", ["crops"], ["flat"]),
        helper.make_node("MatMul", ["flat", "projection"], ["projected"]),
        helper.make_node("LpNormalization", ["projected"], ["embeddings"], axis=1, p=2),
        helper.make_node("Add", ["boxes", "shift"], ["refined_boxes"]),
    ]
    return _model("reid", nodes, {"projection": PROJECTION, "shift": SHIFT})


def _roi_align(features: str, boxes: str, indices: str, output: str, size: int) -> onnx.NodeProto:
    return helper.make_node(
        "RoiAlign",
        [features, boxes, indices],
        [output],
        output_height=size,
        output_width=size,
        sampling_ratio=2,
        spatial_scale=1 / 16,
        coordinate_transformation_mode="output_half_pixel",
    )


def _model(name: str, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    spec = GRAPHS[name]
    inputs, outputs = (
        [helper.make_tensor_value_info(n, _type(t.dtype), list(t.shape)) for n, t in tensors.items()]
        for tensors in (spec.inputs, spec.outputs)
    )
    initializers = [numpy_helper.from_array(value, key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def _type(dtype: str) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
