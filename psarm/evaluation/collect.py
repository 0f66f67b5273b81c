"""Run an engine over a data set: the one way from images to what the metrics need.

An engine is anything that finds and embeds people in an image of the kind its `load` gives: the torch model, a bundle.
Q queries, T ground-truth boxes of the gallery, D embedding dimensions; boxes are [n,4] xyxy pixels of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from psarm.console import track
from psarm.errors import DataError, UsageError
from psarm.evaluation.detections_file import DetectionsFile
from psarm.evaluation.protocol import FrameLike, QueryLike
from psarm.evaluation.types import DetectionSet, Floating, ImageDetections

Image = TypeVar("Image")
AnyImage = TypeVar("AnyImage", contravariant=True)
Load = Callable[[Sequence[Path]], Iterable[Image]]
"""Reads image files, in order; may read ahead in other processes."""


class People(Protocol):
    """People of one image: `ImageDetections`, `psarm.runtime.Detections`."""

    @property
    def boxes(self) -> Floating:
        """[n,4] xyxy pixels."""

    @property
    def scores(self) -> Floating:
        """[n]."""

    @property
    def embeddings(self) -> Floating:
        """[n,D]."""


class Engine(Protocol[AnyImage]):
    """Finds and embeds people; `psarm.runtime.PersonSearch` is one."""

    def detect(self, image: AnyImage, /) -> People:
        """Everybody; embeddings weighted by the score."""

    def embed(self, image: AnyImage, boxes: NDArray[Any], /) -> Floating:
        """Unit embeddings [n,D] of given boxes [n,4]."""

    def detect_around(self, image: AnyImage, box: NDArray[Any], /) -> People:
        """Everybody, the given box [4] first; embeddings not weighted."""


class StoredFrame(FrameLike, Protocol):
    """A gallery image on disk."""

    @property
    def path(self) -> Path:
        """The image file."""


class StoredQuery(QueryLike, Protocol):
    """A query whose image is on disk."""

    @property
    def path(self) -> Path:
        """The image file."""


class StoredDataset(Protocol):
    """A data set whose images are on disk (`psarm.data.types.PersonSearchDataset`)."""

    @property
    def gallery(self) -> Sequence[StoredFrame]:
        """Images searched in."""

    @property
    def queries(self) -> Sequence[StoredQuery]:
        """People searched for."""


def collect_detections(
    engine: Engine[Image], dataset: StoredDataset, load: Load[Image], cbgm: bool = False, title: str = "evaluating"
) -> DetectionsFile:
    """Everybody in the gallery, and the embedding of every query.

    Args:
        engine: runs image by image.
        dataset: its gallery and queries are read.
        load: reads images as `engine` takes them.
        cbgm: also find the people around each query.
        title: of the progress bars.

    Raises:
        DataError: a query's box cannot be embedded (it lies outside its image); and whatever `load` raises.
    """
    images = track(load([frame.path for frame in dataset.gallery]), f"{title}: gallery", total=len(dataset.gallery))
    gallery = DetectionSet.from_images([_detections(engine.detect(image)) for image in images])
    names = [frame.name for frame in dataset.gallery]
    if not cbgm:
        return DetectionsFile(names, gallery, _query_embeddings(engine, dataset, load, title))
    context = _contexts(engine, dataset, load, title)
    # A context begins with the query itself, so its first rows are the query embeddings.
    return DetectionsFile(names, gallery, context.embeddings[context.offsets[:-1]], context)


def embed_ground_truth(
    engine: Engine[Image], dataset: StoredDataset, load: Load[Image], title: str = "evaluating"
) -> Floating:
    """Unit embeddings [T,D] of the gallery's ground-truth boxes, for `ground_truth_detections`; raises `DataError`."""
    frames = [frame for frame in dataset.gallery if len(frame.boxes)]
    images = track(load([frame.path for frame in frames]), f"{title}: ground-truth boxes", total=len(frames))
    return np.concatenate(
        [embed_boxes(engine, image, frame.path, frame.boxes) for image, frame in zip(images, frames, strict=True)]
    )


def _query_embeddings(engine: Engine[Image], dataset: StoredDataset, load: Load[Image], title: str) -> Floating:
    """[Q,D]; queries of one image are embedded together."""
    rows_of: dict[Path, list[int]] = {}
    for row, query in enumerate(dataset.queries):
        rows_of.setdefault(query.path, []).append(row)
    images = track(load(list(rows_of)), f"{title}: queries", total=len(rows_of))
    embeddings: dict[int, Floating] = {}
    for image, (path, rows) in zip(images, rows_of.items(), strict=True):
        boxes = np.stack([dataset.queries[row].box for row in rows])
        embeddings.update(zip(rows, embed_boxes(engine, image, path, boxes), strict=True))
    return np.stack([embeddings[row] for row in range(len(dataset.queries))])


def _contexts(engine: Engine[Image], dataset: StoredDataset, load: Load[Image], title: str) -> DetectionSet:
    queries = dataset.queries
    images = track(load([query.path for query in queries]), f"{title}: query contexts", total=len(queries))
    return DetectionSet.from_images(
        [find_context(engine, image, query) for image, query in zip(images, queries, strict=True)]
    )


def find_context(engine: Engine[Image], image: Image, query: StoredQuery) -> ImageDetections:
    """The people of a query's own image, the query first, embeddings not weighted; raises `DataError`."""
    try:
        return _detections(engine.detect_around(image, query.box))
    except UsageError as error:
        raise DataError(f"A query's box in {query.path} cannot be used: {error}") from error


def embed_boxes(engine: Engine[Image], image: Image, path: Path, boxes: NDArray[Any]) -> Floating:
    """Unit embeddings [n,D] of annotated boxes [n,4] of the image that was read from `path`; raises `DataError`."""
    try:
        return engine.embed(image, boxes)
    except UsageError as error:
        raise DataError(f"An annotated box in {path} cannot be used: {error}") from error


def _detections(people: People) -> ImageDetections:
    return ImageDetections(people.boxes, people.scores, people.embeddings)
