"""The graphs in 16 bits for a GPU: nothing between two layers passes through float32 but what needs it.

`reduced` is the form for CPUs, where what lies between the products is float32. Here activations stay in 16 bits as in
the FP16 ONNX graphs (`precision.half`), and the same islands are float32: the choice of proposals and box decoding,
RoIAlign, SimAM's squares, the RPN's two outputs, and the last small layers, which decide logits, boxes and the
embeddings' length. LayerNorms take and give 16 bits; torch adds them up in float32.

R RoIs, C channels, a x b cells of a RoI.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from psarm.export.graphs import DetectGraph
from psarm.export.heads import DetectionHeadGraph, ReidHeadGraph, TrunkGraph
from psarm.export.mixer import MixerGraph
from psarm.export.reduced import Reduced
from psarm.model.arm import SpatioChannelAttention

Align = Callable[[Tensor, Tensor, Tensor, int, int, float], Tensor]


class Half(nn.Module):
    """A module whose weights, input and output are of `dtype`, whatever comes in."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module = module.to(dtype)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """Whatever the module takes and gives."""
        return self.module(x.to(self.dtype))  # type: ignore[no-any-return]


class FloatIsland(nn.Module):
    """A float32 module among 16-bit ones; gives `dtype`."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module = module.float()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """Whatever the module takes and gives."""
        return self.module(x.float()).to(self.dtype)  # type: ignore[no-any-return]


class FloatLinear(nn.Linear):
    """A float32 layer that takes 16 bits."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features)
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """As `nn.Linear`."""
        return super().forward(x.float())


class FloatAlign:
    """A RoIAlign in float32 whose answer is rounded to `dtype`: in half, positions past 2048 would be wrong."""

    def __init__(self, align: Align, dtype: torch.dtype) -> None:
        self.align = align
        self.dtype = dtype

    def __call__(
        self, features: Tensor, boxes: Tensor, batch_indices: Tensor, height: int, width: int, scale: float
    ) -> Tensor:
        """As `operators.align_rois`."""
        return self.align(features.float(), boxes, batch_indices, height, width, scale).to(self.dtype)


def half_form(graph: nn.Module, dtype: torch.dtype) -> None:
    """Let a `DetectGraph`, `RefineGraph` or `ReidGraph` compute in `dtype` (bfloat16 or float16), in place.

    Its inputs and outputs stay float32.
    """
    for part in list(graph.modules()):
        if isinstance(part, DetectGraph):
            part.backbone = cast(Any, Half(part.backbone, dtype))
            part.rpn_head.conv = Reduced(part.rpn_head.conv, dtype)
            for name in ("reduce_first", "reduce"):
                if (module := getattr(part, name)) is not None:
                    setattr(part, name, Reduced(module, dtype))
            if part.reduce is None:  # then the map itself leaves the graph
                part.reduce = cast(Any, FloatIsland(nn.Identity(), torch.float32))
        if isinstance(part, TrunkGraph):
            _halve_trunk(part, dtype)
        if isinstance(part, DetectionHeadGraph):
            part.predictor = FloatLinear(part.predictor)
        if isinstance(part, ReidHeadGraph):
            part.res4, part.res5 = FloatLinear(part.res4), FloatLinear(part.res5)


def _halve_trunk(trunk: TrunkGraph, dtype: torch.dtype) -> None:
    trunk.align = FloatAlign(trunk.align, dtype)
    trunk.res5 = Half(trunk.res5, dtype)
    for name in ("expand", "pending"):
        if (module := getattr(trunk, name)) is not None:
            setattr(trunk, name, Half(module, dtype))
    if trunk.bias is not None:
        trunk.bias = trunk.bias.to(dtype)
    if trunk.mixer is not None:
        trunk.mixer = _halved_mixer(trunk.mixer, dtype)


def _halved_mixer(mixer: nn.Module, dtype: torch.dtype) -> nn.Module:
    if isinstance(mixer, SpatioChannelAttention):
        return FloatIsland(mixer, dtype)
    if isinstance(mixer, MixerGraph) and mixer.attention is not None:
        attention = mixer.attention
        mixer = mixer.to(dtype)
        mixer.attention = cast(Any, FloatIsland(attention, dtype))
    return Half(mixer, dtype)
