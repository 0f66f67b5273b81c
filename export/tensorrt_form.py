"""The graphs in the form that TensorRT builds without plugins: RoIAlign as matrix products, NMS as sweeps.

The same graphs as the ordinary ones, with the same names and the same answers; `detect` has one output more, `exact`
bool [N]. Every output's shape follows from the inputs' shapes, so that CUDA graphs can record the engines.

N images, A anchors a cell, h x w cells, K candidates, P proposals, R RoIs.
"""

from __future__ import annotations

from typing import TypeVar

from torch import nn
from torchvision.models.detection.rpn import RegionProposalNetwork

from psarm.export.graphs import DetectGraph, RefineGraph, ReidGraph
from psarm.export.heads import TrunkGraph
from psarm.export.separable_roi_align import SeparableRoIAlign
from psarm.export.static_proposals import StaticProposalGraph
from psarm.export.tracing import TracedGraph, trace_detect, trace_heads
from psarm.model.person_search import PersonSearchModel

Graph = TypeVar("Graph", bound=nn.Module)


def trace_tensorrt(model: PersonSearchModel) -> list[TracedGraph]:
    """All graphs of the model's bundle in the form for TensorRT, in the order they run.

    Batch, image size and number of boxes stay dynamic. Raises `ExportError` where tracing fails.
    """
    graphs = [trace_detect(detect_form(DetectGraph(model), model.rpn))]
    channels = int(graphs[0].spec.outputs["features"].shape[1])
    if len(model.roi_heads.reid_heads) > 1:
        graphs.append(trace_heads("refine", head_form(RefineGraph(model, 0)), channels))
    return [*graphs, trace_heads("reid", head_form(ReidGraph(model)), channels)]


def detect_form(graph: DetectGraph, rpn: RegionProposalNetwork) -> DetectGraph:
    """The detect graph, changed in place."""
    graph.proposals = StaticProposalGraph(rpn)
    return _align_by_products(graph, per_image=True)


def head_form(graph: Graph) -> Graph:
    """The refine or reid graph, changed in place."""
    return _align_by_products(graph, per_image=False)


def _align_by_products(graph: Graph, per_image: bool) -> Graph:
    for part in graph.modules():
        if isinstance(part, TrunkGraph):
            part.align = SeparableRoIAlign(per_image)
    return graph
