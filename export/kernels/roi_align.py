# mypy: allow-untyped-decorators
"""RoIAlign (not aligned, two samples a bin and side) in one pass: 16-bit or float32 maps, sums in float32.

torchvision's kernel takes boxes in the features' type, where half precision misplaces them, and gives channels first.
Here boxes, positions and weights are float32, and the answer has the memory layout of the features, so that channels
that come last are read and written in whole lines.

N images, C channels, h x w cells, R RoIs, a x b bins.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

SAMPLES = tl.constexpr(2)


def roi_align(
    features: Tensor,
    boxes: Tensor,
    batch_indices: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float,
    bias: Tensor | None = None,
) -> Tensor:
    """Features [N,C,h,w], xyxy boxes float32 [R,4], image of each int64 [R], bias [C] → [R,C,a,b].

    Type and memory layout (channels first or last) are those of the features. A RoI of an image outside 0…N-1 is zeros
    plus bias, and so are boxes that are not finite. `boxes` times `spatial_scale` are cells of the map.
    """
    count, channels = boxes.shape[0], features.shape[1]
    height, width = output_size
    last = features.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    out = torch.empty(
        (count, channels, height, width), dtype=features.dtype, device=features.device, memory_format=layout
    )
    if out.numel() == 0:
        return out
    bin_block, channel_block = (8, min(256, triton.next_power_of_2(channels))) if last else (32, 16)
    grid = (count, triton.cdiv(height * width, bin_block), triton.cdiv(channels, channel_block))
    _roi_align[grid](
        features,
        boxes.contiguous(),
        batch_indices.contiguous(),
        bias,
        out,
        *features.shape,
        *features.stride(),
        *out.stride(),
        spatial_scale,
        HEIGHT=height,
        WIDTH=width,
        CHANNELS_LAST=last,
        BIN_BLOCK=bin_block,
        CHANNEL_BLOCK=channel_block,
        num_warps=4,
        enable_fp_fusion=False,  # a sample at the map's very border falls on the side that it falls on in PyTorch
    )
    return out


@triton.jit
def _along(
    start: tl.tensor, end: tl.tensor, bins: tl.constexpr, number: tl.tensor, sample: tl.tensor, cells: tl.tensor
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Position of a bin's sample along one side: lower cell, upper cell, way to the upper one, whether it counts."""
    size = tl.math.div_rn(tl.maximum(end - start, 1.0), bins * 1.0)
    position = start + number * size + (sample + 0.5) * size / SAMPLES
    inside = (position >= -1.0) & (position <= cells)
    position = tl.where(inside, tl.minimum(tl.maximum(position, 0.0), cells - 1.0), 0.0)
    lower = position.to(tl.int32)
    return lower, tl.minimum(lower + 1, cells - 1), position - lower, inside


@triton.jit
def _roi_align(
    features: tl.tensor,
    boxes: tl.tensor,
    batch_indices: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    images: tl.tensor,
    channels: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    image_stride: tl.tensor,
    channel_stride: tl.tensor,
    row_stride: tl.tensor,
    column_stride: tl.tensor,
    out_roi_stride: tl.tensor,
    out_channel_stride: tl.tensor,
    out_row_stride: tl.tensor,
    out_column_stride: tl.tensor,
    scale: tl.tensor,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BIN_BLOCK: tl.constexpr,
    CHANNEL_BLOCK: tl.constexpr,
) -> None:
    """One RoI, some bins, some channels; what is contiguous in memory lies along the tile's last side."""
    roi = tl.program_id(0).to(tl.int64)
    bin_number = tl.program_id(1) * BIN_BLOCK + tl.arange(0, BIN_BLOCK)
    channel = tl.program_id(2) * CHANNEL_BLOCK + tl.arange(0, CHANNEL_BLOCK)
    if CHANNELS_LAST:
        bin_number, channel = bin_number[:, None], channel[None, :]
    else:
        bin_number, channel = bin_number[None, :], channel[:, None]
    row, column = bin_number // WIDTH, bin_number % WIDTH
    real = (bin_number < HEIGHT * WIDTH) & (channel < channels)

    image = tl.load(batch_indices + roi).to(tl.int64)
    there = (image >= 0) & (image < images)
    left = tl.load(boxes + roi * 4) * scale
    top = tl.load(boxes + roi * 4 + 1) * scale
    right = tl.load(boxes + roi * 4 + 2) * scale
    bottom = tl.load(boxes + roi * 4 + 3) * scale

    # In 64 bits where it may be needed: the image, and channels first; a cell's offset within a map is below 2^31.
    base = features + image * image_stride + channel.to(tl.int64) * channel_stride
    total = (tl.zeros_like(bin_number) + tl.zeros_like(channel)).to(tl.float32)
    for y in tl.static_range(SAMPLES):
        upper, lower, down, row_inside = _along(top, bottom, HEIGHT, row, y, rows)
        for x in tl.static_range(SAMPLES):
            first, second, across, column_inside = _along(left, right, WIDTH, column, x, columns)
            mask = real & there & row_inside & column_inside
            above, below = base + upper * row_stride, base + lower * row_stride
            first_offset, second_offset = first * column_stride, second * column_stride
            total += (1.0 - down) * (1.0 - across) * tl.load(above + first_offset, mask, 0.0).to(tl.float32)
            total += (1.0 - down) * across * tl.load(above + second_offset, mask, 0.0).to(tl.float32)
            total += down * (1.0 - across) * tl.load(below + first_offset, mask, 0.0).to(tl.float32)
            total += down * across * tl.load(below + second_offset, mask, 0.0).to(tl.float32)
    total = total / (SAMPLES * SAMPLES)
    if bias is not None:
        total += tl.load(bias + channel, channel < channels, 0.0).to(tl.float32)
    offset = channel * out_channel_stride + row * out_row_stride + column * out_column_stride
    tl.store(out + roi * out_roi_stride + offset, total.to(out.dtype.element_ty), real)
