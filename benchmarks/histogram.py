"""Colour histograms as embeddings: the simple method that search must beat by far."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from psarm.errors import UsageError

# Bins of hue, saturation and value: one joint histogram of the whole box, 256 numbers.
BINS = (16, 4, 4)


def histogram_embeddings(image: NDArray[np.uint8], boxes: NDArray[Any]) -> NDArray[np.float32]:
    """HSV colour histogram of each box, of unit length, so that dot products are cosine similarities.

    Args:
        image: uint8 [H,W,3], BGR.
        boxes: [n,4] xyxy pixels; a box takes the pixels between its rounded edges inside the image, at least one.

    Returns:
        float32 [n,256].

    Raises:
        UsageError: `image` is not uint8 [H,W,3] with pixels in it.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise UsageError(f"the image is {image.dtype} of shape {list(image.shape)}; uint8 [H,W,3] in BGR is needed.")
    height, width = image.shape[:2]
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    edges = np.rint(np.asarray(boxes, np.float64).reshape(-1, 4)).astype(np.int64)
    first = np.clip(edges[:, :2], 0, [width - 1, height - 1])
    last = np.maximum(np.clip(edges[:, 2:], 0, [width, height]), first + 1)
    embeddings = np.empty((len(edges), int(np.prod(BINS))), np.float32)
    for row, ((x1, y1), (x2, y2)) in enumerate(zip(first, last, strict=True)):
        counts = cv2.calcHist([hsv[y1:y2, x1:x2]], [0, 1, 2], None, BINS, (0, 180, 0, 256, 0, 256)).ravel()
        embeddings[row] = counts / np.linalg.norm(counts)
    return embeddings
