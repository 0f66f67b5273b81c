"""From the graphs' modules to ONNX files: tracing with dynamic sizes, names, checking.

N images, R RoIs, [H,W] the padded image size (multiples of 32).
"""

from __future__ import annotations

import ast
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

from psarm import __version__
from psarm.errors import ExportError
from psarm.export.graphs import DetectGraph
from psarm.export.operators import translations
from psarm.runtime.manifest import GRAPH_INPUTS, GRAPH_OUTPUTS, SIZE_DIVISOR, GraphSpec, TensorSpec

OPSET = 20
"""The first with Gelu as one operator."""
OWNER = "psarm.owner"
"""Key of a node's metadata: the class of the innermost module that it was traced from."""
PROBES = ("objectness", "deltas", "candidates", "proposals")
"""Inner tensors of the detect graph that keep their names, so that verification can look at them."""

_CLASSES = "pkg.torch.onnx.class_hierarchy"
_FEATURE_DIMS = {2: "H/16", 3: "W/16"}
_DIMS: dict[str, dict[int, str]] = {
    "images": {0: "N", 2: "H", 3: "W"},
    "image_sizes": {0: "N"},
    "features": {0: "N", **_FEATURE_DIMS},
    "counts": {0: "N"},
    "regions": {0: "N"},
    "exact": {0: "N"},
    "batch_indices": {0: "R"},
    "refined_boxes": {0: "R"},
    "embeddings": {0: "R"},
}
_BOX_DIM = {"detect": {0: "N"}, "refine": {0: "R"}, "reid": {0: "R"}}


@dataclass(frozen=True)
class TracedGraph:
    """One graph as ONNX and as the manifest describes it."""

    name: str
    model: onnx.ModelProto
    spec: GraphSpec


def trace_detect(graph: DetectGraph) -> TracedGraph:
    """Trace the detect graph; batch and image size stay dynamic."""
    images, sizes = torch.randn(2, 3, 96, 128), torch.tensor([[96, 120], [80, 128]])
    batch = Dim("N", min=1, max=4096)
    height, width = (SIZE_DIVISOR * Dim(name, min=1, max=4096) for name in ("h", "w"))
    shapes = {"images": {0: batch, 2: height, 3: width}, "image_sizes": {0: batch}}
    return _trace("detect", graph, (images, sizes), shapes, graph.outputs, PROBES)


def trace_heads(name: str, graph: nn.Module, channels: int) -> TracedGraph:
    """Trace the graph `refine` or `reid` on features of the given channels.

    Batch, map size and number of boxes stay dynamic.
    """
    boxes = torch.tensor([[0.0, 0.0, 40.0, 90.0], [20.0, 10.0, 70.0, 60.0], [5.0, 3.0, 90.0, 50.0]])
    inputs = (torch.randn(2, channels, 6, 8), boxes, torch.tensor([0, 1, 1]))
    batch, rois = Dim("N", min=1, max=4096), Dim("R", min=1, max=1 << 20)
    height, width = (2 * Dim(name, min=1, max=4096) for name in ("h", "w"))
    shapes = {"features": {0: batch, 2: height, 3: width}, "boxes": {0: rois}, "batch_indices": {0: rois}}
    return _trace(name, graph, inputs, shapes, GRAPH_OUTPUTS[name], ())


def simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph after onnxslim's passes, under the same input and output names."""
    import onnxslim

    try:
        with _quiet():
            slim: onnx.ModelProto = onnxslim.slim(model)
    except Exception as error:  # onnxslim has no exceptions of its own
        raise ExportError(f"onnxslim failed ({first_line(error)}); export without --simplify.") from error
    _clean(slim)
    return slim


def first_line(error: BaseException) -> str:
    """What a library's exception says, short enough for one sentence."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300].rstrip(". ")


def _trace(
    name: str,
    graph: nn.Module,
    inputs: tuple[Tensor, ...],
    shapes: dict[str, Any],
    outputs: Sequence[str],
    probes: Sequence[str],
) -> TracedGraph:
    try:
        with _quiet():
            program = torch.onnx.export(
                graph.eval(),
                inputs,
                dynamo=True,
                opset_version=OPSET,
                input_names=GRAPH_INPUTS[name],
                output_names=[*outputs, *probes],
                dynamic_shapes=shapes,
                custom_translation_table=translations(),
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = first_line(error.__cause__ or error)
        raise ExportError(f"Tracing the {name} graph failed ({reason}); this is a fault of psarm.") from error
    if program is None:
        raise ExportError(f"Tracing the {name} graph gave nothing; this is a fault of psarm.")
    model = program.model_proto
    del model.graph.output[len(outputs) :]
    _clean(model)
    _name_dims(name, model.graph)
    spec = GraphSpec(_describe(model.graph.input), _describe(model.graph.output))
    return TracedGraph(name, model, spec)


def _clean(model: onnx.ModelProto) -> None:
    """Drop what tells of the machine it was traced on (source paths in the metadata) and sizes under internal names.

    Of a node's metadata its owner stays.
    """
    for node in model.graph.node:
        owner = _owner(node)
        del node.metadata_props[:]
        if owner is not None:
            node.metadata_props.add(key=OWNER, value=owner)
    model.producer_name, model.producer_version, model.doc_string = "psarm", __version__, ""
    del model.metadata_props[:]
    graph = model.graph
    graph.doc_string = ""
    del graph.metadata_props[:], graph.value_info[:]
    for node in graph.node:
        node.doc_string = ""
    for part in (*graph.input, *graph.output, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]


def _owner(node: onnx.NodeProto) -> str | None:
    """The innermost module of the exporter's list of classes, which the node's operator ends."""
    known: dict[str, str] = {one.key: one.value for one in node.metadata_props}
    if OWNER in known:
        return known[OWNER]
    *modules, _ = ast.literal_eval(known.get(_CLASSES, "['']"))
    return modules[-1] if modules and "." in modules[-1] else None


def _name_dims(name: str, graph: onnx.GraphProto) -> None:
    dims = {**_DIMS, "boxes": _BOX_DIM[name], "scores": _BOX_DIM[name]}
    for value in (*graph.input, *graph.output):
        for position, label in dims[value.name].items():
            value.type.tensor_type.shape.dim[position].dim_param = label


def _describe(values: Sequence[onnx.ValueInfoProto]) -> dict[str, TensorSpec]:
    specs = {}
    for value in values:
        kind = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
        shape = (dim.dim_param or dim.dim_value for dim in kind.shape.dim)
        specs[value.name] = TensorSpec(dtype, tuple(shape))
    return specs


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress lines, warnings about itself and log messages away from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
