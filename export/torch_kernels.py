"""The graphs with the Triton kernels of `psarm.export.kernels` in place of what torch does in several passes.

Triton is imported only where they are asked for.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from psarm.errors import UsageError
from psarm.export.heads import TrunkGraph
from psarm.export.kernels import available
from psarm.export.mixer import MixerGraph
from psarm.export.proposals import ProposalGraph, by_anchor

Mixers = dict[TrunkGraph, MixerGraph]


class KernelAlign:
    """RoIAlign of a 16-bit map with sums in float32, and the bias of ARM's reduction added before rounding."""

    def __init__(self, dtype: torch.dtype, bias: Tensor | None) -> None:
        """`bias` [C] or None."""
        self.dtype = dtype
        self.bias = bias

    def __call__(
        self, features: Tensor, boxes: Tensor, batch_indices: Tensor, height: int, width: int, scale: float
    ) -> Tensor:
        """As `operators.align_rois`; channels come last in memory."""
        from psarm.export.kernels.roi_align import roi_align

        given = features.to(self.dtype, memory_format=torch.channels_last)
        return roi_align(given, boxes, batch_indices, (height, width), scale, self.bias)


class KernelProposalGraph(ProposalGraph):
    """The ordinary selection of proposals, all its candidates, with shapes that depend on no data."""

    flags = ("exact",)

    def forward(self, objectness: Tensor, deltas: Tensor, image_sizes: Tensor) -> tuple[Tensor, ...]:
        """As the ordinary one's, and bool [N], always true: these are the ordinary graph's proposals."""
        from psarm.export.kernels.suppression import nms

        logits = by_anchor(objectness)  # [N,hwA]
        index = logits.topk(min(self.candidates, logits.shape[1]), dim=1).indices
        boxes, valid = self._boxes(index, deltas, image_sizes)
        kept, counts = nms(boxes, valid, self.nms_thresh, self.limit)
        chosen = boxes.gather(1, kept.clamp(min=0)[..., None].expand(-1, -1, 4))
        proposals = torch.where((kept >= 0)[..., None], chosen, 0.0)
        return proposals, counts, boxes, torch.ones_like(counts, dtype=torch.bool)


def float_mixers(graph: nn.Module) -> Mixers:
    """Copies of ARM's mixers, to make kernels of before they are rounded."""
    return {
        part: copy.deepcopy(part.mixer)
        for part in graph.modules()
        if isinstance(part, TrunkGraph) and isinstance(part.mixer, MixerGraph)
    }


def use_kernels(graph: nn.Module, mixers: Mixers, dtype: torch.dtype, device: torch.device) -> None:
    """Let a graph that is on its device run kernels, in place; `mixers` from `float_mixers`.

    Raises `UsageError` where they do not run.
    """
    if not available(device):
        raise UsageError(f"psarm's kernels do not run on {device}; they need Triton and a GPU from Ampere on.")
    from psarm.export.kernels.fused_mixer import FusedMixer

    for part in graph.modules():
        if isinstance(part, TrunkGraph):
            part.align = KernelAlign(dtype, None if part.bias is None else part.bias.flatten())
            part.bias = None
    for trunk, mixer in mixers.items():
        trunk.mixer = FusedMixer(mixer.to(device), dtype)
