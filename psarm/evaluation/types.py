"""What evaluation takes and gives back.

Legend: G gallery images, Q queries, M detections of all images together, D embedding size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psarm.errors import UsageError

Floating = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class ImageDetections:
    """People found in one image, in the detector's order."""

    boxes: Floating  # [n,4] xyxy pixels
    scores: Floating  # [n]
    embeddings: Floating  # [n,D] as matched, i.e. already weighted


@dataclass(frozen=True, eq=False)
class DetectionSet:
    """Detections of many images one after the other: the first `counts[0]` rows are those of image 0, and so on."""

    counts: NDArray[np.int64]  # [G]
    boxes: Floating  # [M,4] xyxy pixels
    scores: Floating  # [M]
    embeddings: Floating  # [M,D]

    def __post_init__(self) -> None:
        """Raise UsageError unless the arrays fit each other."""
        total = int(self.counts.sum())
        shapes = {"boxes": self.boxes.shape, "scores": self.scores.shape, "embeddings": self.embeddings.shape}
        expected = {"boxes": (total, 4), "scores": (total,), "embeddings": (total, self.embeddings.shape[-1])}
        wrong = [name for name in shapes if shapes[name] != expected[name]]
        if wrong:
            sentence = ", ".join(f"{name} has shape {list(shapes[name])}, not {list(expected[name])}" for name in wrong)
            raise UsageError(f"the counts of the images add up to {total} detections, but {sentence}.")

    @classmethod
    def from_images(cls, images: Sequence[ImageDetections]) -> DetectionSet:
        """Concatenate the detections of at least one image, in order."""
        return cls(
            counts=np.array([len(image.scores) for image in images], np.int64),
            boxes=np.concatenate([image.boxes for image in images]),
            scores=np.concatenate([image.scores for image in images]),
            embeddings=np.concatenate([image.embeddings for image in images]),
        )

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """int64 [G+1]: the detections of image i are the rows `offsets[i]` to `offsets[i + 1]`."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.counts)])

    @cached_property
    def images(self) -> NDArray[np.int64]:
        """int64 [M]: the image each detection lies in."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def of_image(self, index: int) -> ImageDetections:
        """The detections of one image (views, not copies)."""
        rows = slice(self.offsets[index], self.offsets[index + 1])
        return ImageDetections(self.boxes[rows], self.scores[rows], self.embeddings[rows])

    def at_least(self, score: float) -> DetectionSet:
        """Only the detections with a score of at least `score`; all images stay."""
        return self._keep(self.scores >= score)

    def rows_of(self, images: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of the detections of some images (int64 [n]), one image after the other, in the given order."""
        starts, counts = self.offsets[images], self.counts[images]
        rows: NDArray[np.int64] = np.repeat(starts - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        return rows

    def reordered(self, order: NDArray[np.int64]) -> DetectionSet:
        """The same detections with image `order[i]` at place i."""
        rows = self.rows_of(order)
        return DetectionSet(self.counts[order], self.boxes[rows], self.scores[rows], self.embeddings[rows])

    def _keep(self, mask: NDArray[np.bool_]) -> DetectionSet:
        counts = np.bincount(self.images[mask], minlength=len(self.counts)).astype(np.int64)
        return DetectionSet(counts, self.boxes[mask], self.scores[mask], self.embeddings[mask])


@dataclass(frozen=True)
class DetectionMetrics:
    """Detection quality as fractions."""

    recall: float
    ap: float

    def to_dict(self) -> dict[str, float]:
        """The metrics by name."""
        return asdict(self)


@dataclass(frozen=True)
class SearchMetrics:
    """Search quality as fractions."""

    mAP: float
    top1: float
    top5: float
    top10: float

    def to_dict(self) -> dict[str, float]:
        """The metrics by name."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class QueryRanks:
    """What became of every query."""

    average_precisions: NDArray[np.float64]  # [Q] scaled by recall; 0 when nothing was found
    first_ranks: NDArray[np.int64]  # [Q] rank from 0 of the best true positive, -1 when there is none

    def metrics(self) -> SearchMetrics:
        """Means over all queries."""
        found = self.first_ranks >= 0
        top = {f"top{k}": float(np.mean(found & (self.first_ranks < k))) for k in (1, 5, 10)}
        return SearchMetrics(mAP=float(np.mean(self.average_precisions)), **top)


@dataclass(frozen=True, eq=False)
class QueryHits:
    """The k most similar detections of every query, best first."""

    images: NDArray[np.int64]  # [Q,k] the gallery image, -1 where a query's gallery has no further detection
    boxes: NDArray[np.float64]  # [Q,k,4] xyxy pixels
    similarities: NDArray[np.float64]  # [Q,k]
    right: NDArray[np.bool_]  # [Q,k] whether it is the query's person
