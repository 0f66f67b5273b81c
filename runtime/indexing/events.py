"""What detection tells the one who indexes, in the order of each source's frames; `Event` is any of it.

n people of a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime

from psarm.runtime.detections import Detections
from psarm.runtime.drawing import crop, encode_jpeg, shrink
from psarm.runtime.indexing.reading import Skip, SourceReader
from psarm.runtime.video import Frame

THUMBNAIL_SIDE = 192
"""Longest side of a person's picture, pixels."""
THUMBNAIL_QUALITY = 80


@dataclass(frozen=True, eq=False)
class Found:
    """The people of a frame."""

    source: str
    """Name."""
    frame: int
    time: datetime | None
    people: Detections
    thumbnail: Callable[[int], bytes]
    """Number of a person, from 0 → JPEG."""
    size: tuple[int, int]
    """Width and height of the frame, pixels."""


@dataclass(frozen=True)
class Skipped:
    """Frames that were due and are not to be had."""

    source: str
    skip: Skip


@dataclass(frozen=True)
class Ended:
    """The source gave all it has."""

    source: str


@dataclass(frozen=True)
class Failed:
    """The source cannot go on; others can."""

    source: str
    reason: str
    """One sentence."""


Event = Found | Skipped | Ended | Failed

Detect = Callable[[Sequence[tuple[SourceReader, int]]], AbstractContextManager[Iterator[Event | None]]]
"""Readers, each with the id of the last frame that is done → what happens to the frames after it, None where nothing
did for a moment: commits go on where no frame comes."""


def thumbnail(image: Frame, people: Detections, person: int) -> bytes:
    """A person's part of a frame, as a small JPEG."""
    small, _ = shrink(crop(image, people.boxes[person]), THUMBNAIL_SIDE)
    return encode_jpeg(small, THUMBNAIL_QUALITY)
