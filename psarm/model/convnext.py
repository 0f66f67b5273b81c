"""ConvNeXt in two parts: stem and stages 1–3 over the image, the last downsampling and stage 4 over every RoI.

Split as in SeqNeXt (Jaffe & Zakhor, "Gallery Filter Network", WACV 2023): no norm behind either part. Blocks are
torchvision's; stages are laid out here so that their channels can be chosen. With torchvision's own channels the
parameters of the first part have torchvision's names and shapes; `features.6` and `features.7` are the `0` and `1` of
the last stage. N images, R RoIs, C channels.

torchvision's LayerNorm2d and CNBlock permute to channels last and back, so maps are channels last from the stem on
whatever the memory format of the images; with `channels_last` images and weights no permutation copies anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torchvision.models.convnext import CNBlock, LayerNorm2d

from psarm.model.recompute import recompute

Channels = tuple[int, int, int, int]
"""Channels of the four stages."""
LAYER_SCALE = 1e-6
NORM_EPS = 1e-6


@dataclass(frozen=True)
class ConvNeXtArchitecture:
    """Sizes of a ConvNeXt and the stochastic depth of its last block, which torchvision trains it with."""

    first_channels: int
    """torchvision's channels of the first stage; each further stage has twice as many."""
    blocks: tuple[int, int, int, int]
    stochastic_depth: float


CONVNEXTS = {
    "convnext_tiny": ConvNeXtArchitecture(96, (3, 3, 9, 3), 0.1),
    "convnext_base": ConvNeXtArchitecture(128, (3, 3, 27, 3), 0.5),
}


class ConvNeXt(nn.Module):
    """Stem and stages 1–3: [N,3,H,W] → [N,C,H/16,W/16], sizes rounded down."""

    recomputes = False
    """Compute activations of each stage again in the backward pass instead of keeping them."""

    def __init__(self, architecture: ConvNeXtArchitecture, channels: Channels) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, channels[0], 4, stride=4), LayerNorm2d(channels[0], eps=NORM_EPS))
        self.features = nn.Sequential(
            stem,
            _make_stage(architecture, 0, channels),
            _make_downsampling(channels[0], channels[1]),
            _make_stage(architecture, 1, channels),
            _make_downsampling(channels[1], channels[2]),
            _make_stage(architecture, 2, channels),
        )
        self.out_channels = channels[2]
        _init_layers(self)

    def forward(self, images: Tensor) -> Tensor:
        """Feature map at stride 16."""
        x = images
        for part in self.features:
            x = recompute(part, x, part) if self.recomputes and self.training else part(x)
        return x

    def freeze_stem(self) -> None:
        """Stop training the stem, convolution and norm."""
        for parameter in self.features[0].parameters():
            parameter.requires_grad_(False)


def make_last_stage(architecture: ConvNeXtArchitecture, channels: Channels) -> nn.Sequential:
    """A fresh downsampling and stage 4: [R,C,h,w] → [R,2C,h/2,w/2], sizes rounded down; h and w are 2 or more."""
    stage = nn.Sequential(_make_downsampling(channels[2], channels[3]), _make_stage(architecture, 3, channels))
    _init_layers(stage)
    return stage


def _make_downsampling(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        LayerNorm2d(in_channels, eps=NORM_EPS), nn.Conv2d(in_channels, out_channels, kernel_size=2, stride=2)
    )


def _make_stage(architecture: ConvNeXtArchitecture, stage: int, channels: Channels) -> nn.Sequential:
    """The blocks of stage `stage` (0 … 3); stochastic depth grows linearly over the blocks of all four."""
    first, last = sum(architecture.blocks[:stage]), sum(architecture.blocks) - 1
    return nn.Sequential(
        *(
            CNBlock(channels[stage], LAYER_SCALE, architecture.stochastic_depth * block / last)
            for block in range(first, first + architecture.blocks[stage])
        )
    )


def _init_layers(module: nn.Module) -> None:
    """Truncated normal weights and zero biases, as torchvision's ConvNeXt."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
