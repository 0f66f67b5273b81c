"""Which RoIs a head is trained on: matching to the ground truth and balanced sampling (section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.models.detection import _utils as det_utils
from torchvision.ops import boxes as box_ops

from psarm.model.oim import BACKGROUND


@dataclass
class RoITargets:
    """Sampled RoIs of a batch with what each head should answer."""

    boxes: list[Tensor]  # [r,4] an image
    labels: Tensor  # [R] 0…C-1, -1 unlabelled person, -2 background
    deltas: Tensor  # [R,4] towards the matched ground truth


class RoISampler:
    """Ground truth joins the RoIs; IoU ≥ 0.5 is positive; half of a fixed number are positive at most."""

    def __init__(self, batch_size: int, box_coder: det_utils.BoxCoder) -> None:
        self.matcher = det_utils.Matcher(0.5, 0.5, allow_low_quality_matches=False)
        self.sampler = det_utils.BalancedPositiveNegativeSampler(batch_size, 0.5)
        self.box_coder = box_coder

    @torch.no_grad()
    def sample(self, boxes: list[Tensor], targets: list[dict[str, Tensor]]) -> RoITargets:
        """RoIs [r,4] and targets (boxes [n,4], labels [n]) of every image → sampled RoIs with targets."""
        chosen, labels, matched = [], [], []
        for image_boxes, target in zip(boxes, targets, strict=True):
            rois = torch.cat([image_boxes, target["boxes"]])
            roi_labels, roi_matched = self._match(rois, target)
            positive, negative = self.sampler([(roi_labels != BACKGROUND).long()])
            keep = torch.where(positive[0] | negative[0])[0]
            chosen.append(rois[keep])
            labels.append(roi_labels[keep])
            matched.append(roi_matched[keep])
        deltas = torch.cat(self.box_coder.encode(matched, chosen))
        return RoITargets(chosen, torch.cat(labels), deltas)

    def _match(self, rois: Tensor, target: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        if len(target["boxes"]) == 0:
            return rois.new_full((len(rois),), BACKGROUND, dtype=torch.int64), rois
        index = self.matcher(box_ops.box_iou(target["boxes"], rois))
        labels = target["labels"][index.clamp(min=0)]
        labels = torch.where(index >= 0, labels, torch.full_like(labels, BACKGROUND))
        return labels, target["boxes"][index.clamp(min=0)]
