"""Run an engine over a data set: the one way from images to what the metrics need.

An engine is anything that finds and embeds people in an image of the kind its `load` gives: the torch model, a bundle.
Q queries, T ground-truth boxes of the gallery, D embedding dimensions; boxes are [n,4] xyxy pixels of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, eq=False)
class Share:
    """What one of P processes found: people of gallery images p, p + P, p + 2P, …, and some of the queries."""

    gallery: list[ImageDetections]
    queries: dict[int, Floating]
    """Which query → its embedding [D]; empty with CBGM, where contexts have it."""
    contexts: dict[int, ImageDetections]
    """Which query → the people around it, itself first; empty without CBGM."""


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
    return put_together(dataset, [collect_share(engine, dataset, load, cbgm, title)])


def collect_share(
    engine: Engine[Image],
    dataset: StoredDataset,
    load: Load[Image],
    cbgm: bool = False,
    title: str | None = "evaluating",
    process: int = 0,
    processes: int = 1,
) -> Share:
    """What process p of P is to find for `put_together`; arguments and errors are those of `collect_detections`.

    Args:
        engine, dataset, load, cbgm: as there.
        title: of the progress bars; None = without.
        process: p.
        processes: P.
    """
    frames = dataset.gallery[process::processes]
    images = _tracked(load([frame.path for frame in frames]), title, "gallery", len(frames))
    gallery = [_detections(engine.detect(image)) for image in images]
    part = slice(process, None, processes)
    if cbgm:
        return Share(gallery, {}, _contexts(engine, dataset, load, title, part))
    return Share(gallery, _query_embeddings(engine, dataset, load, title, part), {})


def put_together(dataset: StoredDataset, shares: Sequence[Share]) -> DetectionsFile:
    """What all processes found, their shares in the order of processes, as if one had found it."""
    people: dict[int, ImageDetections] = {}
    queries: dict[int, Floating] = {}
    contexts: dict[int, ImageDetections] = {}
    for process, share in enumerate(shares):
        people |= zip(range(process, len(dataset.gallery), len(shares)), share.gallery, strict=True)
        queries |= share.queries
        contexts |= share.contexts
    names = [frame.name for frame in dataset.gallery]
    gallery = DetectionSet.from_images([people[row] for row in range(len(names))])
    rows = range(len(dataset.queries))
    if not contexts:
        return DetectionsFile(names, gallery, np.stack([queries[row] for row in rows]))
    context = DetectionSet.from_images([contexts[row] for row in rows])
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


def _query_embeddings(
    engine: Engine[Image], dataset: StoredDataset, load: Load[Image], title: str | None, part: slice
) -> dict[int, Floating]:
    """Embeddings [D] of the queries of a part of their images; those of one image are embedded together."""
    rows_of: dict[Path, list[int]] = {}
    for row, query in enumerate(dataset.queries):
        rows_of.setdefault(query.path, []).append(row)
    mine = list(rows_of.items())[part]
    images = _tracked(load([path for path, _ in mine]), title, "queries", len(mine))
    embeddings: dict[int, Floating] = {}
    for image, (path, rows) in zip(images, mine, strict=True):
        boxes = np.stack([dataset.queries[row].box for row in rows])
        embeddings.update(zip(rows, embed_boxes(engine, image, path, boxes), strict=True))
    return embeddings


def _contexts(
    engine: Engine[Image], dataset: StoredDataset, load: Load[Image], title: str | None, part: slice
) -> dict[int, ImageDetections]:
    mine = list(enumerate(dataset.queries))[part]
    images = _tracked(load([query.path for _, query in mine]), title, "query contexts", len(mine))
    return {row: find_context(engine, image, query) for image, (row, query) in zip(images, mine, strict=True)}


def _tracked(images: Iterable[Image], title: str | None, what: str, total: int) -> Iterable[Image]:
    return images if title is None else track(images, f"{title}: {what}", total=total)


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
