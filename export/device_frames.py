"""Frames made into the detect graph's input by torch, on the device, as `psarm.runtime.preprocess` does on the host.

What travels to the device are the frames' bytes, a quarter of what the host would send after resizing.

N frames, h x w their pixels, H' x W' after resizing, [H,W] padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from psarm.geometry import resized_size
from psarm.runtime.manifest import Preprocessing

Size = tuple[int, int]


class FrameResizer(nn.Module):
    """Frames of one size → images resized and normalised."""

    scale: Tensor
    offset: Tensor

    def __init__(self, frame: Size, resized: Size, rule: Preprocessing) -> None:
        """`frame` and `resized`: height and width."""
        super().__init__()
        self.rows, self.columns = (Interpolation(*sizes) for sizes in zip(frame, resized, strict=True))
        mean, std = (torch.tensor(values, dtype=torch.float32) for values in (rule.mean, rule.std))
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("offset", mean / std, persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 [N,h,w,3] BGR → float32 [N,3,H',W'] RGB; in memory channels come last."""
        both: Tensor = self.rows(self.columns(frames, 2), 1)
        return (both.flip(3) * self.scale - self.offset).permute(0, 3, 1, 2)


class Interpolation(nn.Module):
    """Bilinear interpolation along one axis."""

    first: Tensor
    second: Tensor
    towards: Tensor

    def __init__(self, size: int, new_size: int) -> None:
        super().__init__()
        for name, values in zip(("first", "second", "towards"), neighbours(size, new_size), strict=True):
            self.register_buffer(name, values, persistent=False)

    def forward(self, values: Tensor, axis: int) -> Tensor:
        """[N,h,w,3] of any type → float32, the axis resized."""
        start = values.index_select(axis, self.first).float()
        weights = self.towards.reshape([-1 if other == axis else 1 for other in range(4)])
        return start + (values.index_select(axis, self.second).float() - start) * weights


def neighbours(size: int, new_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each new position: the two source positions, int64, and how far it lies from the first towards the second."""
    centres = ((torch.arange(new_size, dtype=torch.float64) + 0.5) * (size / new_size) - 0.5).clamp(min=0)
    first = centres.long().clamp(max=size - 1)
    return first, (first + 1).clamp(max=size - 1), (centres - first).float()


class FrameUploader:
    """Frames of any sizes → one padded batch on the device; resizers and pinned buffers are kept for the next call."""

    KEPT = 16
    """Frame sizes for which these are kept."""

    def __init__(self, rule: Preprocessing, device: torch.device, kernels: bool = False) -> None:
        """`kernels`: let psarm's Triton kernel resize, in one pass."""
        self.rule = rule
        self.device = device
        self.kernels = kernels
        self._resizers: dict[Size, FrameResizer] = {}
        self._staged: dict[tuple[int, int, Size], tuple[Tensor, torch.cuda.Event]] = {}

    def __call__(self, frames: Sequence[NDArray[np.uint8]]) -> tuple[Tensor, NDArray[np.int64]]:
        """Frames uint8 [h,w,3] BGR → images float32 [N,3,H,W] on the device, valid sizes int64 [N,2] on the host."""
        rule = self.rule
        sizes = [resized_size(frame.shape[0], frame.shape[1], rule.min_size, rule.max_size) for frame in frames]
        height, width = (-(-max(side) // rule.size_divisor) * rule.size_divisor for side in zip(*sizes, strict=True))
        if len({frame.shape[:2] for frame in frames}) == 1:
            groups = [(frames, sizes[0])]  # in one go
        else:
            groups = [([frame], size) for frame, size in zip(frames, sizes, strict=True)]
        batch = torch.zeros(len(frames), 3, height, width, device=self.device)
        batch = batch.contiguous(memory_format=torch.channels_last)
        done = 0
        for number, (group, size) in enumerate(groups):
            self._fill(batch[done : done + len(group)], self._upload(group, number), size)
            done += len(group)
        return batch, np.asarray(sizes, np.int64)

    def _fill(self, images: Tensor, frames: Tensor, size: Size) -> None:
        """Write frames [N,h,w,3], resized to `size`, into the left upper corners of images [N,3,H,W]."""
        if self.kernels:
            from psarm.export.kernels.frames import normalise_frames

            normalise_frames(frames, size, self.rule.mean, self.rule.std, images)
        else:
            shape = (frames.shape[1], frames.shape[2])
            images[:, :, : size[0], : size[1]] = self._resizer(shape, size)(frames)

    def _upload(self, frames: Sequence[NDArray[np.uint8]], number: int) -> Tensor:
        """The frames [N,h,w,3] on the device; `number` tells buffers apart that are under way at the same time."""
        if self.device.type != "cuda":
            return torch.from_numpy(np.stack(frames)).to(self.device)
        key = (number, len(frames), frames[0].shape[:2])
        if key not in self._staged:
            self._forget(self._staged)
            pinned = torch.empty((len(frames), *frames[0].shape), dtype=torch.uint8, pin_memory=True)
            self._staged[key] = (pinned, torch.cuda.Event())  # type: ignore[no-untyped-call]
        pinned, gone = self._staged[key]
        gone.synchronize()  # what it held before may still be on its way
        np.stack(frames, out=pinned.numpy())
        uploaded = pinned.to(self.device, non_blocking=True)
        gone.record()
        return uploaded

    def _resizer(self, frame: Size, resized: Size) -> FrameResizer:
        if frame not in self._resizers:
            self._forget(self._resizers)
            self._resizers[frame] = FrameResizer(frame, resized, self.rule).to(self.device)
        return self._resizers[frame]

    def _forget(self, kept: dict[Any, Any]) -> None:
        while len(kept) >= self.KEPT:
            kept.pop(next(iter(kept)))
