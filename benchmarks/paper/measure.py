"""Everything a checkpoint finds in the test split, in parts small enough that a killed run loses little.

Legend: G gallery images, T their ground-truth boxes, Q queries, D embedding size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np

from psarm.benchmarks.engines import Frame, SearchEngine
from psarm.benchmarks.paper.contender import Contender
from psarm.benchmarks.paper.work import Arrays, Key, WorkFolder
from psarm.console import err, progress
from psarm.data.types import PersonSearchDataset
from psarm.evaluation import DetectionSet, DetectionsFile, ImageDetections
from psarm.evaluation.collect import embed_boxes, find_context
from psarm.evaluation.types import Floating
from psarm.runtime.images import read_image

PART = 50
"""Images of a part."""
_FIELDS = ("counts", "boxes", "scores", "embeddings")


@dataclass(frozen=True, eq=False)
class Found:
    """What one checkpoint found."""

    detections: DetectionsFile  # with contexts
    truth: Floating  # [T,D] embeddings of the ground-truth boxes


@dataclass(frozen=True)
class _Part:
    """Some images in a row, of the gallery or of the queries."""

    kind: str
    start: int
    stop: int

    @property
    def images(self) -> int:
        """How many."""
        return self.stop - self.start

    def key(self, common: Key) -> Key:
        """What its result lies under."""
        return {**common, "step": self.kind, "start": self.start, "stop": self.stop}


def find_people(
    contender: Contender, dataset: PersonSearchDataset, work: WorkFolder, common: Key, threads: int
) -> Found:
    """Run a checkpoint over what earlier runs left of the gallery and the queries.

    Args:
        contender: loaded only where something is left to do.
        dataset: its gallery and queries are read.
        work: holds the parts.
        common: what every part depends on: checkpoint, data set, device, versions.
        threads: CPU threads.

    Raises:
        ImageError: an image cannot be read.
        DataError: an annotated box cannot be embedded.
        CheckpointError: the checkpoint's file was replaced.
    """
    parts = _parts("gallery", len(dataset.gallery)) + _parts("queries", len(dataset.queries))
    left = [part for part in parts if not work.has(part.key(common))]
    if len(left) < len(parts):
        done = len(parts) - len(left)
        err.print(f"{contender.name}: {done} of {len(parts)} parts were measured before and are kept.", markup=False)
    stored: dict[str, list[Arrays]] = {"gallery": [], "queries": []}
    with _opened(contender, threads) as engine, progress() as bar:
        task = bar.add_task(contender.name, total=sum(part.images for part in parts))

        def measure(part: _Part) -> Arrays:
            of_kind = _measure_gallery if part.kind == "gallery" else _measure_queries
            return of_kind(engine(), dataset, part, lambda: bar.advance(task))

        for number, part in enumerate(parts, start=1):
            if part not in left:
                bar.advance(task, part.images)
            stored[part.kind].append(work.arrays(part.key(common), partial(measure, part)))
            if part in left and not err.is_terminal:  # where no bar is seen, a long run is not silent
                err.print(f"{contender.name}: part {number} of {len(parts)} is measured.", markup=False)
    gallery, context = (_together(stored[kind]) for kind in ("gallery", "queries"))
    names = [frame.name for frame in dataset.gallery]
    queries = context.embeddings[context.offsets[:-1]]  # a context begins with the query itself
    return Found(
        DetectionsFile(names, gallery, queries, context), np.concatenate([a["truth"] for a in stored["gallery"]])
    )


def _parts(kind: str, count: int) -> list[_Part]:
    return [_Part(kind, start, min(start + PART, count)) for start in range(0, count, PART)]


@contextmanager
def _opened(contender: Contender, threads: int) -> Iterator[Callable[[], SearchEngine]]:
    """Gives the engine when it is first asked for, and closes it."""
    opened: list[SearchEngine] = []

    def engine() -> SearchEngine:
        if not opened:
            opened.append(contender.open(threads))
        return opened[0]

    try:
        yield engine
    finally:
        for one in opened:
            one.close()


def _measure_gallery(
    engine: SearchEngine, dataset: PersonSearchDataset, part: _Part, advance: Callable[[], None]
) -> Arrays:
    people, truth = [], []
    for frame in dataset.gallery[part.start : part.stop]:
        image = read_image(frame.path)
        people.append(_detections(engine, image))
        if len(frame.boxes):
            truth.append(embed_boxes(engine, image, frame.path, frame.boxes))
        advance()
    found = _arrays(people)
    return {**found, "truth": np.concatenate(truth) if truth else found["embeddings"][:0]}


def _measure_queries(
    engine: SearchEngine, dataset: PersonSearchDataset, part: _Part, advance: Callable[[], None]
) -> Arrays:
    people = []
    for query in dataset.queries[part.start : part.stop]:
        people.append(find_context(engine, read_image(query.path), query))
        advance()
    return _arrays(people)


def _detections(engine: SearchEngine, image: Frame) -> ImageDetections:
    found = engine.detect(image)
    return ImageDetections(found.boxes, found.scores, found.embeddings)


def _arrays(people: list[ImageDetections]) -> Arrays:
    found = DetectionSet.from_images(people)
    return {name: getattr(found, name) for name in _FIELDS}


def _together(parts: list[Arrays]) -> DetectionSet:
    return DetectionSet(**{name: np.concatenate([part[name] for part in parts]) for name in _FIELDS})
