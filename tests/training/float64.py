"""psarm's command line in float64, where rounding does not grow into another choice of proposals for some steps."""

import sys

import torch

from psarm.cli import run
from psarm.data.loader import TrainingFrames

torch.set_default_dtype(torch.float64)
torch.Tensor.float = torch.Tensor.double
item = TrainingFrames.__getitem__


def with_wide_boxes(frames, key):
    found = item(frames, key)
    found.target["boxes"] = found.target["boxes"].double()
    return found


TrainingFrames.__getitem__ = with_wide_boxes
sys.exit(run(sys.argv[1:]))
