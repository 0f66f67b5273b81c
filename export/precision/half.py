"""FP16: a traced float32 graph with half weights and activations, and float32 islands where half breaks.

Every node belongs to one side. It stays in float32 where its module is not known to be safe (box decoding, anchors,
NMS, SimAM, the embedding's norm, sampling positions: their values pass 2048, where half has no odd numbers, or
vanish below 6e-8 when they are squared) or where its operator needs range. Casts stand only where the sides
meet: within an island nothing is rounded. (`onnxruntime.transformers.float16` rounds to half between any two blocked
nodes, and with that all coordinates.)
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from psarm.errors import ExportError
from psarm.export.tracing import OWNER, TracedGraph

HALF_OWNERS = frozenset(
    f"psarm.export.{name}"
    for name in (
        "folding.MapBiasConvolution",
        "heads.ReidHeadGraph",
        "heads.TrunkGraph",
        "mixer.ChannelGateGraph",
        "mixer.MixerGraph",
        "mixer.SpatialGateGraph",
        "separable_roi_align.InterpolationProducts",
    )
)
"""Modules of the exporter whose own arithmetic is safe in half; all others of the exporter stay in float32."""
FLOAT_OWNERS = frozenset({"psarm.model.arm.SpatioChannelAttention"})
"""Modules of the model that stay in float32."""
FLOAT_OPERATORS = frozenset(
    {"Exp", "LayerNormalization", "NonMaxSuppression", "Pow", "RoiAlign", "Softmax", "Sqrt", "TopK"}
)
"""Operators that stay in float32 whatever module they belong to."""

_HALF_MAX = float(np.finfo(np.float16).max)


def half_graph(graph: TracedGraph, half_features: bool = False) -> onnx.ModelProto:
    """The graph in FP16 under the same names, with float32 inputs and outputs.

    `half_features` makes `features`, where it is an input or output, float16. Raises `ExportError` where a weight is
    beyond half's range.
    """
    kept_half = {"features"} if half_features else set()
    return _Conversion(graph, simulated=False).convert(kept_half)


def rounded_graph(graph: TracedGraph) -> onnx.ModelProto:
    """What the FP16 graph computes on a device with half arithmetic, as a float32 graph.

    CPU runtimes run FP16 graphs in float32 and so hide what half costs. This one rounds every value of the half side to
    float16, after each operator: fused kernels keep more, so it errs on the rough side.
    """
    return _Conversion(graph, simulated=True).convert(set())


class _Conversion:
    """One graph's way from float32 to half. A value has up to two names: its own, and that of its other precision."""

    def __init__(self, graph: TracedGraph, simulated: bool) -> None:
        self.name = graph.name
        self.simulated = simulated
        self.model = onnx.ModelProto()
        self.model.CopyFrom(graph.model)
        self.types = _element_types(graph.model)
        self.weights = {one.name: one for one in graph.model.graph.initializer}
        self.half: set[str] = set()
        """Values that are produced in half."""
        self.other: dict[str, str] = {}
        """Value → its name in the precision that it is not produced in."""
        self.nodes: list[onnx.NodeProto] = []
        self.half_weights: dict[str, TensorProto] = {}

    def convert(self, kept_half: set[str]) -> onnx.ModelProto:
        graph = self.model.graph
        self._keep_inputs(kept_half)
        for node in graph.node:
            self._place(node)
        if not self.half_weights:
            raise ExportError(f"No layer of the {self.name} graph became half; this is a fault of psarm.")
        self._place_outputs(kept_half)
        used = {name for node in self.nodes for name in node.input}
        weights = [one for one in graph.initializer if one.name in used] + list(self.half_weights.values())
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(weights)
        return self.model

    def _keep_inputs(self, kept_half: set[str]) -> None:
        for value in self.model.graph.input:
            if value.name in kept_half:
                value.type.tensor_type.elem_type = TensorProto.FLOAT16
                self.half.add(value.name)

    def _place(self, node: onnx.NodeProto) -> None:
        half = self._in_half(node)
        for position, name in enumerate(node.input):
            if self.types.get(name) == TensorProto.FLOAT:
                node.input[position] = self._value(name, half)
        self.nodes.append(node)
        if not half:
            return
        for position, name in enumerate(node.output):
            if self.types.get(name) != TensorProto.FLOAT:
                continue
            self.half.add(name)
            if self.simulated:
                node.output[position] = f"{name}.exact"
                self._round(f"{name}.exact", name)

    def _in_half(self, node: onnx.NodeProto) -> bool:
        inputs = [name for name in node.input if self.types.get(name) == TensorProto.FLOAT]
        if not inputs or node.op_type in FLOAT_OPERATORS or node.op_type == "Cast":
            return False
        owner = owner_of(node)
        if owner is None:  # made by the exporter's own rewriting: on the side of what it takes
            return inputs[0] in self.half
        if owner.startswith("psarm.export."):
            return owner in HALF_OWNERS
        return owner not in FLOAT_OWNERS

    def _value(self, name: str, half: bool) -> str:
        """The name under which a float value can be had in half, or in float32."""
        if name in self.weights:
            return self._half_weight(name) if half else name
        if half == (name in self.half):
            return name
        if name not in self.other:
            self.other[name] = self._cast(name, half)
        return self.other[name]

    def _half_weight(self, name: str) -> str:
        renamed = f"{name}.half"
        if renamed not in self.half_weights:
            values = numpy_helper.to_array(self.weights[name])
            largest = np.abs(values).max(initial=0)
            if largest > _HALF_MAX:
                raise ExportError(
                    f"The weights {name} of the {self.name} graph hold {largest:.3g}, beyond half's largest number "
                    f"{_HALF_MAX:.0f}; export without fp16."
                )
            rounded = values.astype(np.float16)
            kept = rounded.astype(np.float32) if self.simulated else rounded
            self.half_weights[renamed] = numpy_helper.from_array(kept, renamed)
        return renamed

    def _cast(self, name: str, half: bool) -> str:
        if self.simulated:
            if not half:
                return name  # already a float32 with half's digits
            self._round(name, f"{name}.half")
            return f"{name}.half"
        target, suffix = (TensorProto.FLOAT16, "half") if half else (TensorProto.FLOAT, "float")
        self.nodes.append(_cast_node(name, f"{name}.{suffix}", target))
        return f"{name}.{suffix}"

    def _round(self, name: str, rounded: str) -> None:
        self.nodes.append(_cast_node(name, f"{rounded}.digits", TensorProto.FLOAT16))
        self.nodes.append(_cast_node(f"{rounded}.digits", rounded, TensorProto.FLOAT))

    def _place_outputs(self, kept_half: set[str]) -> None:
        """Outputs keep their names; where one is produced in the other precision, that value gets another name."""
        for value in self.model.graph.output:
            name, half = value.name, value.name in kept_half
            if half:
                value.type.tensor_type.elem_type = TensorProto.FLOAT16
            if self.simulated or self.types[name] != TensorProto.FLOAT or half == (name in self.half):
                continue
            for node in self.nodes:
                _rename(node, name, f"{name}.inner")
            target = TensorProto.FLOAT16 if half else TensorProto.FLOAT
            self.nodes.append(_cast_node(f"{name}.inner", name, target))


def owner_of(node: onnx.NodeProto) -> str | None:
    """The class of the innermost module that a node of a traced graph belongs to; None where nobody knows."""
    return next((one.value for one in node.metadata_props if one.key == OWNER), None)


def _rename(node: onnx.NodeProto, name: str, new: str) -> None:
    for names in (node.input, node.output):
        for position, one in enumerate(names):
            if one == name:
                names[position] = new


def _cast_node(name: str, output: str, target: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [name], [output], name=f"cast_{output}", to=target)


def _element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every value."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {one.name: one.data_type for one in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        types[value.name] = value.type.tensor_type.elem_type
    missing = [name for node in graph.node for name in node.output if name and name not in types]
    if missing:
        raise ExportError(f"The type of {missing[0]} is not known; this is a fault of psarm.")
    return types
