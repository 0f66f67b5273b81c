"""What a model costs: parameters, and multiply-adds of one frame, counted on the PyTorch model as it is.

Nothing is computed: the model and its inputs are on torch's meta device, which has shapes and no numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from psarm.config import ModelConfig
from psarm.geometry import resized_size
from psarm.model.builder import build_model
from psarm.model.roi_heads import PersonSearchHeads

FRAME = (1080, 1920)
"""Height and width of the frame that is counted, before resizing."""
PROPOSALS = 300
"""RoIs of the first head, of a model that leaves as many."""
PEOPLE = 20
"""RoIs of every re-id head."""
PAD = 32  # batches are padded to multiples of this


@dataclass(frozen=True)
class Macs:
    """Multiply-adds of one frame in convolutions, linear layers and attention, a stage each.

    RoIAlign, norms, activations and everything else that works element by element is not counted.
    """

    backbone: int
    rpn: int
    first_head: int
    reid_heads: int

    @property
    def total(self) -> int:
        """Of all stages."""
        return sum(dataclasses.astuple(self))


@dataclass(frozen=True)
class Cost:
    """Parameters (trained or not; no statistics, no tables) and multiply-adds."""

    parameters: int
    macs: Macs


def model_cost(config: ModelConfig) -> Cost:
    """The cost of a model on a frame of `FRAME`, resized as `config` says, with `PROPOSALS` at most and `PEOPLE`."""
    height, width = (-(-side // PAD) * PAD for side in resized_size(*FRAME, config.min_size, config.max_size))
    counts = (min(PROPOSALS, config.post_nms_top_n_test), PEOPLE)
    with torch.device("meta"):
        model = build_model(config).eval()
        image = torch.empty(1, 3, height, width)
        channels = model.backbone.out_channels
        proposals, people = (torch.empty(count, channels, *config.roi_shape) for count in counts)
    features, backbone = _count(model.backbone, image)
    _, rpn = _count(model.rpn.head, [features])
    _, first_head = _count(lambda rois: _first_head(model.roi_heads, rois), proposals)
    _, reid_heads = _count(lambda rois: [head.outputs(rois) for head in model.roi_heads.reid_heads], people)
    return Cost(sum(p.numel() for p in model.parameters()), Macs(backbone, rpn, first_head, reid_heads))


def _first_head(heads: PersonSearchHeads, rois: Tensor) -> Any:
    if heads.box_head is None or heads.faster_rcnn_predictor is None:
        return heads.outputs(rois)
    _, deep = heads.box_head(rois)
    return heads.faster_rcnn_predictor(deep)


def _count(function: Callable[..., Any], *arguments: Any) -> tuple[Any, int]:
    """What `function` answers, and its multiply-adds: torch counts two operations for each."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        answer = function(*arguments)
    return answer, counter.get_total_flops() // 2
