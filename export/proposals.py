"""The region proposal network's selection as one graph: no step on the host, exact to torchvision's.

Anchors and boxes are computed for the best K only; NMS leaves at most P, padded to P.
N images, A anchors a cell, h x w cells, K candidates, P proposals. Boxes are float xyxy, pixels of the resized images.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.detection.rpn import RegionProposalNetwork

from psarm.export.boxes import clip_boxes, decode_boxes
from psarm.export.operators import nms_mask
from psarm.model.backbone import STRIDE


class ProposalGraph(nn.Module):
    """Objectness and deltas of the RPN head → proposals."""

    base_anchors: Tensor
    flags: tuple[str, ...] = ()
    """Names of what `forward` returns after the candidates."""
    rank_type = torch.int64
    """What the survivors' ranks are sorted in; integers stay exact in every runtime's reduced precision."""

    def __init__(self, rpn: RegionProposalNetwork) -> None:
        super().__init__()
        anchors = rpn.anchor_generator
        [sizes], [ratios] = anchors.sizes, anchors.aspect_ratios
        self.register_buffer("base_anchors", anchors.generate_anchors(sizes, ratios))  # [A,4] around (0, 0)
        self.candidates = rpn._pre_nms_top_n["testing"]
        self.limit = rpn._post_nms_top_n["testing"]
        self.nms_thresh = rpn.nms_thresh
        self.min_side = rpn.min_size

    def forward(self, objectness: Tensor, deltas: Tensor, image_sizes: Tensor) -> tuple[Tensor, ...]:
        """Logits [N,A,h,w], deltas [N,4A,h,w], valid sizes int64 [N,2] → proposals, their counts, candidates.

        Proposals [N,P,4] come best first; rows past the count int64 [N] are zeros. Candidates [N,K,4] are the boxes
        before NMS, best first.
        """
        logits = by_anchor(objectness)  # [N,hwA]
        count = torch.sym_min(self.candidates, logits.shape[1])  # type: ignore[no-untyped-call]
        boxes, valid = self._boxes(logits.topk(count, dim=1).indices, deltas, image_sizes)
        proposals, counts = self._first(boxes, nms_mask(boxes, valid, self.nms_thresh, self.limit))
        return proposals, counts, boxes

    def _boxes(self, index: Tensor, deltas: Tensor, image_sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes [N,K,4] of the anchors at positions [N,K] of the h x w x A grid, and which are large enough [N,K]."""
        boxes = decode_boxes(_gather_rows(_deltas_by_anchor(deltas), index), self._anchors(index, deltas.shape[3]))
        boxes = clip_boxes(boxes, image_sizes)
        sides = boxes[..., 2:] - boxes[..., :2]
        return boxes, sides.amin(dim=-1) >= self.min_side

    def _anchors(self, index: Tensor, width: int) -> Tensor:
        """Anchors [N,K,4] at positions of the flattened h x w x A grid."""
        count = len(self.base_anchors)
        cell = index // count
        row = cell // width
        column = cell - row * width  # not `cell % width`: the ONNX exporter knows no remainder by a symbolic size
        shifts = STRIDE * torch.stack([column, row, column, row], dim=-1).to(self.base_anchors.dtype)
        return self.base_anchors[index % count] + shifts

    def _first(self, boxes: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """The kept boxes, in order, in P rows."""
        images, candidates = kept.shape
        ranks = torch.arange(candidates, 0, -1, device=boxes.device, dtype=self.rank_type)
        keys = torch.where(kept, ranks, 0)
        padded = torch.cat([keys, keys.new_zeros(images, self.limit)], dim=1)  # K may be below P
        best, index = padded.topk(self.limit, dim=1)
        chosen = _gather_rows(boxes, index.clamp(max=candidates - 1))
        return torch.where((best > 0)[..., None], chosen, 0.0), (best > 0).sum(dim=1)


def by_anchor(objectness: Tensor) -> Tensor:
    """[N,A,h,w] → [N,hwA], torchvision's order."""
    return objectness.permute(0, 2, 3, 1).flatten(1)


def _deltas_by_anchor(deltas: Tensor) -> Tensor:
    """[N,4A,h,w] → [N,hwA,4], torchvision's order."""
    images, channels, height, width = deltas.shape
    return deltas.reshape(images, channels // 4, 4, height, width).permute(0, 3, 4, 1, 2).reshape(images, -1, 4)


def _gather_rows(values: Tensor, index: Tensor) -> Tensor:
    """Rows `index` [N,K] of values [N,M,4] → [N,K,4]."""
    return values.gather(1, index[..., None].expand(-1, -1, 4))
