"""What deployment is measured against: the released PyTorch model, run eagerly as it is written.

`psarm.model` computes just that, literally, so it is used as it is: RoIAlign over all of res4's channels, every anchor
decoded, the best 6000 before NMS, norms and 1x1 convolutions unfolded; `psarm.benchmarks.model_cost` counts the same
469 GMACs on a 1080x1920 frame as on the released code.

No trained weights are needed for speed and rounding, but raw random ones would not do: they amplify rounding thousands
of times, and find nobody or everybody. `make_yardstick` conditions them, under a seed: the last norm of every residual
block is scaled by 0.2, every BatchNorm takes the statistics of the given frame, and the detection head's classifier is
scaled and shifted so that about as many people as asked for come out on that frame.

R RoIs, P proposals, D embedding dimensions. Frames are uint8 [H,W,3] BGR.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import boxes as box_ops

from psarm.config import ModelConfig
from psarm.data.scenes import to_tensor
from psarm.data.synth.cast import build_cast
from psarm.data.synth.plan import plan_frames
from psarm.data.synth.scene import draw_frame
from psarm.data.synth.settings import SynthSettings
from psarm.errors import UsageError
from psarm.evaluation.types import ImageDetections
from psarm.model import PersonSearchModel, build_model
from psarm.model.batchnorm import SyncBatchNorm
from psarm.runtime.manifest import Preprocessing
from psarm.runtime.preprocess import make_batch

FRAME = (1080, 1920)
"""Height and width that presets are written for; at other sizes the model's own sizes scale with the width."""
PEOPLE = 20
LAST_NORM = 0.2
"""Scale of each residual block's last norm."""
LOGIT_SPREAD = 2.0
"""Standard deviation of the person logit over the proposals: far enough apart that rounding does not decide."""
CALIBRATION_ROIS = 64
"""About as many RoIs the heads' norms take their statistics from, good and bad ones."""
PRESETS = {
    "released": ModelConfig(arm_layout="released"),
    "resnet50": ModelConfig(),
    "resnet18": ModelConfig(backbone="resnet18"),
    "resnet18_half": ModelConfig(backbone="resnet18", width=0.5),
    "tiny": ModelConfig(backbone="resnet18", width=0.125, roi_size=7, post_nms_top_n_test=60),
}
"""Models to measure; `released` is the yardstick of the goals, `tiny` only shows that the benchmark runs."""

Frame = NDArray[np.uint8]


def draw_yardstick_frame(height: int, width: int, rank: int = 0) -> Frame:
    """The fullest of 60 synthetic street scenes, or the one of another rank from 0: [height,width,3].

    Raises `UsageError` for sizes that cannot be drawn.
    """
    settings = SynthSettings(frames=60, identities=12, width=width, height=height, people_per_frame=12)
    cast = build_cast(settings)
    plans = sorted(plan_frames(settings, cast), key=lambda plan: -len(plan.people))
    return draw_frame(plans[rank], cast, settings).image


def scaled_config(preset: str, width: int) -> ModelConfig:
    """A preset for frames of another width than 1920: images are resized by the same factor."""
    config = PRESETS[preset]
    sizes = {name: round(getattr(config, name) * width / FRAME[1]) for name in ("min_size", "max_size")}
    if min(sizes.values()) < 1:
        raise UsageError(f"Frames {width} pixels wide are too small; give at least {FRAME[1] // 100}.")
    return dataclasses.replace(config, **sizes)


def make_yardstick(config: ModelConfig, frame: Frame, people: int = PEOPLE, seed: int = 0) -> PersonSearchModel:
    """A model with conditioned random weights, in eval mode, that finds about `people` people on `frame`.

    Torch's own random state stays as it was. Raises `UsageError` for a model without a detection head.
    """
    if config.parts.heads == "nae":
        raise UsageError(f"model.variant is {config.variant}, which has no detection head; the yardstick needs one.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(config).eval()
    image = _to_image(frame)
    _damp(model)
    with torch.no_grad():
        with _calibrating(model):
            features, proposals, _ = _propose(model, image)
            some = [proposals[:: max(1, len(proposals) // CALIBRATION_ROIS)]]
            model.roi_heads.score(features, some)
            for head in model.roi_heads.reid_heads:
                head.outputs(model.roi_heads.roi_align(features, some))
        _place_threshold(model, image, people)
    return model


class Reference:
    """The yardstick's answers in float64, to measure everybody's rounding by; slow.

    The frame is resized in float32 as everywhere else: where between the pixels a resized one lies is rounded there,
    which moves answers more than everything that comes after. Torch and the runtime (OpenCV) round it differently, so
    there is a reference for either.
    """

    def __init__(self, model: PersonSearchModel, rule: Preprocessing | None = None) -> None:
        """`rule`: let the runtime resize and normalise, as a bundle says; None: torch, as the model does."""
        self.model = copy.deepcopy(model).double()
        self.model.transform = _TransformInFloat32(model.transform) if rule is None else _RuntimeTransform(rule)

    def detect(self, frame: Frame) -> ImageDetections:
        """People, best first; embeddings weighted by the score."""
        [people] = self.model.detect([self.image(frame)])
        return ImageDetections(*(people[key].numpy() for key in ("boxes", "scores", "embeddings")))

    def embed(self, frame: Frame, boxes: NDArray[Any]) -> NDArray[np.float64]:
        """Unit embeddings [n,D] of boxes [n,4] xyxy."""
        [embeddings] = self.model.embed([self.image(frame)], [torch.from_numpy(boxes)])
        return np.asarray(embeddings.numpy(), np.float64)

    def image(self, frame: Frame) -> Tensor:
        """A frame as `model` takes it: float32 [3,H,W], RGB in 0..1."""
        return _to_image(frame)


class _TransformInFloat32(nn.Module):
    """Images float32 → a float64 batch of them, resized and normalised in float32."""

    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, images: list[Tensor]) -> tuple[ImageList, None]:
        batch, _ = self.transform(images)
        return ImageList(batch.tensors.double(), batch.image_sizes), None


class _RuntimeTransform(nn.Module):
    """Images float32 → the batch that the runtime makes of them, in float64."""

    def __init__(self, rule: Preprocessing) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, images: list[Tensor]) -> tuple[ImageList, None]:
        frames = [image.mul(255).round().byte().flip(0).permute(1, 2, 0).numpy() for image in images]
        batch = make_batch(frames, self.rule)
        sizes = [(int(height), int(width)) for height, width in batch.image_sizes]
        return ImageList(torch.from_numpy(batch.images).double(), sizes), None


def _to_image(frame: Frame) -> Tensor:
    return to_tensor(frame).float().div(255)


@torch.no_grad()
def _damp(model: nn.Module) -> None:
    for part in model.modules():
        if isinstance(part, Bottleneck):
            part.bn3.weight.fill_(LAST_NORM)
        elif isinstance(part, BasicBlock):
            part.bn2.weight.fill_(LAST_NORM)


@contextmanager
def _calibrating(model: nn.Module) -> Iterator[None]:
    """Let every BatchNorm normalise by what it sees, and remember it in place of its statistics so far."""
    norms = [part for part in model.modules() if isinstance(part, SyncBatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.eval()
            norm.momentum = momentum


def _propose(model: PersonSearchModel, image: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Features, proposals [P,4] and valid size of an image [3,h,w]."""
    batch, _ = model.transform([image])
    features = model.backbone(batch.tensors)
    proposals, _ = model.rpn(batch, {"map": features})
    return features, proposals[0], batch.image_sizes[0]


def _place_threshold(model: PersonSearchModel, image: Tensor, people: int) -> None:
    """Scale and shift the classifier: NMS leaves `people` boxes that score above the threshold."""
    heads = model.roi_heads
    features, proposals, size = _propose(model, image)
    logits, deltas = heads.detection_outputs(features, [proposals])
    [boxes] = heads.decode_foreground(deltas, [proposals], [size])
    margin = logits[:, 1] - logits[:, 0]
    # Greedy NMS on the best few is the beginning of its answer on all.
    kept = margin[box_ops.nms(boxes, margin, heads.detection_nms_thresh)]
    people = min(people, len(kept) - 1)
    classifier = heads.faster_rcnn_predictor.cls_score  # type: ignore[union-attr]
    scale = LOGIT_SPREAD / margin.std()
    threshold = torch.logit(torch.tensor(heads.score_thresh))
    classifier.weight.mul_(scale)
    classifier.bias.mul_(scale)
    classifier.bias[1] += threshold - scale * kept[people - 1 : people + 1].mean()
