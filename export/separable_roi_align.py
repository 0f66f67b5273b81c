"""RoIAlign as two matrix products, exact to torchvision's: no plugin, no gather, no shape that depends on data.

Bilinear interpolation is separable, and so is the mean over a bin's samples: columns and rows each have weights of
the map's cells, and a bin is rows' weights · map · columns' weights.

N images, C channels, h x w cells, R RoIs (P of each image), a x b bins.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from psarm.export.operators import SAMPLES


class SeparableRoIAlign(nn.Module):
    """`operators.align_rois` in plain tensor operators; the weights are computed in the boxes' precision."""

    def __init__(self, per_image: bool) -> None:
        """`per_image`: the boxes are P of each image, in the images' order, so that each sees its own map only."""
        super().__init__()
        self.per_image = per_image
        self.products = InterpolationProducts()

    def forward(
        self, features: Tensor, boxes: Tensor, batch_indices: Tensor, height: int, width: int, scale: float
    ) -> Tensor:
        """Features [N,C,h,w], boxes [R,4], image of each int64 [R] → [R,C,height,width]."""
        images, _, rows, columns = features.shape
        left, top, right, bottom = (boxes * scale).unbind(dim=1)
        by_column = cell_weights(left, right, width, columns)  # [R,b,w]
        by_row = cell_weights(top, bottom, height, rows)  # [R,a,h]
        if self.per_image:
            by_column = by_column.reshape(images, -1, columns)  # [N,Pb,w]
        else:
            own = batch_indices[:, None] == torch.arange(images, device=boxes.device)  # [R,N]
            by_column = torch.where(own[:, None, :, None], by_column[:, :, None], 0.0).flatten(2).flatten(0, 1)[None]
        return self.products(features, by_column, by_row, width)  # type: ignore[no-any-return]


class InterpolationProducts(nn.Module):
    """The two products; columns first, as there are more of them in landscape frames and each is left as few bins.

    The large tensor between them is laid out as both products want it, so that nothing has to be transposed but the
    features and the answer.
    """

    def forward(self, features: Tensor, by_column: Tensor, by_row: Tensor, width: int) -> Tensor:
        """Features [N,C,h,w], weights [N,Pb,w] (or [1,Rb,N·w]) and [R,a,h] → [R,C,a,b]."""
        _, channels, rows, _ = features.shape
        maps = features.permute(0, 3, 1, 2).reshape(by_column.shape[0], by_column.shape[2], channels * rows)
        columns = (by_column @ maps).reshape(-1, width * channels, rows)  # [R,bC,h]
        bins = columns @ by_row.transpose(1, 2)  # [R,bC,a]
        return bins.reshape(-1, width, channels, by_row.shape[1]).permute(0, 2, 3, 1)


def cell_weights(start: Tensor, end: Tensor, bins: int, cells: int) -> Tensor:
    """Weights of a map's cells along one side, for each bin the mean over its samples.

    `start`, `end` [R] in cells → [R,bins,cells]. In torchvision's order of operations, so that a sample at the map's
    very border falls on the same side of it: samples outside (below -1, above `cells`) weigh 0.
    """
    number = torch.arange(bins, device=start.device, dtype=start.dtype)[:, None]
    within = torch.arange(SAMPLES, device=start.device, dtype=start.dtype) + 0.5
    size = (end - start).clamp(min=1.0)[:, None, None] / bins  # [R,1,1]
    samples = start[:, None, None] + number * size + within * size / SAMPLES  # [R,bins,S]
    inside = (samples >= -1.0) & (samples <= cells)
    cell = torch.arange(cells, device=start.device, dtype=start.dtype)
    distances = (samples.clamp(min=0.0).clamp(max=cells - 1)[..., None] - cell).abs()
    weights = torch.where(inside[..., None], (1.0 - distances).clamp(min=0.0), 0.0)  # [R,bins,S,cells]
    return weights.sum(dim=2) / SAMPLES
