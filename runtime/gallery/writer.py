"""The one writer of a gallery: what is committed, survives.

A commit of several sources is: 1 add the people; 2 add a segment a source, in one step: the commit point; 3 fold the
people into their visits; 4 where a gallery keeps visits only, delete the people that no tracker needs any more.
Whatever a process was killed in, the next writer puts in order (`repair`): people after the last segment are deleted,
those of the last segment are folded. What was committed is on the disk, where a power cut does not take it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from psarm.errors import GalleryError, UsageError
from psarm.files import uninterrupted
from psarm.runtime.gallery import maintenance
from psarm.runtime.gallery.columns import frames_of, people_rows
from psarm.runtime.gallery.ledger import (
    Segment,
    check_same,
    progress,
    read_sources,
    source_rows,
)
from psarm.runtime.gallery.records import IndexedPeople, Removed, Source, SourceBatch, SourceProgress
from psarm.runtime.gallery.repair import forget, repair
from psarm.runtime.gallery.schema import PEOPLE, SEGMENTS, SOURCES, VISITS
from psarm.runtime.gallery.store import TABLES, Store
from psarm.runtime.gallery.visits import join_people


class GalleryWriter:
    """Adds sources and their people; from `Gallery.writer`, in a `with` block."""

    compact_every = 200
    """Commits from one compaction to the next."""

    def __init__(self, store: Store) -> None:
        """Raises `GalleryError` where another process writes, or the gallery cannot be written."""
        self._store = store
        self._progress: dict[int, SourceProgress] = {}
        self._numbers: dict[int, int] = {}  # of the next segment; 0 where there is none yet
        self._closed = False
        self._failed = False
        with ExitStack() as stack:
            stack.enter_context(store.writing())
            with store.said():
                segments = repair(store)
                self._sources = {info.progress.source: info.source for info in read_sources(store, segments)}
                self._ids = {source.name: number for number, source in self._sources.items()}
                # Of all sources, also of deleted ones, whose numbers are not given again.
                self._before = {source: progress(source, some) for source, some in segments.items()}
                self._next = max([*self._sources, *self._before], default=-1) + 1
                self._numbers = {source: some[-1]["number"] + 1 for source, some in segments.items()}
                # A compaction leaves one fragment of segments, and every commit adds one.
                statistics: Any = store.segments.stats()  # a dictionary, whatever it is annotated as
                self._uncompacted = statistics["fragment_stats"]["num_fragments"]
                self._version = store.segments.version
            self._lock = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let others write; what was not committed is gone."""
        self._closed = True
        self._lock.close()

    def add_source(self, source: Source, continues: Callable[[str], bool] | None = None) -> SourceProgress:
        """Add a source, or go on with it; one of which nothing was committed makes way for what is given now.

        Args:
            source: it.
            continues: whether content of a given signature is the beginning of the source's, which has grown since.

        Raises:
            GalleryError: there is a source of that name with other content, settings, camera or kind.
            UsageError: its start has no time zone.
        """
        self._check_open()
        if source.start is not None and source.start.tzinfo is None:
            raise UsageError(f"{source.name} starts at {source.start}, without a time zone; give an aware datetime.")
        number, grown = self._ids.get(source.name, self._next), False
        with self._store.said():
            if number == self._next:
                self._add_source(number, source)
                self._next += 1
            elif not self._numbers.get(number):
                self._store.sources.delete(f"source = {number}")
                self._add_source(number, source)
            else:
                before = self._sources[number].signature
                grown = before != source.signature and continues is not None and continues(before)
                same = replace(source, signature=before) if grown else source
                check_same(self._store.where, self._sources[number], same)
            if number not in self._progress:
                self._progress[number] = self._before.get(number) or progress(number, [])
            if grown:
                self._grow(number, source)
        return self._progress[number]

    def _add_source(self, number: int, source: Source) -> None:
        self._store.sources.add(source_rows(number, source, self._store.sources.schema))
        self._sources[number], self._ids[source.name] = source, number

    def progress(self, source: int) -> SourceProgress:
        """How far a source that was added is: what is committed of it."""
        return self._progress[source]

    def recent_people(self, source: int, since_frame: int) -> list[IndexedPeople]:
        """A source's people from `since_frame` on, for its tracker to go on with; without thumbnails and sizes."""
        with self._store.said():
            rows = self._store.people.search().where(f"source = {source} AND frame >= {since_frame}").to_arrow()
        return frames_of(rows)

    def commit(self, batches: Sequence[SourceBatch]) -> None:
        """Add the batches of several sources (one a source), all of them or none; Ctrl-C and SIGTERM come after it.

        Raises:
            UsageError: a batch is not of a source that was added, or its frames do not fit or do not rise beyond those
                done.
            GalleryError: it cannot be written (disk full), or somebody else wrote. Then this writer is of no more use:
                another one finds whether the batches were committed.
        """
        for batch in batches:
            self._check(batch)
        if len({batch.source for batch in batches}) < len(batches):
            raise UsageError("A commit takes one batch a source; join those of the same source.")
        if not batches:
            return
        with uninterrupted(), self._store.said():
            self._begin()
            self._commit(batches)
            self._uncompacted += 1
            if self._uncompacted >= self.compact_every:
                self._compact()
        self._failed = False

    def purge(self, older_than: datetime) -> Removed:
        """Erase the people seen before `older_than`, as `Gallery.purge`; the sources go on where they are.

        Where there are none nothing is done: a purge writes whole tables anew, and takes their indexes.
        """
        self._begin()
        with self._store.said():
            self._check_alone()
            due = maintenance.is_purge_due(self._store, older_than)
            removed = maintenance.purge(self._store, older_than) if due else Removed(0, 0)
            self._version = self._store.segments.version
            self._store.bring_to_disk(*TABLES)
        self._failed = False
        return removed

    def compact(self) -> None:
        """Join small files, and remove versions that are older than an hour."""
        self._begin()
        with self._store.said():
            self._compact()
        self._failed = False

    def _compact(self) -> None:
        maintenance.compact(self._store)
        self._uncompacted = 0
        self._version = self._store.segments.version
        self._store.bring_to_disk(*TABLES)

    def _check_open(self) -> None:
        if self._closed:
            raise GalleryError(f"{self._store.where}: this writer is closed; open another one to go on.")

    def _begin(self) -> None:
        """A step that may break off half-way, and is then put in order by another writer."""
        self._check_open()
        if self._failed:
            raise GalleryError(f"{self._store.where}: an earlier commit failed; open another writer to go on.")
        self._failed = True

    def _check_alone(self) -> None:
        self._store.refresh()
        if self._store.segments.version != self._version:
            raise GalleryError(
                f"Somebody else wrote to {self._store.where} meanwhile; one process writes at a time, so end the other "
                "one."
            )

    def _commit(self, batches: Sequence[SourceBatch]) -> None:
        self._check_alone()
        store = self._store
        rows = [
            people_rows(batch.source, self._sources[batch.source].camera, batch.frames, store.people.schema)
            for batch in batches
        ]
        if any(table.num_rows for table in rows):
            store.people.add(_joined(rows))
        store.bring_to_disk(SOURCES, PEOPLE)  # before what commits them
        now = datetime.now(UTC)  # one time: by it the segments of the last commit are known
        segments = [self._segment(batch, now) for batch in batches]
        store.segments.add(_rows(segments, store.segments.schema))
        self._version = store.segments.version
        store.bring_to_disk(SEGMENTS)
        self._fold({batch.source: batch.frames for batch in batches})
        for segment in segments:
            self._advance(segment)
        if not store.facts.people:
            forget(store, [(self._sources[batch.source].kind, self._progress[batch.source]) for batch in batches])
        store.bring_to_disk(VISITS)

    def _segment(self, batch: SourceBatch, committed: datetime) -> Segment:
        done = self._progress[batch.source]
        numbers = [int(people.visits.max()) for people in batch.frames if len(people.visits)]
        last = batch.last_frame
        if last is None:
            last = batch.frames[-1].frame if batch.frames else done.last_frame
        return {
            "source": batch.source,
            "number": self._numbers.get(batch.source, 0),
            "last_frame": last,
            "frames": len(batch.frames),
            "skipped": sum(batch.skips.values()),
            "reasons": json.dumps(dict(batch.skips)),
            "people": sum(len(people.scores) for people in batch.frames),
            "next_visit": max([done.next_visit, *(number + 1 for number in numbers)]),
            "finished": batch.finished,
            "committed": committed,
        }

    def _advance(self, segment: Segment) -> None:
        """Add a segment to what is known of its source."""
        source = segment["source"]
        done, added = self._progress[source], progress(source, [segment])
        reasons = {
            reason: done.reasons.get(reason, 0) + added.reasons.get(reason, 0)
            for reason in {**done.reasons, **added.reasons}
        }
        self._progress[source] = replace(
            added,
            frames=done.frames + added.frames,
            skipped=done.skipped + added.skipped,
            people=done.people + added.people,
            reasons=reasons,
        )
        self._numbers[source] = segment["number"] + 1

    def _fold(self, frames: dict[int, Sequence[IndexedPeople]]) -> None:
        """Join people of several sources to their visits."""
        if not self._store.facts.thumbnails:
            frames = {source: [replace(people, thumbnails=()) for people in of] for source, of in frames.items()}
        cameras = {source: self._sources[source].camera for source in frames}
        next_visits = {source: self._progress[source].next_visit for source in frames}
        join_people(self._store.visits, frames, cameras, next_visits)

    def _grow(self, number: int, source: Source) -> None:
        """There is more of a source. First it is no longer finished: after a crash in between it is grown again."""
        if self._progress[number].finished:
            self.commit([SourceBatch(number)])
        self._store.sources.update(f"source = {number}", {"signature": source.signature, "planned": source.planned})
        self._sources[number] = replace(self._sources[number], signature=source.signature, planned=source.planned)

    def _check(self, batch: SourceBatch) -> None:
        if batch.source not in self._progress:
            raise UsageError(f"Source {batch.source} was not added to this writer; call add_source first.")
        last, dim = self._progress[batch.source].last_frame, self._store.facts.embedding_dim
        for people in batch.frames:
            n = len(people.scores)
            shapes = (people.boxes.shape, people.embeddings.shape, people.visits.shape)
            if shapes != ((n, 4), (n, dim), (n,)) or len(people.thumbnails) not in (0, n):
                raise UsageError(f"Frame {people.frame}: of {n} people with embeddings of {dim}, got shapes {shapes}.")
            if people.frame <= last:
                raise UsageError(f"Frame {people.frame} comes after {last}; give frames that rise beyond those done.")
            if people.time is not None and people.time.tzinfo is None:
                raise UsageError(f"Frame {people.frame} has a time without a time zone; give an aware datetime.")
            last = people.frame
        if batch.last_frame is not None and batch.last_frame < last:
            raise UsageError(f"The batch is done up to {batch.last_frame}, but frame {last} was done already.")


def _joined(tables: Sequence[Any]) -> Any:
    import pyarrow as pa

    return pa.concat_tables(tables)


def _rows(segments: list[Segment], schema: Any) -> Any:
    import pyarrow as pa

    return pa.Table.from_pylist(segments, schema=schema)
