"""The two RoI heads of SeqNet and PS-ARM: the detection head, then the re-id head on the boxes it predicted (Fig. 2).

N images, R RoIs (all images together), n people of one image, C channels, D embedding dimensions. Boxes are float [R,4]
xyxy in pixels of the resized image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection import _utils as det_utils
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.ops import boxes as box_ops
from torchvision.ops import roi_align

from psarm.model.arm import Arm
from psarm.model.backbone import STRIDE
from psarm.model.nae import NormAwareEmbedding
from psarm.model.oim import BACKGROUND, OnlineInstanceMatching
from psarm.model.sampling import RoISampler, RoITargets

Sizes = list[tuple[int, int]]
MIN_BOX_SIDE = 1e-2  # pixels; smaller boxes are dropped after either head


class RoIFeatures(nn.Module):
    """ARM (or nothing) and res5 over RoI features, each max-pooled: the trunk of one head."""

    def __init__(self, arm: Arm | None, res5: nn.Sequential) -> None:
        super().__init__()
        self.arm = arm
        self.layer4 = res5

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[R,C,h,w] → maxima of what enters res5 [R,C] and of what leaves it [R,C5]."""
        if self.arm is not None:
            x = self.arm(x)
        deep: Tensor = self.layer4(x)
        return x.amax(dim=(2, 3)), deep.amax(dim=(2, 3))


class RoIAlign(nn.Module):
    """RoIAlign on the stride-16 map, two samples a bin, not aligned (the released setting)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, features: Tensor, boxes: list[Tensor]) -> Tensor:
        """[N,C,H,W] and a list of [r,4] → [R,C,size,size]."""
        pooled: Tensor = roi_align(
            features, boxes, self.size, spatial_scale=1 / STRIDE, sampling_ratio=2, aligned=False
        )
        return pooled


class BoxRegressor(nn.Sequential):
    """Linear + BatchNorm ("bn neck") to two classes' box deltas."""

    def __init__(self, channels: int) -> None:
        linear = nn.Linear(channels, 8)
        nn.init.normal_(linear.weight, std=0.01)
        nn.init.zeros_(linear.bias)
        super().__init__(linear, nn.BatchNorm1d(8))


@dataclass
class People:
    """People of one image between the heads and at the end, in pixels of the resized image."""

    boxes: Tensor  # [n,4]
    scores: Tensor  # [n]
    embeddings: Tensor  # [n,D]


class PersonSearchHeads(nn.Module):
    """Detection head, NMS, re-id head, NMS; and the five losses of the two heads."""

    def __init__(
        self,
        box_head: RoIFeatures,
        faster_rcnn_predictor: FastRCNNPredictor,
        reid_head: RoIFeatures,
        box_predictor: BoxRegressor,
        embedding_head: NormAwareEmbedding,
        reid_loss: OnlineInstanceMatching,
        roi_align: RoIAlign,
        sampler: RoISampler,
        score_thresh: float,
        detection_nms_thresh: float,
        final_nms_thresh: float,
        detections_per_image: int,
    ) -> None:
        super().__init__()
        self.box_head = box_head
        self.faster_rcnn_predictor = faster_rcnn_predictor
        self.reid_head = reid_head
        self.box_predictor = box_predictor
        self.embedding_head = embedding_head
        self.reid_loss = reid_loss
        self.roi_align = roi_align
        self.sampler = sampler
        self.box_coder = sampler.box_coder
        self.score_thresh = score_thresh
        self.detection_nms_thresh = detection_nms_thresh
        self.final_nms_thresh = final_nms_thresh
        self.detections_per_image = detections_per_image

    def losses(
        self, features: Tensor, proposals: list[Tensor], sizes: Sizes, targets: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Losses of both heads; `targets` hold boxes [n,4] and labels [n] (-1 = person without identity)."""
        first = self.sampler.sample(proposals, targets)
        class_logits, deltas = self.detection_outputs(features, first.boxes)
        with torch.no_grad():
            # RoIAlign reads outside the map where a box is NaN; the losses of this head still carry the NaN out.
            refined = self.decode_foreground(deltas.detach().nan_to_num(), first.boxes, sizes)
        second = self.sampler.sample(refined, targets)
        reid_deltas, embeddings, person_logits = self.reid_outputs(features, second.boxes)
        is_person = second.labels != BACKGROUND
        return {
            "detection_cls": functional.cross_entropy(class_logits, (first.labels != BACKGROUND).long()),
            "detection_reg": box_loss(deltas, first),
            "reid_cls": functional.binary_cross_entropy_with_logits(person_logits, is_person.to(person_logits.dtype)),
            "reid_reg": box_loss(reid_deltas, second),
            "oim": self.reid_loss(embeddings, second.labels),
        }

    def detect(
        self, features: Tensor, proposals: list[Tensor], sizes: Sizes, given: list[Tensor] | None = None
    ) -> list[People]:
        """People of every image, best first.

        With `given` (one box [1,4] an image) the image is a query's context (for CBGM): the box is forced in with
        score 1 and comes first, and embeddings are not weighted by the score.
        """
        class_logits, deltas = self.detection_outputs(features, proposals)
        scores = torch.split(functional.softmax(class_logits, dim=-1)[:, 1], [len(p) for p in proposals])
        boxes = self.decode_foreground(deltas, proposals, sizes)
        kept = [self._between_heads(b, s) for b, s in zip(boxes, scores, strict=True)]
        people = [self._sift(p) for p in self._refine(features, kept, sizes, weighted=given is None)]
        if given is not None:
            forced = self.embed(features, given)
            people = [self._with_given(p, box, e) for p, box, e in zip(people, given, forced, strict=True)]
        return [self._final_nms(p) for p in people]

    def embed(self, features: Tensor, boxes: list[Tensor]) -> list[Tensor]:
        """Unit embeddings [n,D] of given boxes, one tensor an image."""
        counts = [len(b) for b in boxes]
        if sum(counts) == 0:
            return [features.new_zeros(0, self.embedding_dim) for _ in boxes]
        _, embeddings, _ = self.reid_outputs(features, boxes)
        return list(torch.split(embeddings, counts))

    @property
    def embedding_dim(self) -> int:
        """D."""
        return int(self.reid_loss.lut.shape[1])

    def detection_outputs(self, features: Tensor, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits [R,2] and deltas [R,8] of the detection head."""
        _, res5 = self.box_head(self.roi_align(features, boxes))
        logits, deltas = self.faster_rcnn_predictor(res5)
        return logits, deltas

    def reid_outputs(self, features: Tensor, boxes: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Deltas [R,8], unit embeddings [R,D] and person logits [R] of the re-id head."""
        res4, res5 = self.reid_head(self.roi_align(features, boxes))
        embeddings, logits = self.embedding_head(res4, res5)
        return self.box_predictor(res5), embeddings, logits

    def decode_foreground(self, deltas: Tensor, boxes: list[Tensor], sizes: Sizes) -> list[Tensor]:
        """Foreground deltas [R,8] applied to boxes and clipped to the images."""
        decoded = self.box_coder.decode(deltas, boxes)[:, 1]
        parts = torch.split(decoded, [len(b) for b in boxes])
        return [box_ops.clip_boxes_to_image(part, size) for part, size in zip(parts, sizes, strict=True)]

    def _between_heads(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        keep = self._candidates(boxes, scores)
        order = box_ops.nms(boxes[keep], scores[keep], self.detection_nms_thresh)[: self.detections_per_image]
        return boxes[keep[order]], scores[keep[order]]

    def _candidates(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """Indices of what scores above the threshold and has some width and height."""
        keep = torch.where(scores > self.score_thresh)[0]
        return keep[box_ops.remove_small_boxes(boxes[keep], MIN_BOX_SIDE)]

    def _refine(
        self, features: Tensor, kept: list[tuple[Tensor, Tensor]], sizes: Sizes, weighted: bool
    ) -> list[People]:
        boxes, scores = [b for b, _ in kept], [s for _, s in kept]
        if sum(map(len, boxes)) == 0:
            nobody = features.new_zeros(0, self.embedding_dim)
            return [People(b, s, nobody) for b, s in kept]
        deltas, embeddings, _ = self.reid_outputs(features, boxes)
        if weighted:
            embeddings = embeddings * torch.cat(scores)[:, None]
        refined = self.decode_foreground(deltas, boxes, sizes)
        parts = torch.split(embeddings, [len(b) for b in boxes])
        return [People(b, s, e) for b, s, e in zip(refined, scores, parts, strict=True)]

    def _sift(self, people: People) -> People:
        # Before a given box joins, which stays whatever the threshold. Clipping leaves no width of a box refined out of
        # the image.
        keep = self._candidates(people.boxes, people.scores)
        return People(people.boxes[keep], people.scores[keep], people.embeddings[keep])

    def _with_given(self, people: People, box: Tensor, embedding: Tensor) -> People:
        # In front: a stable sort then keeps it first even beside a detection whose score rounds to 1.
        return People(
            torch.cat([box, people.boxes]),
            torch.cat([people.scores.new_ones(1), people.scores]),
            torch.cat([embedding, people.embeddings]),
        )

    def _final_nms(self, people: People) -> People:
        keep = box_ops.nms(people.boxes, people.scores, self.final_nms_thresh)[: self.detections_per_image]
        return People(people.boxes[keep], people.scores[keep], people.embeddings[keep])


def box_loss(deltas: Tensor, sampled: RoITargets) -> Tensor:
    """Smooth L1 (beta 1) of the foreground deltas of positives, divided by the number of sampled RoIs."""
    positive = torch.where(sampled.labels != BACKGROUND)[0]
    foreground = deltas[:, 4:8]
    loss = functional.smooth_l1_loss(foreground[positive], sampled.deltas[positive], beta=1.0, reduction="sum")
    return loss / max(sampled.labels.numel(), 1)


def make_box_coder() -> det_utils.BoxCoder:
    """Box deltas with the released weights (10, 10, 5, 5)."""
    return det_utils.BoxCoder((10.0, 10.0, 5.0, 5.0))
