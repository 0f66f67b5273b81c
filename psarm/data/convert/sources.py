"""What every input becomes before it is written: pictures in order of time, and who is where in them.

A position is a picture's place in its source, from 1 and without gaps: a video's frame number, or a picture's place
among those of its camera.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from psarm.errors import UsageError

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class ConvertSettings:
    """What is the same for every input."""

    every: int = 1
    """Keep the first of every so many pictures of a source."""
    train_fraction: float = 0.6
    """The first part of every source's pictures is for training, the rest is the gallery."""
    visit_gap: int | None = None
    """A visit ends where the person is absent for more pictures than this; None: as the labels' tracks say."""
    link: bool = False
    """Link picture files instead of copying them."""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UsageError(f"--every {self.every} is too few; give 1 or more.")
        if not 0 <= self.train_fraction < 1:  # not a number fails this, too
            raise UsageError(f"--train-fraction {self.train_fraction:g} is out of range; give 0 or more, less than 1.")
        if self.visit_gap is not None and self.visit_gap < 0:
            raise UsageError(f"--visit-gap {self.visit_gap} is negative; give a number of frames.")

    def keeps(self, position: int) -> bool:
        """Whether the picture at a position is one of every so many."""
        return (position - 1) % self.every == 0


@dataclass(frozen=True)
class Sighting:
    """A labelled person in a picture."""

    position: int
    box: Box  # xyxy pixels, as labelled: it may reach outside the picture
    identity: int
    """UNLABELLED for a person without one."""
    visit: int
    """Number of the visit among those of the source, UNLABELLED where the identity is."""


@dataclass(frozen=True)
class Picture:
    """A picture that can be written."""

    position: int
    number: int
    """The source's own number of it."""
    file_name: str
    """Where it goes, a path in the data set's folder of images."""
    save: Callable[[Path], tuple[int, int]]
    """Writes it to a path and returns its width and height; raises `DataError` or `ImageError` if it is damaged."""


class Pictures(Protocol):
    """The pictures of a source."""

    @property
    def expected(self) -> int | None:
        """How many there should be, where that is known before reading them."""

    def __iter__(self) -> Iterator[Picture]:
        """All of them by rising position; one has to be saved before the next is asked for."""


@dataclass(frozen=True, eq=False)
class Source:
    """What one camera saw without a break: a clip, a folder of pictures."""

    name: str
    camera: int
    pictures: Pictures
    sightings: Sequence[Sighting]
    labels: Path
    frame_rate: float | None = None
    """Pictures a second; None where it is unknown, then the pictures' numbers stand for time."""
    start: float = 0.0
    """When the first picture was taken, in seconds on a clock that all sources share."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Why labels were left out → how many."""

    def time(self, number: int) -> float | None:
        """Seconds of the picture with a number from 1, None without a frame rate."""
        return None if self.frame_rate is None else self.start + (number - 1) / self.frame_rate


def visits_of_tracks(tracks: Sequence[Hashable]) -> list[int]:
    """A number for every different track; a track is whatever tells one visit from another."""
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(track, len(numbers)) for track in tracks]


def visits_by_absence(identities: Sequence[int], positions: Sequence[int], gap: int) -> list[int]:
    """Visit numbers, a new one where the person is absent for more than `gap` positions."""
    visits = [0] * len(identities)
    last: dict[int, tuple[int, int]] = {}  # identity → position and visit of its latest sighting
    count = 0
    for row in sorted(range(len(identities)), key=lambda row: positions[row]):
        before = last.get(identities[row])
        if before is None or positions[row] - before[0] - 1 > gap:
            visit, count = count, count + 1
        else:
            visit = before[1]
        visits[row] = visit
        last[identities[row]] = positions[row], visit
    return visits


def is_frame_rate(value: float) -> bool:
    """Whether a number can be pictures a second."""
    return math.isfinite(value) and value > 0
