"""Explicit QuantizeLinear/DequantizeLinear pairs in a float32 graph.

A pair stands on every activation that a quantised layer takes, rounded once for all who take it, and on what
convolutions hand to a residual sum: ONNX Runtime runs a convolution in integers only between two pairs (OpenVINO would
not need these; they cost it nothing in time and about 1.5 dB). What is pooled is rounded before, so that it passes
through memory in 8 bits. Weights are int8, one scale an output. Activations that
are never negative are uint8, others int8; zero is 0 in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from psarm.export.precision.layers import Layer
from psarm.export.precision.ranges import Histogram


def rounded_activations(model: onnx.ModelProto, layers: Sequence[Layer]) -> list[str]:
    """The activations that decide on the grids when `layers` are quantised."""
    return list(dict.fromkeys(_Placement(model, layers).rounded.values()))


def insert_pairs(
    model: onnx.ModelProto, layers: Sequence[Layer], histograms: Mapping[str, Histogram]
) -> onnx.ModelProto:
    """The graph with `layers` in int8; `histograms` are of its `rounded_activations`."""
    return _Insertion(model, layers, histograms).insert()


class _Placement:
    """Where pairs stand: which activations are rounded, and which nodes take the rounded ones."""

    def __init__(self, model: onnx.ModelProto, layers: Sequence[Layer]) -> None:
        self.layers = {layer.node: layer for layer in layers}
        self.producers = {name: node for node in model.graph.node for name in node.output}
        self.takers = {layer.node for layer in layers}
        self.rounded: dict[str, str] = {}
        """Activation → the one whose values its grid is made for: what is left of it, where it is pooled."""
        for node in model.graph.node:
            if node.name in self.layers:
                self._round(self.layers[node.name].source)
            elif node.op_type == "Add" and any(self._is_convolution(name) for name in node.input):
                self._join(node)
            elif node.op_type == "ReduceMax" and self._is_joined(node.input[0]):
                self.takers.add(node.name)
                self.rounded.setdefault(node.input[0], node.output[0])

    def _round(self, name: str) -> None:
        """Round an activation; one that is pooled is rounded before, so that the pooling is on integers."""
        producer = self.producers.get(name)
        self.rounded[name] = name
        if producer is not None and producer.op_type == "MaxPool":
            self.takers.add(producer.name)
            self.rounded.setdefault(producer.input[0], name)

    def _join(self, node: onnx.NodeProto) -> None:
        """A residual sum takes its terms rounded: those from convolutions, and others that are rounded anyway."""
        self.takers.add(node.name)
        self.rounded |= {name: name for name in node.input if self._is_convolution(name)}

    def _is_joined(self, name: str) -> bool:
        """Whether it is a residual sum of convolutions after its ReLU: res5's end, which is far larger than what is
        left after the pooling."""
        producer = self.producers.get(name)
        if producer is None or producer.op_type != "Relu":
            return False
        return self.producers[producer.input[0]].name in self.takers

    def _is_convolution(self, name: str) -> bool:
        producer = self.producers.get(name)
        return producer is not None and producer.op_type == "Conv" and producer.name in self.layers


class _Insertion:
    """One graph's way to int8."""

    def __init__(self, model: onnx.ModelProto, layers: Sequence[Layer], histograms: Mapping[str, Histogram]) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.placement = _Placement(model, layers)
        self.histograms = histograms
        self.weights = {one.name: one for one in model.graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def insert(self) -> onnx.ModelProto:
        graph = self.model.graph
        for value in graph.input:
            self._round(value.name)
        for node in graph.node:
            if node.name in self.placement.takers:
                self._take_rounded(node)
            self.nodes.append(node)
            for name in node.output:
                self._round(name)
        used = {name for node in self.nodes for name in node.input}
        kept = [one for one in graph.initializer if one.name in used]
        nodes = list(self.nodes)
        del graph.node[:], graph.initializer[:]
        graph.node.extend(nodes)
        graph.initializer.extend([*kept, *self.constants.values()])
        return self.model

    def _round(self, name: str) -> None:
        if name not in self.placement.rounded:
            return
        histogram = self.histograms[self.placement.rounded[name]]
        dtype = np.int8 if histogram.negative else np.uint8
        levels = np.iinfo(dtype).max
        self._pair(name, np.asarray(histogram.limit(levels) / levels, np.float32), dtype)

    def _pair(self, name: str, scale: NDArray[np.float32], dtype: type[np.integer]) -> None:
        grid = [f"{name}.scale", f"{name}.zero"]
        self._constant(grid[0], scale)
        self._constant(grid[1], np.zeros((), dtype))
        self.nodes.append(helper.make_node("QuantizeLinear", [name, *grid], [f"{name}.q"], name=f"{name}.Q"))
        self.nodes.append(
            helper.make_node("DequantizeLinear", [f"{name}.q", *grid], [_rounded(name)], name=f"{name}.DQ")
        )

    def _take_rounded(self, node: onnx.NodeProto) -> None:
        layer = self.placement.layers.get(node.name)
        for position, name in enumerate(node.input):
            if layer is not None and name == layer.weight:
                node.input[position] = self._rounded_weight(layer)
            elif name in self.placement.rounded:
                node.input[position] = _rounded(name)

    def _rounded_weight(self, layer: Layer) -> str:
        name = _rounded(layer.weight)
        if f"{layer.weight}.q" in self.constants:
            return name
        weight = numpy_helper.to_array(self.weights[layer.weight]).astype(np.float64)
        others = tuple(axis for axis in range(weight.ndim) if axis != layer.axis)
        largest = np.abs(weight).max(axis=others, keepdims=True)
        scale = np.where(largest > 0, largest / 127, 1.0).astype(np.float32)
        grid = [f"{layer.weight}.scale", f"{layer.weight}.zero"]
        self._constant(f"{layer.weight}.q", np.rint(weight / scale).clip(-127, 127).astype(np.int8))
        self._constant(grid[0], scale.ravel())
        self._constant(grid[1], np.zeros(scale.size, np.int8))
        self.nodes.append(
            helper.make_node(
                "DequantizeLinear", [f"{layer.weight}.q", *grid], [name], name=f"{layer.weight}.DQ", axis=layer.axis
            )
        )
        return name

    def _constant(self, name: str, value: NDArray[np.generic]) -> None:
        self.constants[name] = numpy_helper.from_array(value, name)


def _rounded(name: str) -> str:
    return f"{name}.dq"
