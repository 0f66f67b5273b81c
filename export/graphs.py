"""The two inference graphs: the model's weights in the form that is fastest to run, exact to the model.

The 1x1 convolution in front of ARM (reduce) runs once on the feature map for both heads; RoIAlign is linear, so it
commutes, but samples outside the map count as zero, so its bias is added after RoIAlign. The one behind ARM (expand) is
folded into res5. The model itself knows nothing of this.

N images, P proposals of each, R RoIs, C channels, h x w cells of the stride-16 map, D embedding dimensions.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from psarm.export.boxes import clip_boxes, decode_boxes
from psarm.export.folding import convolution_like, fold_linear, fold_norms, fold_pointwise, linear
from psarm.export.mixer import MixerGraph
from psarm.export.operators import align_rois
from psarm.export.proposals import ProposalGraph
from psarm.model.backbone import STRIDE
from psarm.model.person_search import PersonSearchModel
from psarm.model.roi_heads import RoIFeatures


class DetectGraph(nn.Module):
    """Images → boxes and scores of the detection head, and the features for the re-id graph."""

    def __init__(self, model: PersonSearchModel) -> None:
        super().__init__()
        heads = model.roi_heads
        self.backbone = copy.deepcopy(model.backbone)
        fold_norms(self.backbone)
        self.reduce = _joint_reduction(heads.box_head, heads.reid_head)
        self.rpn_head = model.rpn.head
        self.proposals = ProposalGraph(model.rpn)
        self.trunk = TrunkGraph(heads.box_head, heads.roi_align.size)
        self.predictor = _detection_predictor(model)

    def forward(self, images: Tensor, image_sizes: Tensor) -> tuple[Tensor, ...]:
        """Normalised images [N,3,H,W] (H, W multiples of 32) and their valid sizes int64 [N,2] (height, width).

        Returns boxes [N,P,4] (clipped), scores [N,P], counts int64 [N], features [N,C,h,w]; then, for verification,
        the steps to the proposals: objectness [N,A,h,w], deltas [N,4A,h,w], candidates [N,K,4], proposals [N,P,4].
        """
        res4 = self.backbone(images)
        detect_features, features = (res4, res4) if self.reduce is None else self.reduce(res4).chunk(2, dim=1)
        [objectness], [deltas] = self.rpn_head([res4])
        proposals, counts, candidates = self.proposals(objectness, deltas, image_sizes)
        boxes, scores = self._detect(detect_features, proposals)
        real = torch.arange(self.proposals.limit, device=counts.device) < counts[:, None]  # [N,P]
        boxes = torch.where(real[..., None], clip_boxes(boxes, image_sizes), 0.0)
        scores = torch.where(real, scores, 0.0)
        return boxes, scores, counts, features, objectness, deltas, candidates, proposals

    def _detect(self, features: Tensor, proposals: Tensor) -> tuple[Tensor, Tensor]:
        images = proposals.shape[0]
        image = torch.arange(images, device=proposals.device)[:, None].expand(-1, self.proposals.limit)
        _, res5 = self.trunk(features, proposals.flatten(0, 1), image.flatten())
        logits, deltas = self.predictor(res5).reshape(images, -1, 5).split([1, 4], dim=-1)
        return decode_boxes(deltas, proposals), torch.sigmoid(logits[..., 0])


class ReidGraph(nn.Module):
    """Features and boxes → refined boxes and embeddings of the re-id head."""

    def __init__(self, model: PersonSearchModel) -> None:
        super().__init__()
        heads = model.roi_heads
        self.trunk = TrunkGraph(heads.reid_head, heads.roi_align.size)
        self.expand, res4_offset = None, None
        if heads.reid_head.arm is not None:
            expand = heads.reid_head.arm.expand
            self.expand = convolution_like(expand, expand.weight, None)
            res4_offset = expand.bias
        dtype = heads.embedding_head.rescaler.weight.dtype
        weight, bias = fold_linear(heads.embedding_head.res4)
        if res4_offset is not None:  # max(x + b) = max(x) + b
            bias = bias + weight @ res4_offset.double()
        self.res4 = linear(weight, bias, dtype)
        self.res5 = _reid_predictor(model)

    def forward(self, features: Tensor, boxes: Tensor, batch_indices: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N,C,h,w], boxes [R,4] in pixels of the resized images, image of each int64 [R]; R > 0.

        Returns refined boxes [R,4] (not clipped) and embeddings [R,D] of unit norm.
        """
        entering, res5 = self.trunk(features, boxes, batch_indices)
        res4 = (entering if self.expand is None else self.expand(entering)).amax(dim=(2, 3))
        deltas, deep = self.res5(res5).split([4, self.res4.out_features], dim=1)
        embeddings = torch.cat([self.res4(res4), deep], dim=1)
        norms = torch.sqrt((embeddings * embeddings).sum(dim=1, keepdim=True))
        return decode_boxes(deltas, boxes), embeddings / norms.clamp(min=1e-12)


class TrunkGraph(nn.Module):
    """RoIAlign, ARM up to (not including) its expansion, and res5 with the expansion folded in, max-pooled."""

    bias: Tensor | None

    def __init__(self, trunk: RoIFeatures, roi_size: int) -> None:
        super().__init__()
        self.roi_size = roi_size
        self.mixer = None
        self.register_buffer("bias", None)
        self.res5 = copy.deepcopy(trunk.layer4)
        fold_norms(self.res5)
        if trunk.arm is not None:
            self.mixer = MixerGraph(trunk.arm.mixer)
            self.bias = cast(Tensor, trunk.arm.reduce.bias).detach()[:, None, None]
            first: Any = self.res5[0]
            first.conv1 = fold_pointwise(trunk.arm.expand, first.conv1, roi_size)
            first.downsample = fold_pointwise(trunk.arm.expand, first.downsample[0], roi_size)

    def forward(self, features: Tensor, boxes: Tensor, batch_indices: Tensor) -> tuple[Tensor, Tensor]:
        """[N,C,h,w], [R,4], [R] → what enters res5's folded form [R,C,s,s], maxima of what leaves it [R,C5]."""
        x = align_rois(features, boxes, batch_indices, self.roi_size, 1 / STRIDE)
        if self.mixer is not None:
            x = self.mixer(x + self.bias)
        return x, self.res5(x).amax(dim=(2, 3))


@torch.no_grad()
def _joint_reduction(first: RoIFeatures, second: RoIFeatures) -> nn.Conv2d | None:
    """Both heads' 1x1 reductions as one convolution without bias; None without ARM."""
    if first.arm is None or second.arm is None:
        return None
    weight = torch.cat([first.arm.reduce.weight, second.arm.reduce.weight])
    return convolution_like(first.arm.reduce, weight, None)


@torch.no_grad()
def _detection_predictor(model: PersonSearchModel) -> nn.Linear:
    """Linear to (logit of being a person, foreground deltas over the coder's weights).

    The softmax of two logits is the sigmoid of their difference.
    """
    predictor = model.roi_heads.faster_rcnn_predictor
    scores, boxes = predictor.cls_score, predictor.bbox_pred
    scale = _coder_scale(model)
    weight = torch.cat([scores.weight.double().diff(dim=0), boxes.weight[4:].double() * scale[:, None]])
    bias = torch.cat([scores.bias.double().diff(dim=0), boxes.bias[4:].double() * scale])
    return linear(weight, bias, scores.weight.dtype)


@torch.no_grad()
def _reid_predictor(model: PersonSearchModel) -> nn.Linear:
    """Linear from res5 to (foreground deltas over the coder's weights, second half of the embedding)."""
    heads = model.roi_heads
    box_weight, box_bias = fold_linear(heads.box_predictor)
    weight, bias = fold_linear(heads.embedding_head.res5)
    scale = _coder_scale(model)
    return linear(
        torch.cat([box_weight[4:] * scale[:, None], weight]),
        torch.cat([box_bias[4:] * scale, bias]),
        heads.embedding_head.rescaler.weight.dtype,
    )


def _coder_scale(model: PersonSearchModel) -> Tensor:
    return 1 / torch.tensor(model.roi_heads.box_coder.weights, dtype=torch.float64)
