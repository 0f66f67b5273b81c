"""The two operators whose ONNX form we write ourselves: NMS over a batch, and RoIAlign.

In PyTorch they are torchvision's. N images, K boxes of each, R RoIs. Boxes are float xyxy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import boxes as box_ops
from torchvision.ops import roi_align

SAMPLES = 2
"""Sampling points a bin and side of RoIAlign (the released setting)."""


@torch.library.custom_op("psarm::nms_mask", mutates_args=())
def nms_mask(boxes: Tensor, valid: Tensor, threshold: float, limit: int) -> Tensor:
    """Which boxes survive: the first `limit` of each image that overlap no better survivor by IoU > `threshold`.

    `boxes` float [N,K,4] sorted best first, `valid` bool [N,K] (others are ignored) → bool [N,K].
    """
    mask = torch.zeros_like(valid)
    for image_boxes, image_valid, image_mask in zip(boxes, valid, mask, strict=True):
        [candidates] = torch.where(image_valid)
        ranks = torch.arange(len(candidates), 0, -1, device=boxes.device, dtype=boxes.dtype)
        kept = box_ops.nms(image_boxes[candidates], ranks, threshold)[:limit]
        image_mask[candidates[kept]] = True
    return mask


@nms_mask.register_fake
def _(boxes: Tensor, valid: Tensor, threshold: float, limit: int) -> Tensor:
    return torch.empty_like(valid)


@torch.library.custom_op("psarm::align_rois", mutates_args=())
def align_rois(features: Tensor, boxes: Tensor, batch_indices: Tensor, height: int, width: int, scale: float) -> Tensor:
    """RoIAlign (not aligned): features [N,C,h,w], boxes [R,4], image of each int64 [R] → [R,C,height,width].

    Apart from torchvision's in that image numbers stay integers.
    """
    rois = torch.cat([batch_indices[:, None].to(boxes.dtype), boxes], dim=1)
    aligned: Tensor = roi_align(
        features, rois, (height, width), spatial_scale=scale, sampling_ratio=SAMPLES, aligned=False
    )
    return aligned


@align_rois.register_fake
def _(features: Tensor, boxes: Tensor, batch_indices: Tensor, height: int, width: int, scale: float) -> Tensor:
    return features.new_empty(boxes.shape[0], features.shape[1], height, width)


def onnx_nms_mask(boxes: Any, valid: Any, threshold: float, limit: int) -> Any:
    """`nms_mask` in ONNX.

    Scores are the ranks K…1, which are exact in float32 and never tie, and 0 where a box is not valid. The order of
    NonMaxSuppression's answer is not used, as the standard leaves it open.
    """
    op = _opset()

    shape = op.Shape(valid)  # [N,K]
    count = op.Squeeze(op.Shape(valid, start=1, end=2))
    ranks = op.Cast(op.Range(count, op.Constant(value_int=0), op.Constant(value_int=-1)), to=1)  # [K], float32
    scores = op.Unsqueeze(op.Where(valid, ranks, op.Constant(value_float=0.0)), op.Constant(value_ints=[1]))
    selected = op.NonMaxSuppression(
        boxes,
        scores,
        op.Constant(value_ints=[limit]),
        op.Constant(value_floats=[float32_below(threshold)]),
        op.Constant(value_floats=[0.5]),
    )  # [S,3]: image, class, box
    positions = op.Gather(selected, op.Constant(value_ints=[0, 2]), axis=1)  # [S,2]
    zeros = op.Expand(op.Constant(value_float=0.0), shape)
    ones = op.Expand(op.Constant(value_float=1.0), op.Shape(positions, start=0, end=1))
    return op.Greater(op.ScatterND(zeros, positions, ones), op.Constant(value_float=0.5))


def onnx_align_rois(features: Any, boxes: Any, batch_indices: Any, height: int, width: int, scale: float) -> Any:
    """`align_rois` in ONNX."""
    op = _opset()

    return op.RoiAlign(
        features,
        boxes,
        batch_indices,
        coordinate_transformation_mode="output_half_pixel",
        mode="avg",
        output_height=height,
        output_width=width,
        sampling_ratio=SAMPLES,
        spatial_scale=scale,
    )


def _opset() -> Any:
    # As Any: onnxscript's annotations describe eager tensors, here the operators build a graph.
    from onnxscript import opset20

    return opset20


def float32_below(value: float) -> float:
    """The largest float32 that is not above `value`.

    torchvision compares a float32 IoU with a float64 threshold; against this float32 the comparison `>` says the same.
    """
    rounded = np.float32(value)
    return float(rounded if float(rounded) <= value else np.nextafter(rounded, np.float32(-np.inf)))


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """For `torch.onnx.export(custom_translation_table=...)`."""
    operators = torch.ops.psarm
    return {operators.nms_mask.default: onnx_nms_mask, operators.align_rois.default: onnx_align_rois}
