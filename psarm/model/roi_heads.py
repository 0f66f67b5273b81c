"""The RoI heads of NAE, SeqNet, PS-ARM and its cascade (Fig. 2).

A detection head scores and refines the proposals; NMS thins them out; re-id heads refine what is left once more and
embed it. NAE's single head does both jobs: it scores the proposals, and embeds those that are left.

N images, R RoIs (all images together), n people of one image, C channels, D embedding dimensions. Boxes are float [R,4]
xyxy in pixels of the resized image.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from psarm.model.batchnorm import SyncBatchNorm1d
from psarm.model.nae import NormAwareEmbedding
from psarm.model.oim import BACKGROUND, OnlineInstanceMatching
from psarm.model.processes import share
from psarm.model.recompute import recompute
from psarm.model.sampling import DETECTION_STREAM, REID_STREAM, RoISampler, RoITargets

Sizes = list[tuple[int, int]]
MIN_BOX_SIDE = 1e-2  # pixels; smaller boxes are dropped after either head


class RoIFeatures(nn.Module):
    """ARM (or nothing) and res5 over RoI features, each max-pooled: the trunk of one head."""

    def __init__(self, arm: Arm | None, res5: nn.Module) -> None:
        super().__init__()
        self.arm = arm
        self.layer4 = res5
        self.recomputes = False  # activations in the backward pass, instead of keeping them

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[R,C,h,w] → maxima of what enters res5 [R,C] and of what leaves it [R,C5]."""
        return recompute(self._run, x, self) if self.recomputes and self.training else self._run(x)

    def _run(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.arm is not None:
            x = self.arm(x)
        deep: Tensor = self.layer4(x)
        return x.amax(dim=(2, 3)), deep.amax(dim=(2, 3))


class RoIAlign(nn.Module):
    """RoIAlign on the stride-16 map, two samples a bin, not aligned (the released setting)."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size  # height, width

    def forward(self, features: Tensor, boxes: list[Tensor]) -> Tensor:
        """[N,C,H,W] and a list of [r,4] → [R,C,*size]."""
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
        super().__init__(linear, SyncBatchNorm1d(8))


@dataclass
class People:
    """People of one image between the heads and at the end, in pixels of the resized image."""

    boxes: Tensor  # [n,4]
    scores: Tensor  # [n]
    embeddings: Tensor  # [n,D]


class ReidHead(nn.Module):
    """Refines the boxes it is given, embeds them, and tells people from background by the embedding's norm."""

    def __init__(
        self,
        reid_head: RoIFeatures,
        box_predictor: BoxRegressor,
        embedding_head: NormAwareEmbedding,
        reid_loss: OnlineInstanceMatching,
    ) -> None:
        super().__init__()
        self.reid_head = reid_head
        self.box_predictor = box_predictor
        self.embedding_head = embedding_head
        self.reid_loss = reid_loss

    def outputs(self, rois: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """RoI features [R,C,h,w] → deltas [R,8], unit embeddings [R,D] and person logits [R]."""
        res4, res5 = self.reid_head(rois)
        embeddings, logits = self.embedding_head(res4, res5)
        return self.box_predictor(res5), embeddings, logits


class PersonSearchHeads(ReidHead):
    """All heads of a model, from proposals to people, and their losses.

    Besides its own re-id head there may be a detection head before it (`box_head` and `faster_rcnn_predictor`: SeqNet,
    PS-ARM; without them it is NAE) and `further` re-id heads after it, each on the boxes that the one before refined
    (Cascaded PS-ARM). Embeddings are those of the last.
    """

    def __init__(
        self,
        box_head: RoIFeatures | None,
        faster_rcnn_predictor: FastRCNNPredictor | None,
        reid: ReidHead,
        further: Sequence[ReidHead],
        roi_align: RoIAlign,
        sampler: RoISampler,
        score_thresh: float,
        detection_nms_thresh: float,
        final_nms_thresh: float,
        detections_per_image: int,
    ) -> None:
        # Under the released names, not under `reid.`.
        super().__init__(reid.reid_head, reid.box_predictor, reid.embedding_head, reid.reid_loss)
        self.box_head = box_head
        self.faster_rcnn_predictor = faster_rcnn_predictor
        self.further = nn.ModuleList(further)
        self.roi_align = roi_align
        self.sampler = sampler
        self.box_coder = sampler.box_coder
        self.score_thresh = score_thresh
        self.detection_nms_thresh = detection_nms_thresh
        self.final_nms_thresh = final_nms_thresh
        self.detections_per_image = detections_per_image

    @property
    def reid_heads(self) -> list[ReidHead]:
        """The re-id heads in the order they run."""
        further: list[ReidHead] = list(self.further)  # type: ignore[arg-type]
        return [self, *further]

    @property
    def embedding_dim(self) -> int:
        """D."""
        return int(self.reid_loss.lut.shape[1])

    def losses(
        self, features: Tensor, proposals: list[Tensor], sizes: Sizes, targets: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Losses of all heads; `targets` hold boxes [n,4], labels [n] (-1 = person without identity), maybe a seed.

        Names of a second re-id head's losses end in `_2`.
        """
        losses: dict[str, Tensor] = {}
        boxes = proposals
        if self.box_head is not None:
            sampled = self.sampler.sample(boxes, targets, DETECTION_STREAM)
            logits, deltas = self.detection_outputs(features, sampled.boxes)
            loss = functional.cross_entropy(logits, (sampled.labels != BACKGROUND).long(), reduction="sum")
            losses["detection_cls"] = share(loss, len(logits))
            losses["detection_reg"] = box_loss(deltas, sampled)
            boxes = self._next_boxes(deltas, sampled, sizes)
        heads = self.reid_heads
        for number, head in enumerate(heads, start=1):
            sampled = self.sampler.sample(boxes, targets, REID_STREAM + number - 1)
            deltas, embeddings, logits = head.outputs(self.roi_align(features, sampled.boxes))
            ending = "" if number == 1 else f"_{number}"
            is_person = (sampled.labels != BACKGROUND).to(logits.dtype)
            loss = functional.binary_cross_entropy_with_logits(logits, is_person, reduction="sum")
            losses[f"reid_cls{ending}"] = share(loss, len(logits))
            losses[f"reid_reg{ending}"] = box_loss(deltas, sampled)
            losses[f"oim{ending}"] = head.reid_loss(embeddings, sampled.labels)
            if number < len(heads):
                boxes = self._next_boxes(deltas, sampled, sizes)
        return losses

    def detect(
        self, features: Tensor, proposals: list[Tensor], sizes: Sizes, given: list[Tensor] | None = None
    ) -> list[People]:
        """People of every image, best first.

        With `given` (one box [1,4] an image) the image is a query's context (for CBGM): the box is forced in with
        score 1 and comes first, and embeddings are not weighted by the score.
        """
        kept = self._first_head(features, proposals, sizes)
        people = [self._sift(p) for p in self._embed_people(features, kept, sizes, weighted=given is None)]
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

    def detection_outputs(self, features: Tensor, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits [R,2] and deltas [R,8] of the detection head."""
        if self.box_head is None or self.faster_rcnn_predictor is None:
            raise RuntimeError("This model has no detection head: its re-id head scores the proposals.")
        _, res5 = self.box_head(self.roi_align(features, boxes))
        logits, deltas = self.faster_rcnn_predictor(res5)
        return logits, deltas

    def reid_outputs(self, features: Tensor, boxes: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Deltas [R,8], unit embeddings [R,D] and person logits [R] of the last re-id head."""
        return self.reid_heads[-1].outputs(self.roi_align(features, boxes))

    def score(self, features: Tensor, proposals: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Probability of being a person [R] and deltas [R,8], by the first head."""
        if self.box_head is None:
            deltas, _, logits = self.outputs(self.roi_align(features, proposals))
            return torch.sigmoid(logits), deltas
        logits, deltas = self.detection_outputs(features, proposals)
        return functional.softmax(logits, dim=-1)[:, 1], deltas

    def decode_foreground(self, deltas: Tensor, boxes: list[Tensor], sizes: Sizes) -> list[Tensor]:
        """Foreground deltas [R,8] applied to boxes and clipped to the images."""
        decoded = self.box_coder.decode(deltas, boxes)[:, 1]
        parts = torch.split(decoded, [len(b) for b in boxes])
        return [box_ops.clip_boxes_to_image(part, size) for part, size in zip(parts, sizes, strict=True)]

    @torch.no_grad()
    def _next_boxes(self, deltas: Tensor, sampled: RoITargets, sizes: Sizes) -> list[Tensor]:
        """What the next head is trained on: the boxes this one refined."""
        # RoIAlign reads outside the map where a box is NaN; the losses of this head still carry the NaN out.
        return self.decode_foreground(deltas.detach().nan_to_num(), sampled.boxes, sizes)

    def _first_head(self, features: Tensor, proposals: list[Tensor], sizes: Sizes) -> list[tuple[Tensor, Tensor]]:
        """Where the re-id heads look [n,4], and the scores [n], of every image: what NMS leaves of the proposals."""
        scores, deltas = self.score(features, proposals)
        boxes = self.decode_foreground(deltas, proposals, sizes)
        looks = proposals if self.box_head is None else boxes
        kept = []
        for image, part in enumerate(torch.split(scores, [len(p) for p in proposals])):
            rows = self._between_heads(boxes[image], part)
            kept.append((looks[image][rows], part[rows]))
        return kept

    def _between_heads(self, boxes: Tensor, scores: Tensor) -> Tensor:
        keep = self._candidates(boxes, scores)
        return keep[box_ops.nms(boxes[keep], scores[keep], self.detection_nms_thresh)[: self.detections_per_image]]

    def _candidates(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """Indices of what scores above the threshold and has some width and height."""
        keep = torch.where(scores > self.score_thresh)[0]
        return keep[box_ops.remove_small_boxes(boxes[keep], MIN_BOX_SIDE)]

    def _embed_people(
        self, features: Tensor, kept: list[tuple[Tensor, Tensor]], sizes: Sizes, weighted: bool
    ) -> list[People]:
        boxes, scores = [b for b, _ in kept], [s for _, s in kept]
        counts = [len(b) for b in boxes]
        if sum(counts) == 0:
            nobody = features.new_zeros(0, self.embedding_dim)
            return [People(b, s, nobody) for b, s in kept]
        for head in self.reid_heads:
            deltas, embeddings, _ = head.outputs(self.roi_align(features, boxes))
            boxes = self.decode_foreground(deltas, boxes, sizes)
        if weighted:
            embeddings = embeddings * torch.cat(scores)[:, None]
        parts = torch.split(embeddings, counts)
        return [People(b, s, e) for b, s, e in zip(boxes, scores, parts, strict=True)]

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
    """Smooth L1 (beta 1) of the foreground deltas of positives, divided by the number of RoIs of all processes."""
    positive = torch.where(sampled.labels != BACKGROUND)[0]
    foreground = deltas[:, 4:8]
    loss = functional.smooth_l1_loss(foreground[positive], sampled.deltas[positive], beta=1.0, reduction="sum")
    return share(loss, len(sampled.labels))


def make_box_coder() -> det_utils.BoxCoder:
    """Box deltas with the released weights (10, 10, 5, 5)."""
    return det_utils.BoxCoder((10.0, 10.0, 5.0, 5.0))
