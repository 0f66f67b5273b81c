"""Frames → one padded batch, as torchvision's `GeneralizedRCNNTransform` does it for the PyTorch model.

Sizes are equal; pixel values differ by the rounding of sample positions (float32 in torch): on white noise up to
5e-4 at 1080x1920, far less on pictures.

N frames, [H,W] the padded size of the batch. Frames are uint8 [h,w,3] BGR.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from psarm.geometry import resized_size
from psarm.runtime.manifest import Preprocessing

LARGE_FRAME_PIXELS = 1 << 25
"""Above this a float32 copy of the frame (12 bytes a pixel) is avoided."""


@dataclass(frozen=True, eq=False)
class Batch:
    """What the detect graph takes."""

    images: NDArray[np.float32]
    """[N,3,H,W], RGB, normalised, zero-padded at the right and the bottom."""
    image_sizes: NDArray[np.int64]
    """[N,2] valid height and width of each image."""


def make_batch(frames: Sequence[NDArray[np.uint8]], rule: Preprocessing) -> Batch:
    """Resize, normalise and pad frames of any sizes together."""
    sizes = [resized_size(frame.shape[0], frame.shape[1], rule.min_size, rule.max_size) for frame in frames]
    height, width = (_round_up(max(side), rule.size_divisor) for side in zip(*sizes, strict=True))
    images = np.zeros((len(frames), 3, height, width), np.float32)
    # Pixels lie in 0..255: x / 255 is normalised by mean and std, folded into one scale and one offset.
    scale = np.float32(1) / (np.float32(255) * np.asarray(rule.std, np.float32))
    offset = np.asarray(rule.mean, np.float32) / np.asarray(rule.std, np.float32)
    for image, frame, (valid_height, valid_width) in zip(images, frames, sizes, strict=True):
        resized = resize(frame, valid_height, valid_width)
        for channel in range(3):
            target = image[channel, :valid_height, :valid_width]
            np.multiply(resized[..., 2 - channel], scale[channel], out=target)  # BGR → RGB
            target -= offset[channel]
    return Batch(images, np.asarray(sizes, np.int64))


def resize(frame: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float32]:
    """Bilinear without antialiasing, half-pixel centres, in float32: [h,w,3] → [height,width,3]."""
    if frame.shape[0] * frame.shape[1] > LARGE_FRAME_PIXELS:
        return _resize_large(frame, height, width)
    resized = cv2.resize(frame.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.float32)


def _resize_large(frame: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float32]:
    """As `resize`, reading only the pixels that take part, so that memory follows the small result."""
    top, bottom, down = _neighbours(frame.shape[0], height)
    left, right, across = _neighbours(frame.shape[1], width)

    def row_pixels(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        first = frame[rows[:, None], left].astype(np.float32)  # [height,width,3]
        second = frame[rows[:, None], right].astype(np.float32)
        return first + (second - first) * across[:, None]

    upper = row_pixels(top)
    return upper + (row_pixels(bottom) - upper) * down[:, None, None]


def _neighbours(size: int, new_size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """For each new position: the two source positions, and how far it lies from the first towards the second."""
    centres = np.maximum((np.arange(new_size) + 0.5) * (size / new_size) - 0.5, 0.0)
    first = np.minimum(centres.astype(np.int64), size - 1)
    return first, np.minimum(first + 1, size - 1), (centres - first).astype(np.float32)


def _round_up(value: int, divisor: int) -> int:
    return math.ceil(value / divisor) * divisor
