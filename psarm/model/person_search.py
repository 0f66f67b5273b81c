"""The person-search network: one forward pass finds people and embeds them (PS-ARM, ACCV 2022; SeqNet, AAAI 2021).

Pure composition: transform → backbone → RPN → heads. N images, n people of one image, D embedding dimensions.
Images are float tensors [3,h,w], RGB, in 0..1, of any size; boxes are float [n,4] xyxy in pixels of the given images.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes

from psarm.config import ModelConfig
from psarm.model.backbone import Backbone
from psarm.model.batchnorm import SyncBatchNorm
from psarm.model.roi_heads import People, PersonSearchHeads, RoIFeatures

Size = tuple[int, int]


class PersonSearchModel(nn.Module):
    """PS-ARM or SeqNet. `losses` trains (train mode); `detect`, `embed` and `detect_around` answer (eval mode)."""

    def __init__(
        self,
        config: ModelConfig,
        transform: GeneralizedRCNNTransform,
        backbone: Backbone,
        rpn: RegionProposalNetwork,
        roi_heads: PersonSearchHeads,
    ) -> None:
        super().__init__()
        self.config = config
        self.transform = transform
        self.backbone = backbone
        self.rpn = rpn
        self.roi_heads = roi_heads

    def losses(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The unweighted losses as scalars.

        `targets`, one an image: `boxes` [n,4] and `labels` int64 [n]: row of the OIM table, or -1 for a person
        without identity. A `seed` (int64 scalar) makes the choice of its anchors and RoIs depend on nothing else;
        without it the choice is drawn from torch's global generator.

        With several processes, all of which call this at the same time, batches are padded to the same size, and each
        loss is this process's share of that of one process with all the images: the average over the processes is it,
        and so are the gradients that DistributedDataParallel averages.

        Keys: rpn_cls, rpn_reg, detection_cls, detection_reg, reid_cls, reid_reg, oim; NAE has no
        detection_*, a cascade has reid_cls_2, reid_reg_2 and oim_2 too.
        """
        if not self.training:
            raise RuntimeError("losses() needs the model in train mode; call model.train() first.")
        batch, targets = self.transform(images, targets)
        features = self.backbone(batch.tensors)
        proposals, rpn_losses = self.rpn(batch, OrderedDict(map=features), targets)
        head_losses = self.roi_heads.losses(features, proposals, batch.image_sizes, targets)
        return {
            "rpn_cls": rpn_losses["loss_objectness"],
            "rpn_reg": rpn_losses["loss_rpn_box_reg"],
            **head_losses,
        }

    def synchronise_batchnorm(self, on: bool = True) -> None:
        """Choose whether BatchNorms take their statistics in training over all processes; at first they do."""
        for part in self.modules():
            if isinstance(part, SyncBatchNorm):
                part.synchronised = on

    def checkpoint_activations(self, on: bool = True) -> None:
        """Choose whether training computes activations again in the backward pass instead of keeping them."""
        self.backbone.recomputes = on
        for part in self.roi_heads.modules():
            if isinstance(part, RoIFeatures):
                part.recomputes = on

    @torch.no_grad()
    def detect(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """People of each image: `boxes` [n,4], `scores` [n] falling, `embeddings` [n,D] weighted by the score."""
        batch, features = self._features(images)
        proposals, _ = self.rpn(batch, OrderedDict(map=features))
        people = self.roi_heads.detect(features, proposals, batch.image_sizes)
        return _in_image_pixels(people, batch.image_sizes, _sizes(images))

    @torch.no_grad()
    def embed(self, images: list[Tensor], boxes: list[Tensor]) -> list[Tensor]:
        """Unit embeddings [n,D] of the given boxes [n,4], one tensor an image."""
        batch, features = self._features(images)
        return self.roi_heads.embed(features, _in_batch_pixels(boxes, _sizes(images), batch.image_sizes))

    @torch.no_grad()
    def detect_around(self, images: list[Tensor], boxes: Tensor) -> list[dict[str, Tensor]]:
        """As `detect` with one given box an image (`boxes` [N,4]) first with score 1; embeddings are not weighted."""
        batch, features = self._features(images)
        proposals, _ = self.rpn(batch, OrderedDict(map=features))
        given = _in_batch_pixels(list(boxes[:, None]), _sizes(images), batch.image_sizes)
        people = self.roi_heads.detect(features, proposals, batch.image_sizes, given)
        return _in_image_pixels(people, batch.image_sizes, _sizes(images))

    def _features(self, images: list[Tensor]) -> tuple[ImageList, Tensor]:
        if self.training:
            raise RuntimeError("Inference needs the model in eval mode; call model.eval() first.")
        batch, _ = self.transform(images)
        return batch, self.backbone(batch.tensors)


def _sizes(images: list[Tensor]) -> list[Size]:
    return [(image.shape[-2], image.shape[-1]) for image in images]


def _in_batch_pixels(boxes: list[Tensor], sizes: list[Size], resized: list[Size]) -> list[Tensor]:
    return [resize_boxes(b, list(s), list(r)) for b, s, r in zip(boxes, sizes, resized, strict=True)]


def _in_image_pixels(people: list[People], resized: list[Size], sizes: list[Size]) -> list[dict[str, Tensor]]:
    return [
        {"boxes": resize_boxes(p.boxes, list(r), list(s)), "scores": p.scores, "embeddings": p.embeddings}
        for p, r, s in zip(people, resized, sizes, strict=True)
    ]
