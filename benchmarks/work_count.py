"""Multiply-adds and bytes of a bundle's graphs, counted while they run.

The shapes of what goes into and comes out of every convolution and matrix product are read off one run on ONNX
Runtime's CPU, because those behind the proposals depend on the frame. Bytes: each of these operators reads its two
operands and writes its result once; everything else is taken to be fused into them, RoIAlign included.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from psarm.benchmarks.engines import Frame
from psarm.benchmarks.workloads import take_best
from psarm.errors import PsarmError
from psarm.extras import require
from psarm.runtime.backends.checks import first_line
from psarm.runtime.bundle import Bundle
from psarm.runtime.manifest import Preprocessing
from psarm.runtime.postprocess import select_proposals
from psarm.runtime.preprocess import make_batch

if TYPE_CHECKING:
    import onnx

COUNTED = ("Conv", "Gemm", "MatMul")
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}
"""A value, by precision."""
PEOPLE = (1, 3)
"""Two counts of people tell what one more costs."""


@dataclass(frozen=True)
class Part:
    """Work of one piece."""

    macs: float = 0
    activations: float = 0
    """Values that are read and written, but for the weights."""
    weights: float = 0
    """Values that are read once a call, whatever its batch."""

    def plus(self, other: Part, times: float = 1) -> Part:
        """This and `times` the other; weights are read once."""
        weights = self.weights + other.weights
        return Part(self.macs + times * other.macs, self.activations + times * other.activations, weights)


@dataclass(frozen=True)
class Work:
    """Of one frame, and of every person in it."""

    frame: Part
    person: Part

    def macs(self, people: float) -> float:
        """Multiply-adds of a frame."""
        return self.frame.plus(self.person, people).macs

    def bytes(self, people: float, batch: int, precision: str) -> float:
        """Bytes a frame, of a batch of such frames."""
        both = self.frame.plus(self.person, people)
        weights = both.weights if people else self.frame.weights
        return BYTES[precision] * (both.activations + weights / batch)


class WorkCounter:
    """Counts on the first precision's graphs of a bundle, fp32 where it has them."""

    def __init__(self, bundle: Bundle) -> None:
        """Load them; raises `MissingExtraError` without onnx."""
        require("onnx", feature="Counting the work of a bundle", extra="export")
        self._bundle = bundle
        precision = bundle.resolve_precision("auto")
        names = list(bundle.manifest.graphs)
        self._graphs = {name: _CountedGraph(str(bundle.graph_path(precision, name))) for name in names}

    def count(self, frame: Frame, rule: Preprocessing | None = None) -> Work:
        """The work of a `frame` [H,W,3] BGR, resized as the bundle does it or as `rule` says."""
        batch = make_batch([frame], rule or self._bundle.manifest.preprocessing)
        outputs, part = self._graphs["detect"].run({"images": batch.images, "image_sizes": batch.image_sizes})
        count = int(outputs["counts"][0])
        few, many = PEOPLE
        boxes, scores = outputs["boxes"][0, :count], outputs["scores"][0, :count]
        regions = outputs.get("regions", outputs["boxes"])[0, select_proposals(boxes, scores, take_best(many))]
        if len(regions) < many:
            raise PsarmError(
                f"The detection stage proposes {len(regions)} people in the frame to be counted on, not {many}."
            )
        person, constant = Part(), Part()
        for name in self._graphs.keys() - {"detect"}:
            one, more = (self._heads(name, outputs["features"], regions[:people]) for people in PEOPLE)
            slope = Part(
                *((b - a) / (many - few) for a, b in ((one.macs, more.macs), (one.activations, more.activations)))
            )
            person = person.plus(Part(slope.macs, slope.activations, one.weights))
            constant = constant.plus(Part(one.macs - few * slope.macs, one.activations - few * slope.activations))
        return Work(part.plus(constant), person)

    def _heads(self, name: str, features: Any, boxes: Any) -> Part:
        feeds = {"features": features, "boxes": boxes, "batch_indices": np.zeros(len(boxes), np.int64)}
        return self._graphs[name].run(feeds)[1]


class _CountedGraph:
    """A graph that also gives the shapes its counted operators saw."""

    def __init__(self, path: str) -> None:
        import onnx
        import onnxruntime

        model = onnx.load(path)
        self._names = [output.name for output in model.graph.output]
        moving = _moving(model.graph)
        self._nodes = [node for node in model.graph.node if node.op_type in COUNTED]
        self._weights = [[name not in moving for name in node.input[:2]] for node in self._nodes]
        shapes = dict.fromkeys(name for node in self._nodes for name in (*node.input[:2], node.output[0]))
        self._shapes = {name: f"{name}/shape" for name in shapes}
        for name, shape in self._shapes.items():
            model.graph.node.append(onnx.helper.make_node("Shape", [name], [shape]))
            model.graph.output.append(onnx.helper.make_tensor_value_info(shape, onnx.TensorProto.INT64, None))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def run(self, feeds: dict[str, Any]) -> tuple[dict[str, Any], Part]:
        """The graph's outputs, and the work; raises `PsarmError` where it does not run, for want of memory say."""
        try:
            values = self._session.run([*self._names, *self._shapes.values()], feeds)
        except Exception as error:  # ONNX Runtime's own
            raise PsarmError(f"ONNX Runtime, which counts the work, failed: {first_line(error)}.") from error
        outputs = dict(zip(self._names, values, strict=False))
        shapes = dict(zip(self._shapes, values[len(self._names) :], strict=True))
        part = Part()
        for node, are_weights in zip(self._nodes, self._weights, strict=True):
            part = part.plus(_work_of(node, [shapes[name].tolist() for name in node.input[:2]], are_weights, shapes))
        return outputs, part


def _work_of(node: onnx.NodeProto, operands: list[list[int]], are_weights: Sequence[bool], shapes: Any) -> Part:
    first, second = operands
    result = math.prod(shapes[node.output[0]].tolist())
    if node.op_type == "Conv":
        depth = math.prod(second[1:])
    elif node.op_type == "Gemm":
        transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        depth = first[0] if transposed else first[1]
    else:
        depth = first[-1]
    sizes = [math.prod(operand) for operand in operands]
    weights = sum(size for size, constant in zip(sizes, are_weights, strict=True) if constant)
    return Part(result * depth, result + sum(sizes) - weights, weights)


def _moving(graph: onnx.GraphProto) -> set[str]:
    """Names of what depends on the graph's inputs; the rest are weights."""
    moving = {value.name for value in graph.input} - {value.name for value in graph.initializer}
    for node in graph.node:  # in an order in which they can run
        if moving.intersection(node.input):
            moving.update(node.output)
    return moving
