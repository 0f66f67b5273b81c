"""Visits: what the people of many frames that are one person's stay are joined to.

D embedding dimensions. A visit's representative embedding is the mean of its people's unit embeddings, each by its
score, brought to the length of the best score: similarities with it are comparable with those of single frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psarm.runtime.gallery.columns import vectors
from psarm.runtime.gallery.filters import is_in
from psarm.runtime.gallery.records import IndexedPeople
from psarm.runtime.gallery.schema import visit_id

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import Table


@dataclass
class Visit:
    """A row of the table of visits, to which people can be added."""

    visit: int
    source: int
    camera: str
    first_frame: int = -1
    last_frame: int = -1
    start: datetime | None = None
    end: datetime | None = None
    frames: int = 0
    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))  # [D] sum of the weighted embeddings
    score: float = 0.0
    best_frame: int = -1
    box: NDArray[np.float32] = field(default_factory=lambda: np.zeros(4, np.float32))
    thumbnail: bytes | None = None

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Visit:
        """Of a row as a dictionary of plain values."""
        embedding = np.array(row.pop("embedding"), np.float64)
        length = np.linalg.norm(embedding)
        total = embedding * (row.pop("total") / length) if length else embedding
        return cls(**{**row, "box": np.array(row["box"], np.float32), "total": total})

    def add(self, frame: int, time: datetime | None, person: int, people: IndexedPeople) -> None:
        """Join a person of a frame after `last_frame`."""
        score = float(people.scores[person])
        if self.frames == 0:
            self.first_frame, self.total = frame, np.zeros(people.embeddings.shape[1])
        if self.frames == 0 or score > self.score:
            self.score, self.best_frame, self.box = score, frame, people.boxes[person]
            # Rows read back after a crash have no picture: an older one of the visit is better than none.
            self.thumbnail = (people.thumbnails[person] if people.thumbnails else None) or self.thumbnail
        if time is not None:
            self.start, self.end = self.start or time, time
        self.total += people.embeddings[person]
        self.last_frame = frame
        self.frames += 1


def touched(source: int, frames: Iterable[IndexedPeople]) -> set[int]:
    """Ids of the visits that people of a source's frames belong to."""
    return {visit_id(source, int(number)) for people in frames for number in np.unique(people.visits) if number >= 0}


def fold(visits: dict[int, Visit], source: int, camera: str, frames: Iterable[IndexedPeople]) -> set[int]:
    """Join the people of a source's frames, rising, to `visits` (id → visit), which gets those that are new.

    Doing it twice is doing it once: what lies not after a visit's last frame is in it already. Returns the ids of those
    that got somebody.
    """
    changed = set()
    for people in frames:
        for person in np.flatnonzero(people.visits >= 0).tolist():
            number = visit_id(source, int(people.visits[person]))
            visit = visits.setdefault(number, Visit(number, source, camera))
            if people.frame > visit.last_frame:
                visit.add(people.frame, people.time, person, people)
                changed.add(number)
    return changed


def join_people(
    table: Table,
    frames: Mapping[int, Sequence[IndexedPeople]],
    cameras: Mapping[int, str],
    next_visits: Mapping[int, int],
) -> None:
    """Join people of several sources to the table of visits.

    Args:
        table: of visits.
        frames: source → its people's frames, rising.
        cameras: source → camera.
        next_visits: source → number before which its visits can be in the table.
    """
    ids = {source: touched(source, of) for source, of in frames.items()}
    known = sorted(
        number for source, some in ids.items() for number in some if number < visit_id(source, next_visits[source])
    )
    visits = read_visits(table, is_in("visit", known)) if known else {}
    changed: set[int] = set()
    for source, of in frames.items():
        changed |= fold(visits, source, cameras[source], of)
    write_visits(table, [visits[number] for number in sorted(changed)])


def read_visits(table: Table, predicate: str) -> dict[int, Visit]:
    """The visits a predicate holds for, by id."""
    return {row["visit"]: Visit.from_row(row) for row in table.search().where(predicate).to_arrow().to_pylist()}


def write_visits(table: Table, visits: Sequence[Visit]) -> None:
    """Replace the rows of those that are there, add the others; in one step."""
    if visits:
        merge = table.merge_insert("visit").when_matched_update_all().when_not_matched_insert_all()
        merge.execute(_rows(visits, table.schema))


def _rows(visits: Sequence[Visit], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    totals = np.stack([visit.total for visit in visits])  # [n,D]
    lengths = np.linalg.norm(totals, axis=1)
    scores = np.array([visit.score for visit in visits])
    scale = np.divide(scores, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    columns: dict[str, Any] = {
        name: [getattr(visit, name) for visit in visits]
        for name in schema.names
        if name not in ("embedding", "total", "box")
    }
    columns["embedding"] = vectors(totals * scale[:, None])
    columns["total"] = lengths
    columns["box"] = vectors(np.stack([visit.box for visit in visits]))
    return pa.table(columns, schema=schema)
