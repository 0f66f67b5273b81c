"""Exact algebra on weights: norms into the layers before them, a 1x1 convolution into the layers after it.

Everything is computed in float64 and rounded once. Functions that change a module take a copy of the model's.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)
Norm = nn.BatchNorm1d | nn.BatchNorm2d


@torch.no_grad()
def fold_norm(weight: Tensor, bias: Tensor | None, norm: Norm) -> tuple[Tensor, Tensor]:
    """Weight and bias (float64) of a convolution or linear layer followed by a BatchNorm in eval mode."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError("A BatchNorm without running statistics cannot be folded.")
    scale = norm.weight.double() / torch.sqrt(variance.double() + norm.eps)
    shift = -mean.double() if bias is None else bias.double() - mean.double()
    folded = weight.double() * scale.reshape(-1, *[1] * (weight.dim() - 1))
    return folded, shift * scale + norm.bias.double()


def fold_linear(layers: nn.Sequential) -> tuple[Tensor, Tensor]:
    """Weight and bias (float64) of Linear + BatchNorm1d."""
    linear, norm = layers
    if not isinstance(linear, nn.Linear) or not isinstance(norm, nn.BatchNorm1d):
        raise TypeError(f"Needed Linear + BatchNorm1d, got {layers}.")
    return fold_norm(linear.weight, linear.bias, norm)


def fold_convolution(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """One convolution that computes `norm(convolution(x))`."""
    return convolution_like(convolution, *fold_norm(convolution.weight, convolution.bias, norm))


def fold_norms(module: nn.Module) -> None:
    """Fold, in place, every BatchNorm2d of `module` into the convolution registered right before it."""
    for part in list(module.modules()):
        children = list(part.named_children())
        for (name, child), (norm_name, norm) in pairwise(children):
            if isinstance(child, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(part, name, fold_convolution(child, norm))
                setattr(part, norm_name, nn.Identity())
    left = [name for name, part in module.named_modules() if isinstance(part, nn.BatchNorm2d)]
    if left:
        raise ValueError(f"No convolution right before the BatchNorm {left[0]}.")


@torch.no_grad()
def fold_pointwise(pointwise: nn.Conv2d, convolution: nn.Conv2d, shape: tuple[int, int]) -> nn.Module:
    """One module that computes `convolution(pointwise(x))` for x of `shape` (height, width) cells.

    The pointwise bias reaches padded borders weaker than the middle, so where the convolution pads, it becomes a map.
    """
    outer, inner = convolution.weight.double(), pointwise.weight.double()[:, :, 0, 0]
    weight = torch.einsum("ockl,cr->orkl", outer, inner)
    constant = pointwise.weight.new_zeros(len(inner), dtype=torch.float64)
    if pointwise.bias is not None:
        constant = pointwise.bias.double()
    flat = constant[None, :, None, None].expand(1, -1, *shape)
    bias_map = functional.conv2d(
        flat,
        outer,
        None if convolution.bias is None else convolution.bias.double(),
        convolution.stride,
        convolution.padding,
    )[0]
    if convolution.kernel_size == (1, 1):
        return convolution_like(convolution, weight, bias_map[:, 0, 0])
    return MapBiasConvolution(convolution_like(convolution, weight, None), bias_map)


class MapBiasConvolution(nn.Module):
    """A convolution whose bias depends on the cell."""

    bias_map: Tensor

    def __init__(self, convolution: nn.Conv2d, bias_map: Tensor) -> None:
        super().__init__()
        self.convolution = convolution
        self.register_buffer("bias_map", bias_map.to(convolution.weight.dtype))  # [C,h,w]

    def forward(self, x: Tensor) -> Tensor:
        """[R,C',H,W] → [R,C,h,w]."""
        return self.convolution(x) + self.bias_map  # type: ignore[no-any-return]


@torch.no_grad()
def convolution_like(template: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """A convolution with the template's geometry and dtype and the given weight [O,I,k,k] and bias [O]."""
    made = nn.Conv2d(
        weight.shape[1],
        weight.shape[0],
        template.kernel_size,  # type: ignore[arg-type]
        stride=template.stride,  # type: ignore[arg-type]
        padding=template.padding,  # type: ignore[arg-type]
        bias=bias is not None,
        dtype=template.weight.dtype,
    )
    return _fill(made, weight, bias)


@torch.no_grad()
def linear(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> nn.Linear:
    """A linear layer with the given weight [O,I] and bias [O], rounded to `dtype`."""
    made = nn.Linear(weight.shape[1], weight.shape[0], dtype=dtype)
    return _fill(made, weight, bias)


def _fill(layer: Layer, weight: Tensor, bias: Tensor | None) -> Layer:
    layer.weight.copy_(weight)
    if layer.bias is not None and bias is not None:
        layer.bias.copy_(bias)
    return layer.requires_grad_(False)
