"""Whole images of a data set as tensors, at full size: what evaluation runs on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from psarm.data.images import read_image
from psarm.data.workers import begin_worker, plain_errors


class Scenes(Dataset[Tensor]):
    """Whole images as they are, uint8 [3,h,w] RGB."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """Image number `index`; raises `DataError` where it cannot be decoded."""
        return to_tensor(read_image(self.paths[index]))


def read_scenes(paths: Sequence[Path], workers: int) -> Iterator[Tensor]:
    """The images at `paths`, uint8 [3,h,w] RGB, one by one in order.

    Raises:
        DataError: an image cannot be read (the sentence names it), or a worker process died.
    """
    return plain_errors(DataLoader(Scenes(paths), batch_size=None, num_workers=workers, worker_init_fn=begin_worker))


def to_tensor(image: np.ndarray) -> Tensor:
    """uint8 [h,w,3] BGR to uint8 [3,h,w] RGB."""
    return torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1)))
