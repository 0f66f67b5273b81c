"""What a conversion wrote, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from psarm.data.convert.sources import Source
from psarm.data.convert.split import Choice, WrittenFrame
from psarm.data.types import UNLABELLED


@dataclass(frozen=True)
class Counts:
    """What is in some frames."""

    frames: int
    train_frames: int
    gallery_frames: int
    boxes: int
    unlabelled: int
    """Boxes without identity."""
    people: int
    visits: int
    queries: int


@dataclass(frozen=True)
class ConvertSummary:
    """What was written."""

    root: Path
    total: Counts
    cameras: dict[int, Counts]
    returning: int
    """People with more than one visit."""
    shared: int
    """People in more than one clip, or before more than one camera."""
    dropped: dict[str, int]
    """Why labels were left out → how many."""

    def to_dict(self) -> dict[str, Any]:
        """The numbers as JSON values."""
        return {
            "root": str(self.root),
            **asdict(self.total),
            "returning": self.returning,
            "shared": self.shared,
            "dropped": self.dropped,
            "cameras": {str(camera): asdict(counts) for camera, counts in self.cameras.items()},
        }


def summarise(
    root: Path,
    sources: Sequence[Source],
    frames: Sequence[WrittenFrame],
    in_gallery: Sequence[bool],
    queries: Sequence[Choice],
    dropped: dict[str, int],
) -> ConvertSummary:
    """Count what is in frames whose visits are numbered; a query counts for the camera it is seen by."""
    cameras = [sources[frame.source].camera for frame in frames]
    asked = [choice.frame for choice in queries]

    def count(rows: Sequence[int]) -> Counts:
        people = [person for row in rows for person in frames[row].people]
        labelled = [person for person in people if person.identity != UNLABELLED]
        gallery = sum(in_gallery[row] for row in rows)
        counted = set(rows)
        return Counts(
            frames=len(rows),
            train_frames=len(rows) - gallery,
            gallery_frames=gallery,
            boxes=len(people),
            unlabelled=len(people) - len(labelled),
            people=len({person.identity for person in labelled}),
            visits=len({person.visit for person in labelled}),
            queries=sum(row in counted for row in asked),
        )

    pairs = {(person.identity, person.visit) for frame in frames for person in frame.people}
    visited = Counter(identity for identity, _ in pairs if identity != UNLABELLED)
    places = {(person.identity, frame.source) for frame in frames for person in frame.people}
    seen_in = Counter(identity for identity, _ in places if identity != UNLABELLED)
    return ConvertSummary(
        root=root,
        total=count(range(len(frames))),
        cameras={
            camera: count([row for row, other in enumerate(cameras) if other == camera])
            for camera in sorted(set(cameras))
        },
        returning=sum(visits > 1 for visits in visited.values()),
        shared=sum(clips > 1 for clips in seen_in.values()),
        dropped={reason: number for reason, number in dropped.items() if number},
    )
