"""What is measured: the yardstick with its conditioned weights, the frame, and batches of it on the device.

N images, [H,W] padded, R people of all images, D embedding dimensions.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from psarm.benchmarks.yardstick import FRAME, PEOPLE, draw_yardstick_frame, make_yardstick, scaled_config
from psarm.export.device_frames import FrameUploader
from psarm.export.manifest_of import preprocessing_of
from psarm.export.torch_forms import Form, build_forms
from psarm.model import PersonSearchModel

TINY_FRAME = (108, 192)
TINY_PEOPLE = 3
TINY_CANDIDATES = 200


@dataclass(frozen=True)
class Case:
    """A batch, and the people whose embeddings are wanted."""

    images: Tensor  # float32 [N,3,H,W]
    sizes: Tensor  # int64 [N,2], height and width
    boxes: Tensor  # float32 [R,4]
    numbers: Tensor  # int64 [R], image of each

    @property
    def batch(self) -> int:
        """N."""
        return len(self.images)


class Subject:
    """The model on the host, its frame, and the boxes that its first head finds there."""

    def __init__(self, device: torch.device, tiny: bool) -> None:
        self.device = device
        self.preset, size, self.people = ("tiny", TINY_FRAME, TINY_PEOPLE) if tiny else ("released", FRAME, PEOPLE)
        self.frame: NDArray[np.uint8] = draw_yardstick_frame(*size)
        self.config = scaled_config(self.preset, size[1])
        if tiny:
            self.config = dataclasses.replace(self.config, pre_nms_top_n_test=TINY_CANDIDATES)
        self._model = make_yardstick(self.config, self.frame, self.people)
        with torch.inference_mode():
            images, sizes = FrameUploader(preprocessing_of(self.config), device)([self.frame])
            self._image = images
            self._size = torch.from_numpy(sizes).to(device)
            detect = build_forms(self.model(), Form(), device)["detect"]
            boxes, scores = detect.ordinary(images, self._size)[:2]
            self._best = boxes[0, scores[0].argsort(descending=True)]

    def model(self) -> PersonSearchModel:
        """A copy on the host, to be changed."""
        return copy.deepcopy(self._model)

    def case(self, batch: int, people: int) -> Case:
        """The frame `batch` times, `people` on each: the boxes that the first head is surest of."""
        rows = torch.arange(people, device=self.device) % len(self._best)
        return Case(
            self._image.repeat(batch, 1, 1, 1).contiguous(memory_format=torch.channels_last),
            self._size.repeat(batch, 1),
            self._best[rows].repeat(batch, 1),
            torch.arange(batch, device=self.device).repeat_interleave(people),
        )

    def facts(self) -> dict[str, Any]:
        """For the report."""
        return {
            "preset": self.preset,
            "frame": list(self.frame.shape[:2]),
            "resized": self._size[0].tolist(),
            "padded": list(self._image.shape[2:]),
            "people": self.people,
        }
