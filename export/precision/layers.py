"""Which layers of a traced graph can be quantised: convolutions and matrix products with constant weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from psarm.export.tracing import PROBES

MIN_OUTPUTS = 8
"""Layers with fewer outputs (the spatial gate's convolution) cost nothing and decide much."""


@dataclass(frozen=True)
class Layer:
    """One convolution or matrix product."""

    node: str
    name: str
    """For people: the module that it was traced from, `backbone.layer1.0.conv1`."""
    source: str
    """The activation that comes in."""
    weight: str
    output: str
    axis: int
    """The weight's dimension that counts the outputs."""

    @property
    def block(self) -> str:
        """The module that it is measured with: a residual block, one of ARM's MLPs, or the layer by itself."""
        parts = self.name.split(".")
        numbers = [position for position, part in enumerate(parts) if part.isdecimal()]
        if numbers and numbers[0] < len(parts) - 1:
            return ".".join(parts[: numbers[0] + 1])
        return self.name.partition(".mlp.")[0]


def find_layers(model: onnx.ModelProto) -> list[Layer]:
    """The layers that are worth quantising, in the order they run.

    The RPN's two predictors, whose answers are sorted and decoded, and `Gemm` (what predicts from pooled vectors, and
    the channel gate) are left out: together they are under 1 % of the work.
    """
    weights = {one.name: one for one in model.graph.initializer}
    following = {name: node for node in model.graph.node for name in node.input}
    layers = []
    for node in model.graph.node:
        if node.output[0] in PROBES:
            continue
        for weight, axis, source in _operands(node):
            if weight not in weights or weights[weight].dims[axis] < MIN_OUTPUTS:
                continue
            name = _module(weight) or _module(_bias(following.get(node.output[0]), weights)) or node.name
            layers.append(Layer(node.name, name, source, weight, node.output[0], axis))
    return layers


def _operands(node: onnx.NodeProto) -> Iterator[tuple[str, int, str]]:
    """What may be the weight, its dimension that counts outputs, and the input that is then the activation."""
    if node.op_type == "Conv":
        yield node.input[1], 0, node.input[0]
    elif node.op_type == "MatMul":
        yield node.input[1], 1, node.input[0]
        yield node.input[0], 0, node.input[1]


def _bias(node: onnx.NodeProto | None, weights: dict[str, onnx.TensorProto]) -> str:
    """The name of the constant that a node adds."""
    if node is None or node.op_type != "Add":
        return ""
    return next((name for name in node.input if name in weights), "")


def _module(parameter: str) -> str:
    """`a.b.weight` → `a.b`; nothing for the names that tracing makes up."""
    match = re.fullmatch(r"(.+)\.(weight|bias|convolution\.weight)", parameter)
    return "" if match is None else match[1].removesuffix(".convolution")
