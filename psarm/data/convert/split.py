"""Who visits when, who is searched for, and where: the rules of a data set split by visit.

- The first part of every source's pictures is for training, the rest is the gallery.
- A person's first visit is the one that begins first, over all cameras; where two begin together, that of the camera
  given first.
- The query is, of the boxes of the first visit, one that the picture's edge does not cut off, if there is any; of these
  the least overlapped by another person's box (in tenths of its own area), then the largest, then the earliest.
- Only somebody whom the gallery shows on a later visit is searched for.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from psarm.data.convert.sources import Box
from psarm.data.types import UNLABELLED

_MIN_SIDE = 1.0
"""Pixels inside the picture; less is no box."""
_DECIMALS = 3


@dataclass(frozen=True)
class Person:
    """A person in a picture that was written."""

    box: Box  # xyxy, inside the picture
    identity: int
    visit: int
    """Of the source, or of the whole data set after `number_visits`."""
    cut_off: bool
    """The labelled box reaches the picture's edge."""


@dataclass(frozen=True)
class WrittenFrame:
    """A picture that was written, and who is in it."""

    source: int
    """Index of the source."""
    file_name: str
    width: int
    height: int
    number: int
    time: float | None
    people: tuple[Person, ...]


@dataclass(frozen=True)
class Choice:
    """A query: a person of a frame."""

    frame: int
    """Index of the frame."""
    person: Person


def clip(box: Box, width: int, height: int) -> Box | None:
    """The part of a box inside a picture, to a thousandth of a pixel; None where less than a pixel of a side is."""
    x1, y1 = (round(max(value, 0.0), _DECIMALS) for value in box[:2])
    x2, y2 = round(min(box[2], float(width)), _DECIMALS), round(min(box[3], float(height)), _DECIMALS)
    return (x1, y1, x2, y2) if min(x2 - x1, y2 - y1) >= _MIN_SIDE else None


def is_cut_off(box: Box, width: int, height: int) -> bool:
    """Whether a box, not clipped, reaches the edge of its picture: the person may go on outside."""
    return box[0] <= 0 or box[1] <= 0 or box[2] >= width or box[3] >= height


def training_frames(count: int, fraction: float) -> int:
    """How many of a source's pictures are for training."""
    return math.floor(count * fraction + 0.5)


def number_visits(frames: Sequence[WrittenFrame]) -> dict[tuple[int, int], int]:
    """(source, visit of the source) → number of the visit in the data set, from 1 in the order they begin."""
    begins: dict[tuple[int, int], float] = {}
    for frame in frames:
        when = float(frame.number) if frame.time is None else frame.time
        for person in frame.people:
            if person.identity != UNLABELLED:
                key = frame.source, person.visit
                begins[key] = min(when, begins.get(key, math.inf))
    ordered = sorted(begins, key=lambda key: (begins[key], key))
    return {key: number for number, key in enumerate(ordered, start=1)}


def choose_queries(frames: Sequence[WrittenFrame], in_gallery: Sequence[bool]) -> list[Choice]:
    """The query of everybody whom the gallery shows on a later visit, by identity; visits as `number_visits` has them.

    Args:
        frames: all of them, a source's by rising time.
        in_gallery: for each, whether it is in the gallery.
    """
    seen: dict[int, list[Choice]] = defaultdict(list)
    for index, frame in enumerate(frames):
        for person in frame.people:
            if person.identity != UNLABELLED:
                seen[person.identity].append(Choice(index, person))
    queries = []
    for identity in sorted(seen):
        first = min(choice.person.visit for choice in seen[identity])
        later = [choice for choice in seen[identity] if choice.person.visit != first]
        if any(in_gallery[choice.frame] for choice in later):
            options = [choice for choice in seen[identity] if choice.person.visit == first]
            queries.append(min(options, key=lambda choice: _rank(choice, frames[choice.frame])))
    return queries


def _rank(choice: Choice, frame: WrittenFrame) -> tuple[bool, int, float, int]:
    person = choice.person
    others = [other.box for other in frame.people if other is not person]
    covered = max((_intersection(person.box, other) for other in others), default=0.0)
    area = _area(person.box)
    return person.cut_off, math.floor(10 * covered / area), -area, choice.frame


def _intersection(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
