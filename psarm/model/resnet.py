"""ResNet in two parts: conv1 … layer3 over the image, layer4 (res5) over every RoI (SeqNet and PS-ARM, paper Fig. 2).

Blocks are torchvision's; stages are laid out here so that their channels can be chosen. With torchvision's own channels
the names and shapes of the parameters are torchvision's own too. N images, R RoIs, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from psarm.model.batchnorm import SyncBatchNorm2d
from psarm.model.recompute import recompute

Planes = tuple[int, int, int, int]
"""Channels of the four stages before the block's expansion."""


@dataclass(frozen=True)
class ResNetArchitecture:
    """Block type and number of blocks of the four stages."""

    block: type[BasicBlock] | type[Bottleneck]
    blocks: tuple[int, int, int, int]


RESNETS = {
    "resnet18": ResNetArchitecture(BasicBlock, (2, 2, 2, 2)),
    "resnet50": ResNetArchitecture(Bottleneck, (3, 4, 6, 3)),
    "resnet101": ResNetArchitecture(Bottleneck, (3, 4, 23, 3)),
}
FIRST_PLANES = 64
"""torchvision's channels of the first stage; each further stage has twice as many."""


class ResNet(nn.Module):
    """conv1 … layer3: [N,3,H,W] → [N,C,H/16,W/16], sizes rounded up."""

    recomputes = False
    """Compute activations of each stage again in the backward pass instead of keeping them."""

    def __init__(self, architecture: ResNetArchitecture, planes: Planes) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, planes[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = SyncBatchNorm2d(planes[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        expansion = architecture.block.expansion
        self.layer1 = _make_stage(architecture, 0, planes[0], planes[0])
        self.layer2 = _make_stage(architecture, 1, planes[0] * expansion, planes[1])
        self.layer3 = _make_stage(architecture, 2, planes[1] * expansion, planes[2])
        self.out_channels = planes[2] * expansion
        _init_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        """Feature map at stride 16."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for stage in (self.layer1, self.layer2, self.layer3):
            x = recompute(stage, x, stage) if self.recomputes and self.training else stage(x)
        return x  # type: ignore[no-any-return]

    def freeze_stem(self) -> None:
        """Stop training conv1's weight and bn1's affine, as the released recipe does with ImageNet weights."""
        for parameter in (*self.conv1.parameters(), *self.bn1.parameters()):
            parameter.requires_grad_(False)


def make_layer4(architecture: ResNetArchitecture, planes: Planes) -> nn.Sequential:
    """A fresh layer4: [R,C,h,w] → [R,2C,h/2,w/2], sizes rounded up."""
    stage = _make_stage(architecture, 3, planes[2] * architecture.block.expansion, planes[3])
    _init_convolutions(stage)
    return stage


def _make_stage(architecture: ResNetArchitecture, stage: int, in_channels: int, planes: int) -> nn.Sequential:
    """Stage `stage` (0 = layer1 … 3 = layer4); every stage but the first halves the resolution."""
    block = architecture.block
    out_channels = planes * block.expansion
    stride = 1 if stage == 0 else 2
    downsample = None
    if stride != 1 or in_channels != out_channels:
        downsample = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), SyncBatchNorm2d(out_channels)
        )
    first = block(in_channels, planes, stride, downsample, norm_layer=SyncBatchNorm2d)
    further = (block(out_channels, planes, norm_layer=SyncBatchNorm2d) for _ in range(architecture.blocks[stage] - 1))
    return nn.Sequential(first, *further)


def _init_convolutions(module: nn.Module) -> None:
    """He initialisation (fan out), as torchvision's ResNet."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
