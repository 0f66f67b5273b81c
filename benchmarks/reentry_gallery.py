"""Footage → a gallery: by `psarm index`, or of the labelled boxes, so that the gallery is judged without a detector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from psarm.benchmarks.reentry_footage import Footage
from psarm.benchmarks.reentry_matching import Row
from psarm.benchmarks.runs import run_psarm
from psarm.data.convert.split import WrittenFrame
from psarm.errors import DataError
from psarm.runtime import Detections, PersonSearch
from psarm.runtime.gallery.records import IndexedPeople, SourceBatch
from psarm.runtime.indexing.reading import SourceReader, TakenFrame
from psarm.runtime.indexing.sampling import Sampling
from psarm.runtime.indexing.sources import find_readers

if TYPE_CHECKING:
    from psarm.runtime.gallery.gallery import Gallery

FRAMES_PER_COMMIT = 100


def index_footage(bundle: Path, footage: Footage, fps: float | None, where: Path, options: Sequence[str]) -> None:
    """Index all videos of the footage together, with the real command; raises `PsarmError` where it fails."""
    videos = [str(video.path) for video in footage.videos]
    cameras = [word for video in footage.videos for word in ("--camera", video.camera)]
    rate = ["--every", "1"] if fps is None else ["--fps", f"{fps:g}"]
    run_psarm(["index", str(bundle), *videos, "--gallery", str(where), *cameras, *rate, *options])


def index_labels(engine: PersonSearch, footage: Footage, fps: float | None, where: Path) -> None:
    """Index the labelled boxes as if they had been found, with score 1, followed by the same tracker."""
    from psarm.runtime.gallery.gallery import Gallery

    manifest = engine.bundle.manifest
    gallery = Gallery.create(
        where, manifest.embedding.fingerprint, engine.embedding_dim, str(engine.bundle.path), thumbnails=False
    )
    due = {(frame.source, footage.id_of(frame)): frame for frame in footage.due(fps)}
    readers = open_readers(footage, fps)
    with gallery, gallery.writer() as writer:
        for video, reader in enumerate(readers):
            source = writer.add_source(reader.plan()).source
            labelled = {frame_id: frame for (index, frame_id), frame in due.items() if index == video}
            people = list(_labelled_people(engine, reader, labelled))
            for start in range(0, len(people), FRAMES_PER_COMMIT):
                writer.commit([SourceBatch(source, tuple(people[start : start + FRAMES_PER_COMMIT]))])


def open_readers(footage: Footage, fps: float | None) -> list[SourceReader]:
    """Readers of the footage's videos."""
    paths = [str(video.path) for video in footage.videos]
    return find_readers(paths, [video.camera for video in footage.videos], Sampling(fps=fps))


def _labelled_people(
    engine: PersonSearch, reader: SourceReader, labelled: dict[int, WrittenFrame]
) -> Iterator[IndexedPeople]:
    from psarm.runtime.indexing.tracking import VisitTracker

    tracker, read = VisitTracker(), 0
    for item in reader.read():
        if not isinstance(item, TakenFrame):
            raise DataError(f"{reader.source.name} has {item.count} frames that cannot be had: {item.reason}.")
        if item.frame not in labelled:
            raise DataError(f"{reader.source.name} has a frame at {item.frame} µs, where its labels know of none.")
        read += 1
        boxes = np.array([person.box for person in labelled[item.frame].people], np.float32).reshape(-1, 4)
        scores = np.ones(len(boxes), np.float32)
        embeddings = engine.embed(item.image, boxes)
        visits = tracker.update(item.frame, Detections(boxes, scores, embeddings))
        yield IndexedPeople(item.frame, item.time, boxes, scores, embeddings, visits)
    if read != len(labelled):
        raise DataError(f"{reader.source.name} gave {read} of the {len(labelled)} frames that are labelled.")


def gallery_rows(gallery: Gallery, footage: Footage) -> list[Row]:
    """All people of a gallery's frames."""
    videos = {video_name(footage, info.source.name): info.progress.source for info in gallery.sources()}
    video_of = {source: video for video, source in videos.items()}
    columns = ["source", "frame", "person", "visit", "box"]
    table = gallery.store.read(lambda store: store.people.search().select(columns).to_arrow())
    return [
        Row(
            video_of[row["source"]],
            row["frame"],
            row["person"],
            -1 if row["visit"] is None else row["visit"],
            np.array(row["box"], np.float32),
        )
        for row in table.to_pylist()
    ]


def video_name(footage: Footage, name: str) -> int:
    """Index of the video that a gallery has under `name`."""
    return [str(video.path.absolute()) for video in footage.videos].index(name)
