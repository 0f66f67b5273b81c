"""Images as tensors: training frames (decoded, resized, flipped, with identities as rows of OIM's table) and scenes.

Every random choice is drawn from (seed, epoch, index), so an epoch is the same whatever the number of worker
processes and wherever training was interrupted. The sampler hands the epoch to the data set with each index, because
persistent workers keep their own copy of the data set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from psarm.data.images import read_whole_image
from psarm.data.types import UNLABELLED, Frame
from psarm.errors import DataError
from psarm.geometry import resized_size

Target = dict[str, Tensor]
"""boxes float32 [n,4] xyxy in pixels of the image; labels int64 [n], 0…C-1 or -1 for a person without identity."""
Batch = tuple[list[Tensor], list[Target]]
T = TypeVar("T")


class TrainingFrames(Dataset[tuple[Tensor, Target]]):
    """The training frames of a data set; an item is asked for by (epoch, index).

    An item is an image, uint8 [3,h,w] RGB, and its target. The image comes at the size the model works at, so that the
    model's own resize has nothing left to do.

    Args:
        frames: annotated frames.
        labels: identity → row of OIM's lookup table.
        min_size: the model's short side, pixels.
        max_size: the model's bound of the long side, pixels.
        flip: probability of a horizontal flip.
        seed: of the flips.
    """

    def __init__(
        self, frames: Sequence[Frame], labels: dict[int, int], min_size: int, max_size: int, flip: float, seed: int
    ) -> None:
        self.frames = frames
        self.labels = {**labels, UNLABELLED: UNLABELLED}
        self.min_size = min_size
        self.max_size = max_size
        self.flip = flip
        self.seed = seed

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Target]:
        """The image and target of `key` = (epoch, index); raises `DataError` where the image cannot be decoded."""
        epoch, index = key
        frame = self.frames[index]
        image = read_image(frame.path)
        image, boxes = _resize(image, frame.boxes, self.min_size, self.max_size)
        if np.random.default_rng([self.seed, epoch, index]).random() < self.flip:
            image, boxes = _flip(image, boxes)
        rows = [self.labels[int(identity)] for identity in frame.identities]
        target = {"boxes": torch.from_numpy(boxes), "labels": torch.tensor(rows, dtype=torch.int64)}
        return to_tensor(image), target


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index) in an order that depends on the seed and the epoch only."""

    def __init__(self, length: int, seed: int) -> None:
        self.length = length
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration yields."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        return iter([(self.epoch, int(index)) for index in order])


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
    """The images at `paths`, uint8 [3,h,w] RGB, one by one in order; raises `DataError` naming an unreadable one."""
    return plain_errors(DataLoader(Scenes(paths), batch_size=None, num_workers=workers, worker_init_fn=_single_thread))


def plain_errors(loader: Iterable[T]) -> Iterator[T]:
    """Iterate over a loader; a worker's `DataError`, which arrives with its traceback, becomes its sentence again."""
    try:
        yield from loader
    except DataError as error:
        raise DataError(str(error).rpartition("DataError: ")[2].strip()) from None


def training_loader(dataset: TrainingFrames, batch_size: int, workers: int) -> DataLoader[tuple[Tensor, Target]]:
    """Batches of (images, targets); the last, smaller batch of an epoch is dropped as in the released recipe."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=EpochSampler(len(dataset), dataset.seed),
        num_workers=workers,
        collate_fn=collate,
        drop_last=True,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        worker_init_fn=_single_thread,
        # Its own generator: the loader then draws nothing from the global one, which training depends on.
        generator=torch.Generator(),
    )


def collate(items: Sequence[tuple[Tensor, Target]]) -> Batch:
    """Items as a list of images and a list of targets: sizes differ, so nothing is stacked."""
    return [image for image, _ in items], [target for _, target in items]


def read_image(path: Path) -> np.ndarray:
    """An image of a data set, uint8 [h,w,3] BGR; raises `DataError` naming the file."""
    try:
        return read_whole_image(path)
    except DataError as error:
        reason = str(error).rstrip(".")
        raise DataError(f"Cannot read {path} ({reason}); psarm data check names every broken file.") from error


def to_tensor(image: np.ndarray) -> Tensor:
    """uint8 [h,w,3] BGR to uint8 [3,h,w] RGB."""
    return torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1)))


def _resize(image: np.ndarray, boxes: np.ndarray, min_size: int, max_size: int) -> tuple[np.ndarray, np.ndarray]:
    height, width = image.shape[:2]
    size = resized_size(height, width, min_size, max_size)
    # Rounding down can leave a size that the model would resize once more; then the model does the only resize.
    if size == (height, width) or resized_size(*size, min_size, max_size) != size:
        return image, boxes
    ratios = np.array([size[1] / width, size[0] / height] * 2, np.float32)
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR), boxes * ratios


def _flip(image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    width = image.shape[1]
    flipped = boxes.copy()
    flipped[:, [0, 2]] = width - boxes[:, [2, 0]]
    return image[:, ::-1], flipped


def _single_thread(worker: int) -> None:
    cv2.setNumThreads(0)
