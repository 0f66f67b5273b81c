"""The graphs in the form that TensorRT builds without plugins: RoIAlign as matrix products, NMS as sweeps.

The same graphs as the ordinary ones, with the same names and the same answers; `detect` has one output more, `exact`
bool [N]. Every output's shape follows from the inputs' shapes, so that CUDA graphs can record the engines.

N images, A anchors a cell, h x w cells, K candidates, P proposals, R RoIs.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torchvision.models.detection.rpn import RegionProposalNetwork

from psarm.export.graphs import DetectGraph, RefineGraph, ReidGraph
from psarm.export.heads import TrunkGraph
from psarm.export.proposals import ProposalGraph, by_anchor
from psarm.export.separable_roi_align import SeparableRoIAlign
from psarm.export.static_nms import StaticNms
from psarm.export.tracing import TracedGraph, trace_detect, trace_heads
from psarm.model.person_search import PersonSearchModel

CANDIDATES = 2000
"""Boxes before NMS, where the model asks for more (TensorRT chooses among 3840 at most, and NMS compares each two:
4 MB an image).

NMS on the best K leaves the first of what it leaves on all, so these are as good as the published 6000 wherever P
survive. Of the shipped model's best 2000 at least 788 do at 1500 pixels, of its best 1000 only 341."""
SWEEPS = 20
"""Of NMS; the shipped model needs up to 16 until every candidate is settled, random dense boxes up to 15."""

Graph = TypeVar("Graph", bound=nn.Module)


class StaticProposalGraph(ProposalGraph):
    """The selection of proposals with static shapes, which may fail to be the ordinary one's, and then says so."""

    flags = ("exact",)
    rank_type = torch.float32  # not every TensorRT sorts integers; these are exact

    def __init__(self, rpn: RegionProposalNetwork, candidates: int = CANDIDATES, sweeps: int = SWEEPS) -> None:
        super().__init__(rpn)
        self.wanted = self.candidates
        self.candidates = min(self.wanted, candidates)
        self.nms = StaticNms(self.nms_thresh, sweeps)

    def forward(self, objectness: Tensor, deltas: Tensor, image_sizes: Tensor) -> tuple[Tensor, ...]:
        """As the ordinary one's, but always K candidates, the last ones not valid where there are fewer anchors.

        Last comes bool [N]: whether this image's proposals are those of the ordinary graph.
        """
        logits = by_anchor(objectness)  # [N,hwA]
        anchors = logits.shape[1]
        nothing = logits.new_full((logits.shape[0], self.candidates), -torch.inf)
        index = torch.cat([logits, nothing], dim=1).topk(self.candidates, dim=1).indices
        boxes, valid = self._boxes(index.clamp(max=anchors - 1), deltas, image_sizes)
        kept, final = self.nms(boxes, valid & (index < anchors))
        proposals, counts = self._first(boxes, kept)
        return proposals, counts, boxes, self._is_exact(kept, final, torch.full_like(counts, anchors))

    def _is_exact(self, kept: Tensor, final: Tensor, anchors: Tensor) -> Tensor:
        """P boxes certainly survive, or there is nothing that was not looked at."""
        enough: Tensor = (kept & final).sum(dim=1) >= self.limit
        complete: Tensor = final.all(dim=1)
        if self.candidates < self.wanted:
            complete = complete & (anchors <= self.candidates)
        return enough | complete


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
