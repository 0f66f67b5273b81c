"""The inference graphs: the model's weights in the form that is fastest to run, exact to the model.

The 1x1 convolution in front of ARM (reduce) runs once on the feature map for each head; RoIAlign is linear, so it
commutes, but samples outside the map count as zero, so its bias is added after RoIAlign. The one behind ARM (expand) is
folded into res5 where that begins with convolutions. The model itself knows nothing of this.

N images, P proposals of each, R RoIs, C channels, h x w cells of the stride-16 map, D embedding dimensions.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from psarm.export.boxes import clip_boxes, decode_boxes
from psarm.export.folding import fold_norms
from psarm.export.heads import DetectionHeadGraph, ReidHeadGraph, ScoringReidHeadGraph, joint_reduction, norms
from psarm.export.proposals import ProposalGraph
from psarm.model.person_search import PersonSearchModel
from psarm.model.roi_heads import PersonSearchHeads


class DetectGraph(nn.Module):
    """Images → boxes and scores of the first head, and the features for the graphs that follow."""

    def __init__(self, model: PersonSearchModel) -> None:
        super().__init__()
        heads = model.roi_heads
        self.backbone = copy.deepcopy(model.backbone)
        fold_norms(self.backbone)
        # Apart from the others', whose map leaves the graph: taken as a slice of one joint map, the map would reach
        # OpenVINO's RoIAlign in a layout in which that is four times slower.
        self.reduce_first = None if heads.box_head is None else joint_reduction([heads.box_head])
        self.reduce = joint_reduction([head.reid_head for head in heads.reid_heads])
        self.looks_at_proposals = heads.box_head is None
        self.rpn_head = model.rpn.head
        self.proposals = ProposalGraph(model.rpn)
        self.head: nn.Module
        if heads.box_head is None or heads.faster_rcnn_predictor is None:
            self.head = ScoringReidHeadGraph(heads)
        else:
            self.head = DetectionHeadGraph(heads, heads.box_head, heads.faster_rcnn_predictor)

    @property
    def outputs(self) -> list[str]:
        """Names of what `forward` returns first; the steps for verification come after these."""
        regions = ["regions"] if self.looks_at_proposals else []
        return ["boxes", "scores", "counts", "features", *regions, *self.proposals.flags]

    def forward(self, images: Tensor, image_sizes: Tensor) -> tuple[Tensor, ...]:
        """Normalised images [N,3,H,W] (H, W multiples of 32) and their valid sizes int64 [N,2] (height, width).

        Returns boxes [N,P,4] (clipped), scores [N,P], counts int64 [N], features [N,C,h,w] and, of a model whose single
        head looks at proposals, these as regions [N,P,4]; then what flags the choice of proposals raises; then, for
        verification, the steps to the proposals: objectness [N,A,h,w], deltas [N,4A,h,w], candidates [N,K,4],
        proposals [N,P,4].
        """
        res4 = self.backbone(images)
        features = res4 if self.reduce is None else self.reduce(res4)
        detect_features = features if self.reduce_first is None else self.reduce_first(res4)
        [objectness], [deltas] = self.rpn_head([res4])
        proposals, counts, candidates, *flags = self.proposals(objectness, deltas, image_sizes)
        boxes, scores = self._detect(detect_features, proposals)
        real = torch.arange(self.proposals.limit, device=counts.device) < counts[:, None]  # [N,P]
        boxes = torch.where(real[..., None], clip_boxes(boxes, image_sizes), 0.0)
        scores = torch.where(real, scores, 0.0)
        regions = (proposals.clone(),) if self.looks_at_proposals else ()
        return boxes, scores, counts, features, *regions, *flags, objectness, deltas, candidates, proposals

    def _detect(self, features: Tensor, proposals: Tensor) -> tuple[Tensor, Tensor]:
        images = proposals.shape[0]
        image = torch.arange(images, device=proposals.device)[:, None].expand(-1, self.proposals.limit)
        deltas, scores = self.head(features, proposals.flatten(0, 1), image.flatten())
        return decode_boxes(deltas.reshape(images, -1, 4), proposals), scores.reshape(images, -1)


class RefineGraph(nn.Module):
    """Features and boxes → boxes refined by a re-id head that another one follows (Cascaded PS-ARM)."""

    def __init__(self, model: PersonSearchModel, number: int) -> None:
        super().__init__()
        self.channels = _feature_channels(model.roi_heads, number)
        self.head = ReidHeadGraph(model.roi_heads, model.roi_heads.reid_heads[number])

    def forward(self, features: Tensor, boxes: Tensor, batch_indices: Tensor) -> Tensor:
        """Features [N,C,h,w], boxes [R,4] in pixels of the resized images, image of each int64 [R]; R > 0.

        Returns refined boxes [R,4] (not clipped).
        """
        deltas, _ = self.head(features[:, self.channels], boxes, batch_indices)
        return decode_boxes(deltas, boxes)


class ReidGraph(nn.Module):
    """Features and boxes → refined boxes and embeddings of the last re-id head."""

    def __init__(self, model: PersonSearchModel) -> None:
        super().__init__()
        number = len(model.roi_heads.reid_heads) - 1
        self.channels = _feature_channels(model.roi_heads, number)
        self.head = ReidHeadGraph(model.roi_heads, model.roi_heads.reid_heads[number])

    def forward(self, features: Tensor, boxes: Tensor, batch_indices: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N,C,h,w], boxes [R,4] in pixels of the resized images, image of each int64 [R]; R > 0.

        Returns refined boxes [R,4] (not clipped) and embeddings [R,D] of unit norm.
        """
        deltas, vectors = self.head(features[:, self.channels], boxes, batch_indices)
        return decode_boxes(deltas, boxes), vectors / norms(vectors).clamp(min=1e-12)


def _reduced_channels(heads: PersonSearchHeads) -> int:
    """Channels of one head's reduced map; 0 without ARM."""
    arm = heads.reid_head.arm
    return 0 if arm is None else arm.reduce.out_channels


def _feature_channels(heads: PersonSearchHeads, number: int) -> slice:
    """Which channels of the detect graph's features belong to re-id head `number`."""
    count = _reduced_channels(heads)
    if count == 0 or len(heads.reid_heads) == 1:
        return slice(None)
    return slice(number * count, (number + 1) * count)
