"""What the kernels compute, in PyTorch's own operators: functions of the same names, arguments and answers.

They need no triton, run on any device and are what the kernels are tested and timed against.

N images, C channels, R RoIs, T = H·W tokens, K boxes of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from psarm.export.operators import align_rois, nms_mask
from psarm.model.arm import simam


def roi_align(
    features: Tensor,
    boxes: Tensor,
    batch_indices: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float,
    bias: Tensor | None = None,
) -> Tensor:
    """As `roi_align.roi_align`, for images that are there."""
    aligned: Tensor = align_rois(features.float(), boxes, batch_indices, *output_size, spatial_scale)
    if bias is not None:
        aligned = aligned + bias[:, None, None]
    last = features.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return aligned.to(features.dtype).contiguous(memory_format=layout)


def nms(boxes: Tensor, valid: Tensor, threshold: float, limit: int) -> tuple[Tensor, Tensor]:
    """As `suppression.nms`; reads back from the device."""
    mask = nms_mask(boxes, valid, threshold, limit)
    kept = torch.full((len(boxes), limit), -1, dtype=torch.int64, device=boxes.device)
    for row, image in zip(kept, mask, strict=True):
        [survivors] = torch.where(image)
        row[: len(survivors)] = survivors
    return kept, mask.sum(dim=1)


def normalise_frames(
    frames: Tensor, resized: tuple[int, int], mean: Sequence[float], std: Sequence[float], out: Tensor
) -> Tensor:
    """As `frames.normalise_frames`; positions are rounded to float32."""
    planes = frames.permute(0, 3, 1, 2).flip(1).float()  # RGB
    images = functional.interpolate(planes, size=resized, mode="bilinear", align_corners=False)
    average, deviation = (torch.tensor(values, device=frames.device)[:, None, None] for values in (mean, std))
    out.zero_()
    out[:, :, : resized[0], : resized[1]] = (images / 255 - average) / deviation
    return out


def pool(
    x: Tensor,
    over: Literal["channels", "tokens"],
    scrambled: bool,
    addend: Tensor | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As `mixer.pool`."""
    if addend is not None:
        x = (x.float() + addend.float() + (0.0 if bias is None else bias[:, None])).to(x.dtype)
    cells = _cells(x, scrambled)  # [R,C,T]
    axis = 1 if over == "channels" else 2
    return x, torch.stack([cells.amax(dim=axis), cells.mean(dim=axis)], dim=1)


def gate_norm(
    x: Tensor, logits: Tensor | None, scrambled: bool, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> Tensor:
    """As `mixer.gate_norm`."""
    gated = x.float()
    if logits is not None:
        gated = _cells(x, scrambled).transpose(1, 2) * torch.sigmoid(logits)
        if scrambled:
            gated = gated + x
    return functional.layer_norm(gated, (x.shape[2],), weight, bias, eps).to(dtype)


def bias_gelu_(x: Tensor, bias: Tensor) -> Tensor:
    """As `mixer.bias_gelu_`."""
    return x.copy_(functional.gelu(x.float() + bias[:, None]))


def add_simam(x: Tensor, tokens: Tensor, mixed: Tensor, scrambled: bool, attend: bool, reuse: bool) -> Tensor:
    """As `mixer.add_simam`."""
    total = _cells(tokens, scrambled) + _cells(mixed, scrambled)  # [R,C,T]
    cells = _cells(x, False)
    if attend:
        total = total + simam(cells[..., None])[..., 0]
    if reuse:
        total = total + cells
    return total.transpose(1, 2).to(x.dtype).contiguous()


def _cells(tokens: Tensor, scrambled: bool) -> Tensor:
    """[R,T,C] → float32 [R,C,T], transposed or with its memory reinterpreted."""
    if scrambled:
        return tokens.float().reshape(tokens.shape[0], tokens.shape[2], tokens.shape[1])
    return tokens.float().transpose(1, 2)
