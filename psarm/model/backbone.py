"""The backbones by name, each in two parts: stages up to stride 16 over the image, the last stage ("res5") over RoIs.

N images, R RoIs, C channels.
"""

from __future__ import annotations

from typing import TypeAlias

from torch import nn

from psarm.model.convnext import CONVNEXTS, ConvNeXt, make_last_stage
from psarm.model.resnet import FIRST_PLANES, RESNETS, ResNet, make_layer4

STRIDE = 16
"""Input pixels a cell of the feature map."""
BACKBONES = (*RESNETS, *CONVNEXTS)
"""Every name that `model.backbone` takes."""
Backbone: TypeAlias = ResNet | ConvNeXt
"""[N,3,H,W] → [N,C,H/16,W/16], with `out_channels` (C) and `freeze_stem()`."""


def make_backbone(name: str, width: float) -> Backbone:
    """A freshly initialised backbone; `width` multiplies torchvision's channels."""
    channels = _stage_channels(name, width)
    return ResNet(RESNETS[name], channels) if name in RESNETS else ConvNeXt(CONVNEXTS[name], channels)


def make_res5(name: str, width: float) -> nn.Sequential:
    """A freshly initialised last stage: [R,C,h,w] → [R,C5,h/2,w/2]; ResNets round odd sizes up, ConvNeXts down."""
    channels = _stage_channels(name, width)
    return make_layer4(RESNETS[name], channels) if name in RESNETS else make_last_stage(CONVNEXTS[name], channels)


def res5_channels(name: str, width: float) -> int:
    """C5, the channels of what leaves the last stage."""
    expansion = RESNETS[name].block.expansion if name in RESNETS else 1
    return _stage_channels(name, width)[3] * expansion


def torchvision_name(backbone: str, name: str) -> str | None:
    """What torchvision calls the parameter `name` of a person-search model; None for one that its network lacks.

    Every head's copy of the last stage, `….layer4.…`, comes from the same parameter.
    """
    if name.startswith("backbone."):
        return name.removeprefix("backbone.")
    _, last_stage, rest = name.partition(".layer4.")
    if not last_stage:
        return None
    if backbone in RESNETS:
        return f"layer4.{rest}"
    index, _, rest = rest.partition(".")  # 0 is the downsampling, 1 the blocks
    return f"features.{6 + int(index)}.{rest}"


def _stage_channels(name: str, width: float) -> tuple[int, int, int, int]:
    """Channels of the four stages (a ResNet's before the expansion), the first a multiple of 8."""
    first = FIRST_PLANES if name in RESNETS else CONVNEXTS[name].first_channels
    base = max(8, round(first * width / 8) * 8)
    return base, 2 * base, 4 * base, 8 * base
