"""Convolutions of ResNets with what follows them (bias, the residual, ReLU) in one call of cuDNN.

torch's own convolution leaves bias, sum and ReLU to further kernels, each of which reads and writes the whole map. On
a CPU the same modules compute the same by torch's ordinary operators.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock, Bottleneck

from psarm.model.resnet import ResNet


class FusedConvolution(nn.Module):
    """ReLU of a convolution, plus a residual where one is given."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """[N,C,H,W], residual [N,C',h,w] → [N,C',h,w]."""
        layer = self.convolution
        geometry: tuple[Any, ...] = (layer.stride, layer.padding, layer.dilation, layer.groups)
        if not x.is_cuda or layer.bias is None:
            answer = functional.conv2d(x, layer.weight, layer.bias, *geometry)
            return torch.relu(answer if residual is None else answer + residual)
        if residual is None:
            return torch.cudnn_convolution_relu(x, layer.weight, layer.bias, *geometry)
        return torch.cudnn_convolution_add_relu(x, layer.weight, residual, 1.0, layer.bias, *geometry)


class FusedBlock(nn.Module):
    """A residual block whose norms have been folded."""

    def __init__(self, block: BasicBlock | Bottleneck) -> None:
        super().__init__()
        layers = [block.conv1, block.conv2, *([block.conv3] if isinstance(block, Bottleneck) else [])]
        self.before = nn.Sequential(*(_fused(layer) for layer in layers[:-1]))
        self.last = FusedConvolution(layers[-1])
        self.downsample = block.downsample

    def forward(self, x: Tensor) -> Tensor:
        """[N,C,H,W] → [N,C',h,w]."""
        residual = x if self.downsample is None else self.downsample(x)
        answer: Tensor = self.last(self.before(x), residual)
        return answer


def fuse_convolutions(graph: nn.Module) -> None:
    """Every residual block and ResNet's first convolution of a graph, in place; their norms have been folded."""
    for parent in list(graph.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, (BasicBlock, Bottleneck)):
                setattr(parent, name, FusedBlock(child))
        if isinstance(parent, ResNet):
            parent.conv1 = cast(Any, FusedConvolution(parent.conv1))
            parent.relu = cast(Any, nn.Identity())


def _fused(layer: nn.Module) -> nn.Module:
    # What is no convolution has a bias a cell (`folding.MapBiasConvolution`), which cuDNN cannot add.
    return FusedConvolution(layer) if isinstance(layer, nn.Conv2d) else nn.Sequential(layer, nn.ReLU())
