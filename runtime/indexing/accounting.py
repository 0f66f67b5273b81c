"""Every frame of a source is accounted for: indexed, skipped with a reason, or still to do."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from psarm.runtime.gallery.records import IndexedPeople, Source, SourceBatch, SourceProgress
from psarm.runtime.indexing.events import Found
from psarm.runtime.indexing.reading import Note, Skip
from psarm.runtime.indexing.visits import Visits

NOTES_KEPT = 100
"""Of a source, the last: a camera that comes and goes for months has no end of them."""


class Notes:
    """What readers noted, from their threads."""

    def __init__(self) -> None:
        self._gone: Counter[str] = Counter()
        self._texts: dict[str, deque[str]] = {}
        self._lock = threading.Lock()

    def add(self, note: Note) -> None:
        """Take one."""
        with self._lock:
            self._gone[note.source] += note.event == "gone"
            self._texts.setdefault(note.source, deque(maxlen=NOTES_KEPT)).append(note.text)

    def of(self, source: str) -> tuple[int, tuple[str, ...]]:
        """How often it went away, and its last notes."""
        with self._lock:
            return self._gone[source], tuple(self._texts.get(source, ()))


@dataclass(frozen=True)
class SourceReport:
    """How far a source is, with what was done before this run."""

    name: str
    camera: str
    due: int | None
    """Frames to be indexed; None: nobody knows (a camera), or it could not be read."""
    indexed: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Reason → frames."""
    people: int = 0
    visits: int = 0
    finished: bool = False
    error: str | None = None
    """Why it broke off."""
    new: int = 0
    """Frames indexed in this run."""
    seconds: float = 0.0
    """Of this run, until its last frame."""
    gone: int = 0
    """How often the camera went away."""
    notes: tuple[str, ...] = ()
    """What the reader noted, a sentence each: the last `NOTES_KEPT`."""

    @property
    def to_do(self) -> int | None:
        """Frames that are due and neither indexed nor skipped; None where `due` is."""
        return None if self.due is None else self.due - self.indexed - sum(self.skipped.values())

    @property
    def rate(self) -> float | None:
        """Frames a second of this run; None where it indexed none."""
        return self.new / self.seconds if self.new and self.seconds else None


class SourceAccount:
    """What became of a source's frames, and what of it is not committed yet."""

    def __init__(self, source: Source, progress: SourceProgress, visits: Visits, thumbnails: bool) -> None:
        """`progress`: committed before this run."""
        self.source = source
        self.id = progress.source
        self.done = progress.last_frame
        """Up to and with this frame; -1: nothing yet."""
        self.error: str | None = None
        self.finished = progress.finished
        self._before = progress
        self._visits = visits
        self._thumbnails = thumbnails
        self._best: dict[int, float] = {}  # visit → best score whose picture was kept, of those that may go on
        self._indexed = self._people = 0
        self._skipped: Counter[str] = Counter(progress.reasons)
        self._start, self._seconds = time.monotonic(), 0.0
        self._clear()

    def found(self, found: Found) -> None:
        """Take the people of the next frame."""
        people = found.people
        visits = self._visits.update(found.frame, people)
        pictures = tuple(self._picture(found, row, int(visit)) for row, visit in enumerate(visits))
        alive = self._visits.alive
        self._best = {visit: score for visit, score in self._best.items() if visit in alive}
        self._entries.append(
            IndexedPeople(
                found.frame,
                found.time,
                people.boxes,
                people.scores,
                people.embeddings,
                visits,
                pictures,
                found.size,
            )
        )
        self._advance()
        self._indexed += 1
        self._people += len(people)
        self.waiting += len(people)

    def skipped(self, skip: Skip) -> None:
        """Take frames that are not to be had."""
        self._entries.append(skip)
        self._advance()
        self._skipped[skip.reason] += skip.count

    def end(self) -> None:
        """Nothing is left to do; a camera only pauses."""
        if self.source.kind != "live":
            self.finished = True

    def purged(self) -> None:
        """Pictures of visits may be gone: those that go on get new ones."""
        self._best.clear()

    def take_batch(self) -> SourceBatch | None:
        """What is to be committed, and forget it; None: nothing."""
        if not self._entries and self.finished == self._told_finished:
            return None
        skips: Counter[str] = Counter()
        for skip in self._entries:
            if isinstance(skip, Skip):
                skips[skip.reason] += skip.count
        frames = tuple(entry for entry in self._entries if isinstance(entry, IndexedPeople))
        last = self._entries[-1].frame if self._entries else self.done
        self._clear()
        return SourceBatch(self.id, frames, dict(skips), None if last < 0 else last, finished=self.finished)

    def settle(self, progress: SourceProgress) -> None:
        """What is committed is what was done: a run may break off before all is."""
        self._indexed = progress.frames - self._before.frames
        self._people = progress.people - self._before.people
        self._skipped = Counter(progress.reasons)
        self._visits.next_visit = progress.next_visit
        self.finished = progress.finished

    def report(self, gone: int = 0, notes: tuple[str, ...] = ()) -> SourceReport:
        """With `gone` and `notes` of the reader's."""
        return SourceReport(
            name=self.source.name,
            camera=self.source.camera,
            due=self.source.planned,
            indexed=self._before.frames + self._indexed,
            skipped=dict(self._skipped),
            people=self._before.people + self._people,
            visits=self._visits.next_visit,
            finished=self.finished,
            error=self.error,
            new=self._indexed,
            seconds=self._seconds,
            gone=gone,
            notes=notes,
        )

    def _clear(self) -> None:
        # One list for both, so that Ctrl-C falls before or after a frame and not into it.
        self._entries: list[IndexedPeople | Skip] = []
        self._told_finished = self.finished
        self.waiting = 0
        """People that are not committed yet."""

    def _advance(self) -> None:
        self.done = self._entries[-1].frame
        self._seconds = time.monotonic() - self._start

    def _picture(self, found: Found, row: int, visit: int) -> bytes | None:
        """Only where the person is the best of the visit so far: nobody will look at the others."""
        score = float(found.people.scores[row])
        if not self._thumbnails or score <= self._best.get(visit, -1.0):
            return None
        self._best[visit] = score
        return found.thumbnail(row)
