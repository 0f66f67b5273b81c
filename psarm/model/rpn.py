"""The region proposal network: torchvision's, with the released thresholds (section 3.1; Faster R-CNN)."""

from __future__ import annotations

from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from psarm.config import ModelConfig


def build_rpn(channels: int, config: ModelConfig) -> RegionProposalNetwork:
    """Anchors of every size x ratio in each cell; foreground IoU ≥ 0.7, background < 0.3, half positives."""
    anchors = AnchorGenerator((config.anchor_sizes,), (config.anchor_ratios,))
    return RegionProposalNetwork(
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
