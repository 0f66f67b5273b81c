"""Sizes that training, the model and the runtime have to agree on; imports nothing of psarm."""

from __future__ import annotations

import math


def resized_size(height: int, width: int, min_size: int, max_size: int) -> tuple[int, int]:
    """Height and width after resizing: the short side becomes `min_size` unless the long side would pass `max_size`.

    As torchvision's GeneralizedRCNNTransform, but a side never becomes less than one pixel (torchvision fails there).
    """
    scale = min(min_size / min(height, width), max_size / max(height, width))
    return max(1, math.floor(height * scale)), max(1, math.floor(width * scale))
