"""Training frames as batches of tensors: decoded, resized, flipped, with identities as rows of OIM's table.

Every random choice is drawn from (seed, epoch, index), so an epoch is the same whatever the number of worker
processes and wherever training was interrupted. The sampler hands the epoch to the data set with each index, because
persistent workers keep their own copy of the data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from psarm.data.batches import GlobalBatches
from psarm.data.image_sizes import read_image_sizes
from psarm.data.images import read_image
from psarm.data.scenes import to_tensor
from psarm.data.types import UNLABELLED, Frame
from psarm.data.workers import begin_worker
from psarm.errors import DataError
from psarm.geometry import resized_size

Target = dict[str, Tensor]
"""boxes float32 [n,4] xyxy in pixels of the image; labels int64 [n], 0…C-1 or -1 for a person without identity; seed,
an int64 scalar of what is drawn for this image."""
_REPLACEMENTS = 100  # frames tried in place of one that cannot be read, before the whole data set is taken for broken


class Item(NamedTuple):
    """A training frame."""

    image: Tensor  # uint8 [3,h,w] RGB
    target: Target
    skipped: list[str]
    """A sentence about each frame that cannot be read and that this one stands in for."""


class Batch(NamedTuple):
    """Training frames; sizes differ, so nothing is stacked."""

    images: list[Tensor]
    targets: list[Target]
    skipped: list[str]
    """A sentence about each frame that cannot be read; always the same for the same frame."""


class TrainingFrames(Dataset[Item]):
    """The training frames of a data set; an item is asked for by (epoch, index).

    The image comes at the size the model works at, so that the model's own resize has nothing left to do.

    Args:
        frames: annotated frames.
        labels: identity → row of OIM's lookup table.
        min_size: the model's short side, pixels.
        max_size: the model's bound of the long side, pixels.
        flip: probability of a horizontal flip.
        seed: of all that is drawn.
        bad_images: what to do about a frame that cannot be decoded: "fail", or "skip" to give another one in its place.
    """

    def __init__(
        self,
        frames: Sequence[Frame],
        labels: dict[int, int],
        min_size: int,
        max_size: int,
        flip: float,
        seed: int,
        bad_images: Literal["fail", "skip"] = "fail",
    ) -> None:
        self.frames = frames
        self.labels = {**labels, UNLABELLED: UNLABELLED}
        self.min_size = min_size
        self.max_size = max_size
        self.flip = flip
        self.seed = seed
        self.bad_images = bad_images

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        """The frame of `key` = (epoch, index); raises `DataError` where it, or all in its place, cannot be decoded."""
        epoch, index = key
        frame, image, skipped = self._read(epoch, index)
        image, boxes = _resize(image, frame.boxes, self.min_size, self.max_size)
        rng = np.random.default_rng([self.seed, epoch, index])
        if rng.random() < self.flip:
            image, boxes = _flip(image, boxes)
        rows = [self.labels[int(identity)] for identity in frame.identities]
        target = {
            "boxes": torch.from_numpy(boxes),
            "labels": torch.tensor(rows, dtype=torch.int64),
            "seed": torch.tensor(rng.integers(2**63)),
        }
        return Item(to_tensor(image), target, skipped)

    def read_aspects(self) -> NDArray[np.float64]:
        """float [N], width / height of every frame, from the files' headers; raises `DataError` as items do."""
        sizes = read_image_sizes([frame.path for frame in self.frames], self.bad_images == "skip")
        return sizes[:, 0] / sizes[:, 1]

    def _read(self, epoch: int, index: int) -> tuple[Frame, np.ndarray, list[str]]:
        """A frame and its image, [h,w,3] BGR, and what was skipped for them."""
        frame = self.frames[index]
        try:
            return frame, read_image(frame.path), []
        except DataError as error:
            if self.bad_images == "fail":
                raise
            skipped = [str(error)]
        others = np.random.default_rng([self.seed, epoch, index, 1]).permutation(len(self.frames))[:_REPLACEMENTS]
        for frame in (self.frames[other] for other in others if other != index):
            try:
                return frame, read_image(frame.path), skipped
            except DataError as error:
                skipped.append(str(error))
        raise DataError(
            f"None of {len(skipped)} training frames can be read, so skipping does not help. The first: {skipped[0]}"
        )


class TrainingLoader(DataLoader[Item]):
    """Yields `Batch`; `batch_sampler.set_epoch` chooses the epoch."""

    batch_sampler: GlobalBatches


def training_loader(
    dataset: TrainingFrames,
    batch_size: int,
    workers: int,
    *,
    accumulate: int = 1,
    process: int = 0,
    processes: int = 1,
    aspects: NDArray[np.float64] | None = None,
) -> TrainingLoader:
    """The batches of one training process, `accumulate` of them a step; the frames of a last, smaller step are dropped.

    Args:
        dataset: the frames.
        batch_size: frames of a batch.
        workers: processes that decode, resize and flip; 0 = this one.
        accumulate: batches of a step.
        process: which of the training processes this is.
        processes: how many there are.
        aspects: float [N], width / height of every frame, the same in all processes: steps are made of frames of about
            one shape. None = of any frames.
    """
    return TrainingLoader(
        dataset,
        batch_sampler=GlobalBatches(
            len(dataset), dataset.seed, batch_size, accumulate, process, processes, aspects=aspects
        ),
        num_workers=workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        worker_init_fn=begin_worker,
        # Its own generator: the loader then draws nothing from the global one, which training depends on.
        generator=torch.Generator(),
    )


def collate(items: Sequence[Item]) -> Batch:
    """Items as a batch."""
    skipped = [sentence for item in items for sentence in item.skipped]
    return Batch([item.image for item in items], [item.target for item in items], skipped)


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
