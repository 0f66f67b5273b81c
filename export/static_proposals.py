"""The selection of proposals with shapes that depend on no data: for engines and recordings that want them fixed.

N images, A anchors a cell, h x w cells, K candidates, P proposals.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection.rpn import RegionProposalNetwork

from psarm.export.proposals import ProposalGraph, by_anchor
from psarm.export.static_nms import StaticNms

CANDIDATES = 2000
"""Boxes before NMS, where the model asks for more (TensorRT chooses among 3840 at most, and NMS compares each two:
4 MB an image).

NMS on the best K leaves the first of what it leaves on all, so these are as good as the published 6000 wherever P
survive. Of the shipped model's best 2000 at least 788 do at 1500 pixels, of its best 1000 only 341."""
SWEEPS = 20
"""Of NMS; the shipped model needs up to 16 until every candidate is settled, random dense boxes up to 15."""


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
