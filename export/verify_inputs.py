"""Inputs for verification: textured frames, batches and boxes that graphs get wrong when they are wrong.

Everything is random under a given generator. Frames are uint8 [h,w,3] BGR, boxes float32 xyxy.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class BatchCase:
    """A padded batch as the detect graph takes it."""

    name: str
    images: Tensor  # [N,3,H,W]
    sizes: list[Size]


def make_frame(height: int, width: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Smooth coloured blobs of several scales with a little noise: RPN and heads answer differently everywhere."""
    frame = rng.normal(0, 8, (height, width, 3)).astype(np.float32) + 128
    for cell in (8, 32, 96):
        coarse = rng.normal(0, 40, (height // cell + 2, width // cell + 2, 3)).astype(np.float32)
        frame += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(frame, 0, 255).astype(np.uint8)


def batch_cases(rng: np.random.Generator) -> list[BatchCase]:
    """Batches of other sizes than the traced one, with as few as four cells and with almost nothing but padding."""
    return [
        BatchCase("one image", *_batch([(224, 160)], (224, 160), rng)),
        BatchCase("3 images, mixed sizes", *_batch([(160, 250), (97, 256), (20, 31)], (160, 256), rng)),
        BatchCase("smallest image", *_batch([(30, 17)], (32, 32), rng)),
    ]


def border_boxes(size: Size, padded: Size, rng: np.random.Generator) -> Tensor:
    """Boxes [r,4] at all borders of an image of `size` padded to `padded`; thin, tiny and ordinary ones."""
    height, width = size
    bottom, right = padded
    corners = rng.uniform(0, 1, (6, 2, 2)) * np.asarray([width, height])
    ordinary = np.concatenate([corners.min(axis=1), corners.max(axis=1) + 1], axis=1)
    special = [
        [0, 0, width, height],
        [0, 0, 9, 12],
        [width / 2, 0, width, height],
        [width - 3, 2, width, height],  # narrower than a cell, at the right border
        [right - 2.5, 1, right, bottom],  # the same at the border of the map
        [0, bottom - 2.5, right, bottom],
        [0, height / 3, width, height / 3 + 1],
        [width / 2, height / 2, width / 2 + 0.5, height / 2 + 0.5],
    ]
    return torch.from_numpy(np.concatenate([ordinary, np.asarray(special)]).astype(np.float32))


def _batch(sizes: list[Size], padded: Size, rng: np.random.Generator) -> tuple[Tensor, list[Size]]:
    images = torch.zeros(len(sizes), 3, *padded)
    for image, (height, width) in zip(images, sizes, strict=True):
        frame = torch.from_numpy(make_frame(height, width, rng)).permute(2, 0, 1)
        image[:, :height, :width] = (frame - 128) / 60
    return images, sizes
