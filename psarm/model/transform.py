"""Images to a batch: torchvision's resizing, normalising and padding, the latter the same in all processes."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from psarm.model.processes import max_across


class Transform(GeneralizedRCNNTransform):  # type: ignore[misc]  # torchvision has no types
    """In training a batch is as large as the largest image of all processes.

    BatchNorms and anchors see the padding, so it is part of what is learned from.
    """

    def batch_images(self, images: list[Tensor], size_divisible: int = 32) -> Tensor:
        """A list of [3,h,w] → [N,3,H,W], zeros right and below."""
        if self.training:
            sizes = [max(image.shape[axis] for image in images) for axis in (1, 2)]
            height, width = max_across(sizes, images[0].device)
            first = images[0]
            padding = (0, width - first.shape[2], 0, height - first.shape[1])
            images = [functional.pad(first, padding), *images[1:]]
        return super().batch_images(images, size_divisible)  # type: ignore[no-any-return]
