# mypy: allow-untyped-decorators
"""uint8 frames → the network's input in one pass: resize, BGR → RGB, normalise and pad.

Each byte of a frame that takes part is read once or twice from the cache, each value of the input written once, in its
own type. The rule is `psarm.runtime.preprocess`'s; source positions are found in whole numbers, so that only the
weights are rounded.

N frames, h x w their pixels, H' x W' after resizing, [H,W] padded.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

LARGEST_SIDE = (1 << 15) - 1
"""Positions are computed in 32 bits."""


def normalise_frames(
    frames: Tensor, resized: tuple[int, int], mean: Sequence[float], std: Sequence[float], out: Tensor
) -> Tensor:
    """Frames uint8 [N,h,w,3] BGR → `out` [N,3,H,W] RGB, all of it written and returned.

    Bilinear without antialiasing to `resized` (H', W'), (x / 255 - mean) / std, zeros at the right and the bottom.
    `out` is float32, float16 or bfloat16 of any strides. Raises `ValueError` for sides above 32767 and for an `out` of
    another number of images or smaller than `resized`.
    """
    images, height, width, _ = frames.shape
    if max(height, width, *resized) > LARGEST_SIDE:
        raise ValueError(f"Frames of {height} x {width} to {resized}: sides of up to {LARGEST_SIDE} pixels are taken.")
    if out.shape[:2] != (images, 3) or out.shape[2] < resized[0] or out.shape[3] < resized[1]:
        raise ValueError(
            f"{images} frames resized to {resized} do not fit into the shape {tuple(out.shape)}; needed one of "
            f"[{images}, 3, {resized[0]} or more, {resized[1]} or more]."
        )
    if out.numel() == 0:
        return out
    factors = [1 / (255 * deviation) for deviation in std]
    offsets = [average / deviation for average, deviation in zip(mean, std, strict=True)]
    block = 256
    _normalise_frames[(triton.cdiv(out.shape[3], block), out.shape[2], images)](
        frames.contiguous(),
        out,
        height,
        width,
        *resized,
        out.shape[3],
        *out.stride(),
        *factors,
        *offsets,
        BLOCK=block,
        num_warps=4,
    )
    return out


@triton.jit
def _neighbours(position: tl.tensor, size: tl.tensor, new_size: tl.tensor) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Source positions of a new one, and how far it lies from the first towards the second."""
    centre = tl.maximum((2 * position + 1) * size - new_size, 0)  # in units of 1 / (2 * new_size)
    first = tl.minimum(centre // (2 * new_size), size - 1)
    towards = (centre - first * (2 * new_size)).to(tl.float32) / (2 * new_size)
    return first, tl.minimum(first + 1, size - 1), towards


@triton.jit
def _normalise_frames(
    frames: tl.tensor,
    out: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    new_height: tl.tensor,
    new_width: tl.tensor,
    columns: tl.tensor,
    image_stride: tl.tensor,
    channel_stride: tl.tensor,
    row_stride: tl.tensor,
    column_stride: tl.tensor,
    red_factor: tl.tensor,
    green_factor: tl.tensor,
    blue_factor: tl.tensor,
    red_offset: tl.tensor,
    green_offset: tl.tensor,
    blue_offset: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """Some pixels of one row of one image."""
    image, row = tl.program_id(2).to(tl.int64), tl.program_id(1)
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = (column < new_width) & (row < new_height)
    top, bottom, down = _neighbours(row, height, new_height)
    left, right, across = _neighbours(column, width, new_width)
    upper = frames + (image * height + top) * width * 3
    lower = frames + (image * height + bottom) * width * 3
    target = out + image * image_stride + row.to(tl.int64) * row_stride + column.to(tl.int64) * column_stride
    for channel in tl.static_range(3):
        blue = 2 - channel
        first = tl.load(upper + left * 3 + blue, inside, 0).to(tl.float32)
        first += (tl.load(upper + right * 3 + blue, inside, 0).to(tl.float32) - first) * across
        second = tl.load(lower + left * 3 + blue, inside, 0).to(tl.float32)
        second += (tl.load(lower + right * 3 + blue, inside, 0).to(tl.float32) - second) * across
        value = first + (second - first) * down
        if channel == 0:
            value = value * red_factor - red_offset
        elif channel == 1:
            value = value * green_factor - green_offset
        else:
            value = value * blue_factor - blue_offset
        value = tl.where(inside, value, 0.0)
        tl.store(target + channel * channel_stride, value.to(out.dtype.element_ty), column < columns)
