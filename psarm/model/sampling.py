"""Which RoIs a head is trained on: matching to the ground truth and balanced sampling (section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection import _utils as det_utils
from torchvision.ops import boxes as box_ops

from psarm.model.oim import BACKGROUND

RPN_STREAM, DETECTION_STREAM, REID_STREAM = 0, 1, 2
"""Which draws by the seed of an image are whose; a cascade's further re-id head has the next one."""


class BalancedSampler:
    """Draws positives and negatives of one image: a fixed number, a fraction of them positive at most.

    Without a seed it draws what torchvision's BalancedPositiveNegativeSampler does. With one, what it draws does not
    depend on what was drawn before, and so not on which other images the process has.
    """

    def __init__(self, batch_size_per_image: int, positive_fraction: float) -> None:
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction

    def sample(self, labels: Tensor, target: dict[str, Tensor], stream: int) -> tuple[Tensor, Tensor]:
        """Indices of the positives and negatives drawn, unsorted.

        Args:
            labels: [r] above 0 positive, 0 negative, below 0 neither.
            target: of the image; its `seed` (int64 scalar) may be missing.
            stream: other streams draw something else from the same seed.
        """
        generator = None
        if "seed" in target:
            # Hashed: of a seed itself, torch's generator takes no more than 32 bits.
            hashed = np.random.SeedSequence([int(target["seed"]) % 2**64, stream]).generate_state(1)
            generator = torch.Generator().manual_seed(int(hashed[0]))
        positive, negative = torch.where(labels >= 1)[0], torch.where(labels == 0)[0]
        positives = min(len(positive), int(self.batch_size_per_image * self.positive_fraction))
        negatives = min(len(negative), self.batch_size_per_image - positives)
        return _draw(positive, positives, generator), _draw(negative, negatives, generator)


def _draw(candidates: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    # Seeded draws are made on the CPU, and so are the same on every device.
    device = candidates.device if generator is None else torch.device("cpu")
    chosen = torch.randperm(len(candidates), generator=generator, device=device)[:count]
    return candidates[chosen.to(candidates.device)]


@dataclass
class RoITargets:
    """Sampled RoIs of a batch with what each head should answer."""

    boxes: list[Tensor]  # [r,4] an image
    labels: Tensor  # [R] 0…C-1, -1 unlabelled person, -2 background
    deltas: Tensor  # [R,4] towards the matched ground truth


class RoISampler:
    """Ground truth joins the RoIs; IoU ≥ 0.5 is positive; half of a fixed number are positive at most."""

    def __init__(self, batch_size: int, box_coder: det_utils.BoxCoder) -> None:
        self.matcher = det_utils.Matcher(0.5, 0.5, allow_low_quality_matches=False)
        self.sampler = BalancedSampler(batch_size, 0.5)
        self.box_coder = box_coder

    @torch.no_grad()
    def sample(self, boxes: list[Tensor], targets: list[dict[str, Tensor]], stream: int) -> RoITargets:
        """RoIs [r,4] and targets (boxes [n,4], labels [n], maybe a seed) of every image → sampled RoIs with targets."""
        chosen, labels, matched = [], [], []
        for image_boxes, target in zip(boxes, targets, strict=True):
            rois = torch.cat([image_boxes, target["boxes"]])
            roi_labels, roi_matched = self._match(rois, target)
            drawn = self.sampler.sample((roi_labels != BACKGROUND).long(), target, stream)
            keep = torch.cat(drawn).sort().values
            chosen.append(rois[keep])
            labels.append(roi_labels[keep])
            matched.append(roi_matched[keep])
        deltas = torch.cat(self.box_coder.encode(matched, chosen))
        return RoITargets(chosen, torch.cat(labels), deltas)

    def _match(self, rois: Tensor, target: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        if len(target["boxes"]) == 0:
            return rois.new_full((len(rois),), BACKGROUND, dtype=torch.int64), rois
        index = self.matcher(box_ops.box_iou(target["boxes"], rois))
        labels = target["labels"][index.clamp(min=0)]
        labels = torch.where(index >= 0, labels, torch.full_like(labels, BACKGROUND))
        return labels, target["boxes"][index.clamp(min=0)]
