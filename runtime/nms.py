"""Greedy non-maximum suppression in numpy, equal to `torchvision.ops.nms` box for box."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def nms(boxes: NDArray[np.float32], scores: NDArray[np.float32], threshold: float) -> NDArray[np.int64]:
    """Indices of the boxes that survive, best score first; equal scores keep their order.

    `boxes` are float32 [n,4] xyxy, `scores` float32 [n]. A box falls when its IoU with a better survivor is above
    `threshold`. Areas and IoUs are float32 as in torchvision, and the comparison is in double as there.
    """
    order = np.argsort(-scores, kind="stable")
    x1, y1, x2, y2 = boxes[order].T
    areas = (x2 - x1) * (y2 - y1)
    alive = np.arange(len(order))  # positions in `order` still in the race, best first
    kept: list[int] = []
    zero = np.float32(0)
    while alive.size:
        best, alive = alive[0], alive[1:]
        kept.append(int(best))
        width = np.maximum(zero, np.minimum(x2[best], x2[alive]) - np.maximum(x1[best], x1[alive]))
        height = np.maximum(zero, np.minimum(y2[best], y2[alive]) - np.maximum(y1[best], y1[alive]))
        overlap = width * height
        with np.errstate(divide="ignore", invalid="ignore"):  # two empty boxes: 0/0 is no overlap
            iou = overlap / (areas[best] + areas[alive] - overlap)
        alive = alive[~(iou.astype(np.float64) > threshold)]
    return order[kept].astype(np.int64, copy=False)
