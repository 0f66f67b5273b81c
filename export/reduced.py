"""The graphs' modules in 16 bits, with what breaks there left in float32.

Convolutions and the mixings' matrix products compute in 16 bits. In float32 stay: box decoding and the choice of
proposals, RoIAlign (its coordinates and sums), what ARM's steps add up, LayerNorm and SimAM's variance, and the last
small layers, which decide logits, boxes and the embeddings' length.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from psarm.export.graphs import DetectGraph
from psarm.export.heads import TrunkGraph


class Reduced(nn.Module):
    """A module whose weights and activations are of `dtype`; what enters and leaves it is float32."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module = module.to(dtype)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """Whatever the module takes and gives."""
        return self.module(x.to(self.dtype)).float()  # type: ignore[no-any-return]


class ReducedProducts(nn.Module):
    """A module whose convolutions and matrix products are of `dtype`; what lies between them is float32."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module = module
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """Whatever the module takes and gives."""
        with torch.autocast(x.device.type, self.dtype):
            return self.module(x).float()  # type: ignore[no-any-return]


def reduce_precision(graph: nn.Module, dtype: torch.dtype) -> None:
    """Let a `DetectGraph`, `RefineGraph` or `ReidGraph` compute in `dtype` (bfloat16 or float16), in place."""
    for part in list(graph.modules()):
        if isinstance(part, DetectGraph):
            _reduce(part, ("backbone", "reduce_first", "reduce"), dtype)
            _reduce(part.rpn_head, ("conv",), dtype)
        if isinstance(part, TrunkGraph):
            _reduce(part, ("res5", "expand", "pending"), dtype)
            if part.mixer is not None:
                part.mixer = ReducedProducts(part.mixer, dtype)


def _reduce(owner: nn.Module, names: tuple[str, ...], dtype: torch.dtype) -> None:
    for name in names:
        if (module := getattr(owner, name)) is not None:
            setattr(owner, name, Reduced(module, dtype))
