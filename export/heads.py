"""The heads of a model in the form that is fastest to run, exact to the model: norms and 1x1 convolutions folded.

R RoIs, C channels, h x w cells of the stride-16 map, a x b cells of a RoI, D embedding dimensions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.resnet import BasicBlock, Bottleneck

from psarm.export.folding import convolution_like, fold_linear, fold_norm, fold_norms, fold_pointwise, linear
from psarm.export.mixer import mixer_graph
from psarm.export.operators import align_rois
from psarm.model.backbone import STRIDE
from psarm.model.roi_heads import PersonSearchHeads, ReidHead, RoIFeatures


class TrunkGraph(nn.Module):
    """RoIAlign, ARM behind its reduction, and res5, max-pooled.

    Where res5 begins with convolutions, ARM's expansion is folded into them, and what enters them lacks it: `pending`
    is that expansion without its bias, `offset` the bias.
    """

    bias: Tensor | None
    offset: Tensor | None

    def __init__(self, trunk: RoIFeatures, roi_shape: tuple[int, int]) -> None:
        super().__init__()
        self.roi_shape = roi_shape
        self.align: Callable[[Tensor, Tensor, Tensor, int, int, float], Tensor] = align_rois
        self.mixer: nn.Module | None = None
        self.expand: nn.Module | None = None
        self.pending: nn.Module | None = None
        self.register_buffer("bias", None)
        self.offset = None
        self.res5 = copy.deepcopy(trunk.layer4)
        fold_norms(self.res5)
        if trunk.arm is not None:
            self.mixer = mixer_graph(trunk.arm.mixer)
            self.bias = cast(Tensor, trunk.arm.reduce.bias).detach()[:, None, None]
            self._place_expansion(trunk.arm.expand)

    def forward(self, features: Tensor, boxes: Tensor, batch_indices: Tensor) -> tuple[Tensor, Tensor]:
        """[N,C,h,w], [R,4], [R] → what enters res5 as it stands here [R,C,a,b], maxima of what leaves it [R,C5]."""
        x = self.align(features, boxes, batch_indices, *self.roi_shape, 1 / STRIDE)
        if self.bias is not None:
            x = x + self.bias
        if self.mixer is not None:
            x = self.mixer(x)
        if self.expand is not None:
            x = self.expand(x)
        return x, self.res5(x).amax(dim=(2, 3))

    def _place_expansion(self, expand: nn.Conv2d) -> None:
        first: Any = next(iter(self.res5.children()))
        if isinstance(first, (BasicBlock, Bottleneck)):
            first.conv1 = fold_pointwise(expand, first.conv1, self.roi_shape)
            first.downsample = fold_pointwise(expand, cast(Any, first.downsample)[0], self.roi_shape)
            self.pending, self.offset = convolution_like(expand, expand.weight, None), expand.bias
        else:
            self.expand = copy.deepcopy(expand)


class DetectionHeadGraph(nn.Module):
    """The detection head: boxes' deltas and the probability of being a person.

    The softmax of two logits is the sigmoid of their difference.
    """

    def __init__(self, heads: PersonSearchHeads, trunk: RoIFeatures, predictor: FastRCNNPredictor) -> None:
        super().__init__()
        self.trunk = TrunkGraph(trunk, heads.roi_align.size)
        self.predictor = _detection_predictor(predictor, _coder_scale(heads))

    def forward(self, features: Tensor, boxes: Tensor, batch_indices: Tensor) -> tuple[Tensor, Tensor]:
        """[N,C,h,w], [R,4], [R] → deltas over the coder's weights [R,4], scores [R]."""
        _, res5 = self.trunk(features, boxes, batch_indices)
        logits, deltas = self.predictor(res5).split([1, 4], dim=-1)
        return deltas, torch.sigmoid(logits[:, 0])


class ReidHeadGraph(nn.Module):
    """A re-id head: boxes' deltas and the embedding before it is normalised."""

    def __init__(self, heads: PersonSearchHeads, head: ReidHead) -> None:
        super().__init__()
        self.trunk = TrunkGraph(head.reid_head, heads.roi_align.size)
        dtype = head.embedding_head.rescaler.weight.dtype
        weight, bias = fold_linear(head.embedding_head.res4)
        if self.trunk.offset is not None:  # max(x + b) = max(x) + b
            bias = bias + weight @ self.trunk.offset.double()
        self.res4 = linear(weight, bias, dtype)
        self.res5 = _reid_predictor(head, _coder_scale(heads))

    def forward(self, features: Tensor, boxes: Tensor, batch_indices: Tensor) -> tuple[Tensor, Tensor]:
        """[N,C,h,w], [R,4], [R] → deltas over the coder's weights [R,4], vectors [R,D]."""
        entering, res5 = self.trunk(features, boxes, batch_indices)
        res4 = (entering if self.trunk.pending is None else self.trunk.pending(entering)).amax(dim=(2, 3))
        deltas, deep = self.res5(res5).split([4, self.res4.out_features], dim=1)
        return deltas, torch.cat([self.res4(res4), deep], dim=1)


class ScoringReidHeadGraph(nn.Module):
    """NAE's head where it scores proposals: the length of the vector tells people from background."""

    scale: Tensor
    shift: Tensor

    def __init__(self, heads: PersonSearchHeads) -> None:
        super().__init__()
        self.head = ReidHeadGraph(heads, heads)
        rescaler = heads.embedding_head.rescaler
        scale, shift = fold_norm(torch.ones(1, device=rescaler.weight.device), None, rescaler)
        self.register_buffer("scale", scale.to(rescaler.weight.dtype))
        self.register_buffer("shift", shift.to(rescaler.weight.dtype))

    def forward(self, features: Tensor, boxes: Tensor, batch_indices: Tensor) -> tuple[Tensor, Tensor]:
        """[N,C,h,w], [R,4], [R] → deltas over the coder's weights [R,4], scores [R]."""
        deltas, vectors = self.head(features, boxes, batch_indices)
        return deltas, torch.sigmoid(norms(vectors)[:, 0] * self.scale + self.shift)


def norms(vectors: Tensor) -> Tensor:
    """Lengths of vectors [R,D] → [R,1]."""
    return torch.sqrt((vectors * vectors).sum(dim=1, keepdim=True))


@torch.no_grad()
def joint_reduction(trunks: list[RoIFeatures]) -> nn.Conv2d | None:
    """All heads' 1x1 reductions as one convolution without bias; None without ARM."""
    reductions = [trunk.arm.reduce for trunk in trunks if trunk.arm is not None]
    if not reductions:
        return None
    return convolution_like(reductions[0], torch.cat([reduction.weight for reduction in reductions]), None)


@torch.no_grad()
def _detection_predictor(predictor: FastRCNNPredictor, scale: Tensor) -> nn.Linear:
    """Linear to (logit of being a person, foreground deltas over the coder's weights)."""
    scores, boxes = predictor.cls_score, predictor.bbox_pred
    weight = torch.cat([scores.weight.double().diff(dim=0), boxes.weight[4:].double() * scale[:, None]])
    bias = torch.cat([scores.bias.double().diff(dim=0), boxes.bias[4:].double() * scale])
    return linear(weight, bias, scores.weight.dtype)


@torch.no_grad()
def _reid_predictor(head: ReidHead, scale: Tensor) -> nn.Linear:
    """Linear from res5 to (foreground deltas over the coder's weights, second half of the embedding)."""
    box_weight, box_bias = fold_linear(head.box_predictor)
    weight, bias = fold_linear(head.embedding_head.res5)
    return linear(
        torch.cat([box_weight[4:] * scale[:, None], weight]),
        torch.cat([box_bias[4:] * scale, bias]),
        head.embedding_head.rescaler.weight.dtype,
    )


def _coder_scale(heads: PersonSearchHeads) -> Tensor:
    return 1 / torch.tensor(heads.box_coder.weights, dtype=torch.float64)
