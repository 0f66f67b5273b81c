"""The region proposal network: torchvision's, with the released thresholds (section 3.1; Faster R-CNN)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from psarm.config import ModelConfig
from psarm.model.processes import share
from psarm.model.sampling import RPN_STREAM, BalancedSampler

NOT_SAMPLED = -1.0
"""Label of an anchor that the losses leave out; torchvision's for one that is neither foreground nor background."""


class ProposalNetwork(RegionProposalNetwork):  # type: ignore[misc]  # torchvision has no types
    """torchvision's, but anchors may be drawn by the seed of their image, and losses are means over all processes."""

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Labels [A] of each image's anchors (1 foreground, 0 background, -1 not sampled) and matched boxes [A,4]."""
        labels, boxes = super().assign_targets_to_anchors(anchors, targets)
        sampled = []
        for image_labels, target in zip(labels, targets, strict=True):
            drawn = torch.cat(self.fg_bg_sampler.sample(image_labels, target, RPN_STREAM))
            left = torch.full_like(image_labels, NOT_SAMPLED)
            left[drawn] = image_labels[drawn]
            sampled.append(left)
        return sampled, boxes

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Objectness and box loss of the anchors that `assign_targets_to_anchors` sampled."""
        label = torch.cat(labels).to(objectness.dtype)  # torchvision makes float32 ones, whatever the model
        wanted = torch.cat(regression_targets)
        positive = torch.where(label == 1)[0]
        sampled = torch.cat([positive, torch.where(label == 0)[0]])
        box_loss = functional.smooth_l1_loss(pred_bbox_deltas[positive], wanted[positive], beta=1 / 9, reduction="sum")
        objectness_loss = functional.binary_cross_entropy_with_logits(
            objectness.flatten()[sampled], label[sampled], reduction="sum"
        )
        return share(objectness_loss, len(sampled)), share(box_loss, len(sampled))


def build_rpn(channels: int, config: ModelConfig) -> ProposalNetwork:
    """Anchors of every size x ratio in each cell; foreground IoU ≥ 0.7, background < 0.3, half positives."""
    anchors = AnchorGenerator((config.anchor_sizes,), (config.anchor_ratios,))
    network = ProposalNetwork(
        anchor_generator=anchors,
        head=RPNHead(channels, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=config.rpn_batch_size,
        positive_fraction=0.5,
        pre_nms_top_n={"training": config.pre_nms_top_n_train, "testing": config.pre_nms_top_n_test},
        post_nms_top_n={"training": config.post_nms_top_n_train, "testing": config.post_nms_top_n_test},
        nms_thresh=config.rpn_nms_thresh,
    )
    network.fg_bg_sampler = BalancedSampler(config.rpn_batch_size, 0.5)
    return network
