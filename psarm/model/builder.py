"""From a `ModelConfig` to a model: the one place that knows sizes."""

from __future__ import annotations

from torchvision.models.detection.faster_rcnn import FastRCNNPredictor

from psarm.config import ModelConfig
from psarm.model.arm import Arm
from psarm.model.backbone import make_backbone, make_res5, res5_channels
from psarm.model.nae import NormAwareEmbedding
from psarm.model.oim import OnlineInstanceMatching
from psarm.model.person_search import PersonSearchModel
from psarm.model.roi_heads import BoxRegressor, PersonSearchHeads, ReidHead, RoIAlign, RoIFeatures, make_box_coder
from psarm.model.rpn import build_rpn
from psarm.model.sampling import RoISampler
from psarm.model.transform import Transform

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


def build_model(config: ModelConfig) -> PersonSearchModel:
    """A freshly initialised model in train mode."""
    backbone = make_backbone(config.backbone, config.width)
    return PersonSearchModel(
        config,
        Transform(config.min_size, config.max_size, list(IMAGE_MEAN), list(IMAGE_STD)),
        backbone,
        build_rpn(backbone.out_channels, config),
        _build_heads(backbone.out_channels, config),
    )


def _build_heads(channels: int, config: ModelConfig) -> PersonSearchHeads:
    detects_first = config.parts.heads != "nae"
    return PersonSearchHeads(
        box_head=_build_trunk(channels, config) if detects_first else None,
        faster_rcnn_predictor=FastRCNNPredictor(_deep(config), 2) if detects_first else None,
        reid=_build_reid_head(channels, config),
        further=[_build_reid_head(channels, config)] if config.parts.heads == "cascaded" else [],
        roi_align=RoIAlign(config.roi_shape),
        sampler=RoISampler(config.roi_batch_size, make_box_coder()),
        score_thresh=config.score_thresh,
        detection_nms_thresh=config.detection_nms_thresh,
        final_nms_thresh=config.final_nms_thresh,
        detections_per_image=config.detections_per_image,
    )


def _build_reid_head(channels: int, config: ModelConfig) -> ReidHead:
    return ReidHead(
        reid_head=_build_trunk(channels, config),
        box_predictor=BoxRegressor(_deep(config)),
        embedding_head=NormAwareEmbedding(channels, _deep(config), config.embedding_dim),
        reid_loss=OnlineInstanceMatching(
            config.embedding_dim, config.num_identities, config.queue_size, config.oim_momentum, config.oim_scalar
        ),
    )


def _build_trunk(channels: int, config: ModelConfig) -> RoIFeatures:
    arm = None
    if config.parts.mixing is not None:
        reduced = max(1, channels // config.arm_reduction)
        arm = Arm(channels, config.roi_shape, reduced, config.arm_dropout, config.arm_layout, config.parts.mixing)
    return RoIFeatures(arm, make_res5(config.backbone, config.width))


def _deep(config: ModelConfig) -> int:
    return res5_channels(config.backbone, config.width)
