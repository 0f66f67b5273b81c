"""Non-maximum suppression with static shapes: no plugin, no loop, no shape that depends on data.

Whether a box survives depends on better boxes only. Starting from all boxes, a sweep lets each box survive that no
box of the sweep before overlaps. Every sweep settles at least the first box that is not settled, and what two sweeps
running say alike up to some box is the answer up to that box. Chains of overlaps need a sweep a link; in practice few
do, and the answer says how far it is settled.

N images, K boxes of each. Boxes are float xyxy.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from psarm.export.operators import float32_below


class StaticNms(nn.Module):
    """`operators.nms_mask` in plain tensor operators, as far as a fixed number of sweeps settles it."""

    def __init__(self, threshold: float, sweeps: int) -> None:
        """Suppress boxes whose IoU with a better survivor is above `threshold`."""
        super().__init__()
        self.threshold = threshold
        self.sweeps = sweeps

    def forward(self, boxes: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes [N,K,4] sorted best first, valid bool [N,K] (others are ignored).

        Returns which survive, bool [N,K], and which of these answers are final, bool [N,K]: the first ones up to some
        box, mostly all.
        """
        number = torch.arange(boxes.shape[1], device=boxes.device, dtype=torch.float32)
        better = number < number[:, None]  # [K,K]
        suppressed_by = self._matrix(better & (overlaps(boxes) > self._limit(boxes.dtype)))  # [N,K,K]
        before = last = valid
        for _ in range(self.sweeps):
            before, last = last, valid & (self._hits(suppressed_by, last) < 0.5)
        unsettled = torch.where(last == before, boxes.shape[1], number)
        return last, number < unsettled.amin(dim=1, keepdim=True)

    def _matrix(self, suppressed_by: Tensor) -> Tensor:
        """Bool [N,K,K] as `_hits` takes it."""
        return suppressed_by

    def _hits(self, suppressed_by: Tensor, last: Tensor) -> Tensor:
        """How many survivors [N,K] of the sweep before overlap each box, [N,K]."""
        # Not a product of matrices: for TensorRT this is one kernel a sweep, and reads bytes.
        return torch.where(suppressed_by & last[:, None], 1.0, 0.0).sum(dim=2)

    def _limit(self, dtype: torch.dtype) -> float:
        """What torchvision's comparison with a float64 threshold amounts to in `dtype`."""
        return float32_below(self.threshold) if dtype == torch.float32 else self.threshold


class ProductNms(StaticNms):
    """The same with a matrix product a sweep: what torch's own kernels are fastest in on a GPU."""

    def _matrix(self, suppressed_by: Tensor) -> Tensor:
        # Sums of ones are added up in float32 and rounded once: in half, too, none but 0 is below 0.5.
        return suppressed_by.to(torch.float16 if suppressed_by.is_cuda else torch.float32)

    def _hits(self, suppressed_by: Tensor, last: Tensor) -> Tensor:
        return torch.bmm(suppressed_by, last.to(suppressed_by.dtype)[..., None])[..., 0]


def overlaps(boxes: Tensor) -> Tensor:
    """IoU of each two boxes of an image, [N,K,4] → [N,K,K], in torchvision's order of operations; 0 for 0 / 0."""
    sides = boxes[..., 2:] - boxes[..., :2]
    areas = sides[..., 0] * sides[..., 1]
    row, column = boxes[:, :, None], boxes[:, None]  # [N,K,1,4], [N,1,K,4]
    width = (torch.minimum(row[..., 2], column[..., 2]) - torch.maximum(row[..., 0], column[..., 0])).clamp(min=0.0)
    height = (torch.minimum(row[..., 3], column[..., 3]) - torch.maximum(row[..., 1], column[..., 1])).clamp(min=0.0)
    both = width * height
    union = areas[:, :, None] + areas[:, None] - both
    return both / union.clamp(min=torch.finfo(boxes.dtype).tiny)
