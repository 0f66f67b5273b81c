"""Box arithmetic inside the graphs: decoding and clipping, in torchvision's order of operations.

K boxes of N images, float xyxy in pixels of the resized images.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LARGEST_LOG_SCALE = math.log(1000.0 / 16)
"""torchvision's BoxCoder limits dw and dh to this before exp."""


def decode_boxes(deltas: Tensor, boxes: Tensor) -> Tensor:
    """Deltas (dx, dy, dw, dh) [...,4], already divided by the coder's weights, applied to boxes [...,4]."""
    sizes = boxes[..., 2:] - boxes[..., :2]
    centres = deltas[..., :2] * sizes + (boxes[..., :2] + 0.5 * sizes)
    halves = 0.5 * (torch.exp(deltas[..., 2:].clamp(max=LARGEST_LOG_SCALE)) * sizes)
    return torch.cat([centres - halves, centres + halves], dim=-1)


def clip_boxes(boxes: Tensor, image_sizes: Tensor) -> Tensor:
    """Boxes [N,K,4] cut to their image's valid (height, width), int64 [N,2]."""
    sizes = image_sizes.to(boxes.dtype).flip(1)  # [N,2]: width, height
    return torch.minimum(boxes.clamp(min=0), torch.cat([sizes, sizes], dim=1)[:, None])
