"""What a model is built from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from psarm.config.values import check_values, require
from psarm.config.variants import GATED, VARIANTS, Variant
from psarm.errors import ConfigError

_POSITIVE = (
    "roi_batch_size",
    "rpn_batch_size",
    "num_identities",
    "detections_per_image",
    "arm_reduction",
    "pre_nms_top_n_train",
    "pre_nms_top_n_test",
    "post_nms_top_n_train",
    "post_nms_top_n_test",
)
_FRACTIONS = (
    "score_thresh",
    "detection_nms_thresh",
    "final_nms_thresh",
    "rpn_nms_thresh",
    "oim_momentum",
    "arm_dropout",
)


@dataclass(frozen=True)
class ModelConfig:
    """Everything needed to build a model (and to rebuild it from a checkpoint).

    Defaults are the published PS-ARM (ResNet-50, 900x1500, 14x14 RoIs) with the paper's ARM layout.
    """

    variant: str = "psarm"
    """What the heads are made of. psarm: SeqNet plus the attention-aware relation mixer; seqnet: without it; …"""
    backbone: Literal["resnet18", "resnet50", "resnet101", "convnext_tiny", "convnext_base"] = "resnet50"
    """What computes the feature map; its last stage is the heads'."""
    width: float = 1.0
    """Channel multiplier of the backbone; 1 is torchvision's network."""
    arm_layout: Literal["paper", "released"] = "paper"
    """paper: gates see the feature map; released: gates see the scrambled map the released weights were trained on."""
    arm_reduction: int = 4
    """ARM works on C / arm_reduction channels."""
    arm_dropout: float = 0.5
    """Probability of dropout in the mixing before res5."""
    min_size: int = 900
    """Short side after resizing, pixels, unless the long side would pass `max_size`."""
    max_size: int = 1500
    """Long side after resizing at most, pixels."""
    anchor_sizes: tuple[int, ...] = (32, 64, 128, 256, 512)
    """Square root of the anchor areas, pixels."""
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height over width."""
    pre_nms_top_n_train: int = 12000
    """Proposals an image that the RPN hands to its NMS in training."""
    pre_nms_top_n_test: int = 6000
    """The same when searching."""
    post_nms_top_n_train: int = 2000
    """Proposals an image that are kept after it in training."""
    post_nms_top_n_test: int = 300
    """The same when searching."""
    rpn_nms_thresh: float = 0.7
    """IoU above which the RPN's NMS drops the lower-scored proposal."""
    rpn_batch_size: int = 256
    """Anchors sampled an image for the RPN losses, half of them positive at most."""
    roi_size: int | tuple[int, ...] = 14
    """Cells of a RoI: a side, or [height, width] as in [24, 8]."""
    roi_batch_size: int = 128
    """RoIs sampled an image for each head's losses, half of them positive at most."""
    score_thresh: float = 0.5
    """Detections that score less are dropped."""
    detection_nms_thresh: float = 0.4
    """NMS between the detection head and the re-id head."""
    final_nms_thresh: float = 0.5
    """NMS after the re-id head."""
    detections_per_image: int = 300
    """At most as many people in an image."""
    embedding_dim: int = 256
    """Numbers in a person's embedding."""
    num_identities: int = 482
    """Rows of OIM's lookup table: labelled training identities."""
    queue_size: int = 500
    """Rows of OIM's circular queue of unlabelled people."""
    oim_momentum: float = 0.5
    """Share of the old row when a row of the lookup table is updated."""
    oim_scalar: float = 30.0
    """OIM's similarities are multiplied by it before the softmax (one over its temperature)."""

    def __post_init__(self) -> None:
        check_values(self, "model")
        require(self.variant in VARIANTS, "model.variant", self.variant, "one of " + ", ".join(VARIANTS))
        self._check_rois()
        self._check_sizes()
        for name in _POSITIVE:
            require(getattr(self, name) > 0, f"model.{name}", getattr(self, name), "more than 0")
        require(self.queue_size >= 0, "model.queue_size", self.queue_size, "0 or more")
        for name in _FRACTIONS:
            require(0 <= getattr(self, name) <= 1, f"model.{name}", getattr(self, name), "between 0 and 1")

    def _check_rois(self) -> None:
        mixing = self.parts.mixing
        if self.arm_layout == "released" and mixing is not None and mixing not in GATED:
            raise ConfigError(
                f"model.arm_layout is 'released' with model.variant {self.variant!r}, whose mixing has no gate and "
                "only one layout; leave it at 'paper'."
            )
        rois = self.roi_size if isinstance(self.roi_size, tuple) else (self.roi_size,) * 2
        require(len(rois) == 2 and min(rois) > 0, "model.roi_size", self.roi_size, "a side or [height, width], above 0")
        if mixing in ("arm", "spatio_channel"):
            require(max(rois) > 1, "model.roi_size", self.roi_size, "at least 2 cells, which SimAM compares")
        if self.backbone.startswith("convnext"):
            require(min(rois) > 1, "model.roi_size", self.roi_size, "sides of at least 2, which ConvNeXt halves")

    def _check_sizes(self) -> None:
        require(self.width > 0, "model.width", self.width, "more than 0")
        require(0 < self.min_size <= self.max_size, "model.min_size", self.min_size, "between 1 and model.max_size")
        even = self.embedding_dim % 2 == 0 and self.embedding_dim > 0
        require(even, "model.embedding_dim", self.embedding_dim, "an even number")
        sizes, ratios = self.anchor_sizes, self.anchor_ratios
        require(bool(sizes) and min(sizes) > 0, "model.anchor_sizes", sizes, "sizes above 0")
        require(bool(ratios) and min(ratios) > 0, "model.anchor_ratios", ratios, "ratios above 0")

    @property
    def parts(self) -> Variant:
        """What the variant's heads are made of."""
        return VARIANTS[self.variant]

    @property
    def roi_shape(self) -> tuple[int, int]:
        """Height and width of a RoI in cells."""
        if isinstance(self.roi_size, int):
            return self.roi_size, self.roi_size
        height, width = self.roi_size
        return height, width
