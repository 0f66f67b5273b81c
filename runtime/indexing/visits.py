"""Which people of a source are one visit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from psarm.runtime.detections import Detections
from psarm.runtime.gallery.records import IndexedPeople, SourceKind


class Visits(Protocol):
    """Numbers the visits of one source."""

    next_visit: int
    """Number of the next new visit."""

    @property
    def alive(self) -> frozenset[int]:
        """Visits that may go on."""

    def update(self, frame: int, people: Detections) -> NDArray[np.int64]:
        """Numbers of the visits [n] of the `people` of a frame; `frame` is its id."""

    def warm_up(self, frames: Iterable[IndexedPeople]) -> None:
        """Go on where a run before left off, knowing its last frames: their visits go on under their numbers."""


class EveryoneForThemselves:
    """Pictures have no times and may show different places: each person in each picture is a visit."""

    alive: frozenset[int] = frozenset()

    def __init__(self, next_visit: int) -> None:
        self.next_visit = next_visit

    def update(self, frame: int, people: Detections) -> NDArray[np.int64]:
        """New numbers [n]."""
        first, self.next_visit = self.next_visit, self.next_visit + len(people)
        return np.arange(first, self.next_visit, dtype=np.int64)

    def warm_up(self, frames: Iterable[IndexedPeople]) -> None:
        """Nothing to know: no visit goes on."""


def find_visits(kind: SourceKind, next_visit: int) -> Visits:
    """A tracker for what has times, numbers for pictures."""
    if kind == "pictures":
        return EveryoneForThemselves(next_visit)
    from psarm.runtime.indexing.tracking import VisitTracker

    return VisitTracker(next_visit)
