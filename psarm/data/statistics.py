"""Numbers that describe a person search data set."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psarm.data.types import UNLABELLED, Frame, Query

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class Counts:
    """How much there is in some frames."""

    frames: int
    boxes: int
    unlabelled: int
    """Boxes without identity."""
    identities: int


@dataclass(frozen=True)
class QueryStatistics:
    """How hard the queries can be."""

    queries: int
    identities: int
    gallery_frames: list[float]
    """Quantiles over queries of the frames of its gallery (the default one) that hold the person."""
    other_cameras: list[float]
    """As `gallery_frames`, counting only frames of other cameras."""
    without_match: int
    """Queries whose person is in no frame of their gallery."""


@dataclass(frozen=True)
class Statistics:
    """A data set in numbers; quantile lists are at `QUANTILES`, empty without data."""

    splits: dict[str, Counts]
    cameras: dict[str, dict[int, Counts]]
    """Split → camera → counts."""
    image_sizes: dict[str, int]
    """`WIDTHxHEIGHT` → images, the commonest first."""
    box_widths: list[float]
    box_heights: list[float]
    people_per_frame: list[float]
    queries: QueryStatistics

    def to_dict(self) -> dict[str, Any]:
        """The numbers as JSON values."""
        return {"quantiles": list(QUANTILES), **asdict(self)}


def frames_with_person(
    gallery: Sequence[Frame], queries: Sequence[Query], galleries: Sequence[NDArray[np.int64]] | None = None
) -> list[NDArray[np.int64]]:
    """Of every query, the frames of its gallery that its identity is annotated in, its own excepted.

    Args:
        gallery: test frames.
        queries: people searched for.
        galleries: for every query, the indices into `gallery` that it is searched in; None = all.
    """
    seen: dict[int, list[int]] = defaultdict(list)
    for index, frame in enumerate(gallery):
        for identity in set(frame.identities.tolist()) - {UNLABELLED}:
            seen[identity].append(index)
    showing = []
    for row, query in enumerate(queries):
        others = [index for index in seen[query.identity] if gallery[index].name != query.name]
        frames = np.array(others, np.int64)
        showing.append(frames if galleries is None else frames[np.isin(frames, galleries[row])])
    return showing


def describe(
    train: Sequence[Frame],
    gallery: Sequence[Frame],
    queries: Sequence[Query],
    showing: Sequence[NDArray[np.int64]],
    sizes: Counter[tuple[int, int]],
) -> Statistics:
    """Count what is in the frames and queries.

    Args:
        train: training frames.
        gallery: test frames.
        queries: people searched for in the gallery.
        showing: for every query, the indices into `gallery` of the frames of its gallery that hold the person.
        sizes: (width, height) → number of images.
    """
    splits = {"train": train, "test": gallery}
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(frame.boxes for frame in (*train, *gallery))])
    widths, heights = (boxes[:, 2:] - boxes[:, :2]).T
    return Statistics(
        splits={split: _counts(frames) for split, frames in splits.items()},
        cameras={split: _per_camera(frames) for split, frames in splits.items()},
        image_sizes={f"{width}x{height}": count for (width, height), count in sizes.most_common()},
        box_widths=_quantiles(widths.tolist()),
        box_heights=_quantiles(heights.tolist()),
        people_per_frame=_quantiles([len(frame.identities) for frame in (*train, *gallery)]),
        queries=_describe_queries(gallery, queries, showing),
    )


def _counts(frames: Sequence[Frame]) -> Counts:
    identities = [int(identity) for frame in frames for identity in frame.identities]
    labelled = [identity for identity in identities if identity != UNLABELLED]
    return Counts(len(frames), len(identities), len(identities) - len(labelled), len(set(labelled)))


def _per_camera(frames: Sequence[Frame]) -> dict[int, Counts]:
    groups = defaultdict(list)
    for frame in frames:
        groups[frame.camera].append(frame)
    return {camera: _counts(groups[camera]) for camera in sorted(groups)}


def _describe_queries(
    gallery: Sequence[Frame], queries: Sequence[Query], showing: Sequence[NDArray[np.int64]]
) -> QueryStatistics:
    cameras = np.array([frame.camera for frame in gallery], np.int64)
    elsewhere = [int(np.count_nonzero(cameras[rows] != q.camera)) for q, rows in zip(queries, showing, strict=True)]
    return QueryStatistics(
        queries=len(queries),
        identities=len({query.identity for query in queries}),
        gallery_frames=_quantiles([len(rows) for rows in showing]),
        other_cameras=_quantiles(elsewhere),
        without_match=sum(len(rows) == 0 for rows in showing),
    )


def _quantiles(values: Sequence[float]) -> list[float]:
    return [round(float(value), 1) for value in np.quantile(values, QUANTILES)] if values else []
