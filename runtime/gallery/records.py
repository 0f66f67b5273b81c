"""What goes into a gallery and comes out of it.

n people of a frame, D embedding dimensions. Boxes are xyxy in frame pixels; times are aware datetimes, None where
nobody knows. `schema` says what a frame's id is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

SourceKind = Literal["video", "pictures", "live"]


@dataclass(frozen=True)
class GalleryFacts:
    """What a gallery is; fixed when it is made."""

    schema: int
    fingerprint: str
    """Of the embedding space: `Bundle.manifest.embedding.fingerprint`."""
    embedding_dim: int
    bundle: str
    """Path of the bundle it was made with, as an absolute path."""
    thumbnails: bool
    """Whether visits keep a small picture."""
    people: bool
    """Whether every frame's people are kept; without, only visits are."""
    created: datetime


@dataclass(frozen=True)
class Source:
    """A video, a list of pictures or a camera."""

    name: str
    """Absolute path, or address without user, password and query."""
    camera: str
    kind: SourceKind
    signature: str = ""
    """Of the content, so that another file under the same name is noticed; empty for a camera."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Which frames are taken: must be the same when it is indexed again."""
    start: datetime | None = None
    """When its first frame was taken."""
    rate: float | None = None
    """Nominal frames a second."""
    planned: int | None = None
    """Frames to be indexed."""


@dataclass(frozen=True, eq=False)
class IndexedPeople:
    """The people of one frame of a source."""

    frame: int
    time: datetime | None
    boxes: NDArray[np.float32]  # [n,4]
    scores: NDArray[np.float32]  # [n]
    embeddings: NDArray[np.float32]  # [n,D], weighted by score
    visits: NDArray[np.int64]  # [n] number of the visit within the source, -1: none
    thumbnails: tuple[bytes | None, ...] = ()
    """JPEG of each person's box, or () without."""
    size: tuple[int, int] | None = None
    """Width and height of the frame, pixels."""


@dataclass(frozen=True, eq=False)
class SourceBatch:
    """What a commit adds to one source."""

    source: int
    """Id, from `GalleryWriter.add_source`."""
    frames: tuple[IndexedPeople, ...] = ()
    """Rising by id; also those with nobody in them."""
    skips: Mapping[str, int] = field(default_factory=dict)
    """Reason → frames skipped for it."""
    last_frame: int | None = None
    """Everything up to and with this frame is done, also what was skipped; None: up to the last of `frames`."""
    finished: bool = False


@dataclass(frozen=True, eq=False)
class SourceProgress:
    """How far a source is."""

    source: int
    """Its id."""
    last_frame: int
    """Done up to and with it; -1: nothing yet."""
    frames: int
    skipped: int
    people: int
    reasons: Mapping[str, int]
    finished: bool
    next_visit: int
    """Number of the next new visit."""


@dataclass(frozen=True, eq=False)
class SourceInfo:
    """A source of a gallery and how far it is."""

    source: Source
    added: datetime
    progress: SourceProgress


@dataclass(frozen=True, eq=False)
class GalleryInfo:
    """What is in a gallery."""

    facts: GalleryFacts
    people: int
    """Rows: people in frames."""
    visits: int
    sources: int
    cameras: tuple[str, ...]
    start: datetime | None
    """Time of the first person; None where no time is known."""
    end: datetime | None
    """Time of the last."""
    bytes: int | None
    """On the disk, with the versions that readers may still hold; None on object storage."""
    indexed: tuple[str, ...]
    """Tables that have an index of their embeddings: people, visits."""


@dataclass(frozen=True)
class Removed:
    """What a purge or the deletion of a source or of visits took out of a gallery."""

    people: int
    visits: int
    index_dropped: tuple[str, ...] = ()
    """Tables whose index went with the rows that were written anew, and has to be built again."""


@dataclass(frozen=True, eq=False)
class Where:
    """Which rows a search may find; None: no restriction."""

    cameras: tuple[str, ...] | None = None
    sources: tuple[str, ...] | None = None
    """By name."""
    start: datetime | None = None
    """Seen at this time or later; rows of unknown time are left out."""
    end: datetime | None = None
    """Seen before this time; rows of unknown time are left out."""
    min_score: float | None = None


@dataclass(frozen=True, eq=False)
class FrameHit:
    """A person in a frame."""

    source: str
    camera: str
    frame: int
    person: int
    """Place among the people of the frame, from 0."""
    offset_s: float | None
    """Seconds into the video file; None for pictures and cameras."""
    time: datetime | None
    visit: int | None
    similarity: float
    score: float
    box: NDArray[np.float32]  # [4]


@dataclass(frozen=True, eq=False)
class VisitHit:
    """A visit, or a person in one frame whom the tracker gave to none."""

    visit: int | None
    source: str
    camera: str
    start: datetime | None
    end: datetime | None
    first_frame: int
    last_frame: int
    start_s: float | None
    """Seconds into the video file; None for pictures and cameras."""
    end_s: float | None
    frames: int
    similarity: float
    score: float
    best_frame: int
    box: NDArray[np.float32]  # [4], in the best frame
    thumbnail: bytes | None
    """JPEG."""
    false_match_rate: float | None = None
    """Share of visits of other people that would be as similar, from `Gallery.calibrate`; None where not calibrated,
    and for hits by CBGM, whose similarities are others."""
