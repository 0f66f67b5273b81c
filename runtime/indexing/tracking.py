"""People of consecutive frames of one source → visits.

n people of a frame, t tracks, D embedding dimensions. Boxes are xyxy in frame pixels.

ByteTrack (Zhang et al., ECCV 2022) of the `trackers` package, on frames with times of their own. Two frames a second
are enough for an index, and a walker's boxes half a second apart hardly overlap, so boxes are compared as buffered IoU
(Yang et al., WACV 2023) and the embeddings say who is who among those near enough. Importing this module takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import supervision
from numpy.typing import NDArray
from trackers import ByteTrackTracker
from trackers.utils.iou import BIoU

from psarm.runtime.detections import Detections
from psarm.runtime.gallery.records import IndexedPeople

LOST_SECONDS = 3.0
"""A visit ends when nobody continues it for so long."""
MICROSECONDS = 1_000_000

# Measured on the labels of PETS2009 S2.L1 at 10, 5, 2 and 1 frames a second.
BUFFER = 1.0
"""A box grows by so much of its size on every side before it is compared."""
MIN_SIMILARITY = 0.3
ALIKE = 0.7
"""What two embeddings are more alike than this is added to the similarity of their boxes."""
KALMAN_FPS = 10.0
"""The motion model's noise is that of so many steps a second; longer steps have more."""
TRACKERS_FPS = 30
"""In which `trackers` counts how long a track may be lost."""
NEVER = 2**31


class Similarity(BIoU):
    """Of the tracks and the people of a frame, or, where it is told, who is who."""

    def __init__(self) -> None:
        super().__init__(BUFFER)
        self.visits: Callable[[], list[int]] = list
        """Of the tracks that are compared."""
        self.seen: dict[int, NDArray[np.float32]] = {}
        """Visit → [D] unit, of its last person."""
        self.people: NDArray[np.float32] = np.zeros((0, 0), np.float32)  # [n,D] unit
        self.known: NDArray[np.int64] | None = None  # [n] visits

    def _compute(self, boxes_1: NDArray[Any], boxes_2: NDArray[Any]) -> NDArray[Any]:
        """`boxes_1` [t,4] of the tracks, `boxes_2` [n,4] of the people → [t,n]."""
        visits = self.visits()
        if self.known is not None:
            same: NDArray[np.bool_] = np.array(visits)[:, None] == self.known
            return same.astype(np.float64)
        near = super()._compute(boxes_1, boxes_2)
        alike = np.stack([self.seen[visit] for visit in visits]) @ self.people.T - ALIKE
        return np.where(near > 0, near + alike, 0.0)


class VisitTracker:
    """Gives every person of a source the number of a visit.

    A person who continues no visit begins one, however low the score: who is seen once only is to be found too.
    """

    def __init__(self, next_visit: int = 0) -> None:
        """`next_visit`: number of the first new visit."""
        self.next_visit = next_visit
        self._similarity = Similarity()
        self._similarity.visits = self._visits
        self._tracker = ByteTrackTracker(
            lost_track_buffer=round(LOST_SECONDS * TRACKERS_FPS),
            frame_rate=KALMAN_FPS,
            track_activation_threshold=0.0,
            minimum_consecutive_frames=NEVER,  # numbers are given here, from the first frame on
            minimum_iou_threshold=MIN_SIMILARITY,
            high_conf_det_threshold=0.0,  # the detector's threshold is the only one
            iou=self._similarity,
        )

    @property
    def alive(self) -> frozenset[int]:
        """Visits that may go on."""
        return frozenset(self._visits())

    def update(self, frame: int, people: Detections) -> NDArray[np.int64]:
        """Numbers of the visits [n] of the `people` of a frame; `frame` is its id, in microseconds."""
        return self._update(frame, people.boxes, people.scores, people.embeddings)

    def warm_up(self, frames: Iterable[IndexedPeople]) -> None:
        """Go on where a run before left off, knowing its last frames: their visits go on under their numbers."""
        for people in frames:
            self._similarity.known = people.visits
            self._update(people.frame, people.boxes, people.scores, people.embeddings)
        self._similarity.known = None

    def _update(
        self, frame: int, boxes: NDArray[np.float32], scores: NDArray[np.float32], embeddings: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
        self._similarity.people = embeddings / np.maximum(norms, np.finfo(np.float32).tiny)
        people = supervision.Detections(xyxy=boxes, confidence=scores, data={"row": np.arange(len(boxes))})
        found = self._tracker.update(people, timestamp=frame / MICROSECONDS)
        visits = np.full(len(boxes), -1, np.int64)
        if len(boxes):
            rows, numbers = np.asarray(found.data["row"]), np.asarray(found.tracker_id)
            visits[rows] = numbers
            self._begin(visits, rows[numbers == -1])
        alive, seen = self.alive, self._similarity.seen
        seen |= {int(visit): unit for visit, unit in zip(visits, self._similarity.people, strict=True)}
        self._similarity.seen = {visit: unit for visit, unit in seen.items() if visit in alive}
        return visits

    def _begin(self, visits: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Give numbers to the tracks that began; the tracker began them in the order of `rows`."""
        begun = [track for track in self._tracker.tracks if track.tracker_id == -1]
        for track, row in zip(begun, rows, strict=True):
            known = self._similarity.known
            if known is None:
                track.tracker_id, self.next_visit = self.next_visit, self.next_visit + 1
            else:
                track.tracker_id = int(known[row])
            visits[row] = track.tracker_id

    def _visits(self) -> list[int]:
        return [track.tracker_id for track in self._tracker.tracks]
