"""Sources → gallery: read, detect, track, commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from psarm.errors import GalleryError, ImageError
from psarm.files import uninterrupted
from psarm.runtime.gallery.gallery import Gallery
from psarm.runtime.gallery.repair import TRACK_MEMORY
from psarm.runtime.gallery.writer import GalleryWriter
from psarm.runtime.indexing.accounting import Notes, SourceAccount, SourceReport
from psarm.runtime.indexing.events import Detect, Ended, Event, Failed, Found, Skipped
from psarm.runtime.indexing.reading import GrowingReader, SourceReader
from psarm.runtime.indexing.retention import Retention
from psarm.runtime.indexing.visits import find_visits
from psarm.runtime.indexing.web import WebReader

MEMORY_MICROSECONDS = int(TRACK_MEMORY * 1_000_000)


@dataclass(frozen=True)
class CommitEvery:
    """When what was found goes into the gallery, whichever comes first."""

    seconds: float = 5.0
    people: int = 5000


class Indexer:
    """Puts the people of several sources into a gallery, and goes on after what is in it already.

    >>> with Gallery.open("gallery") as gallery, PersonSearch("prw.psarm") as engine:
    ...     reports = Indexer(gallery, detect_with(engine)).run(find_readers(["door.mp4"]))
    """

    def __init__(
        self,
        gallery: Gallery,
        detect: Detect,
        commit_every: CommitEvery = CommitEvery(),
        on_change: Callable[[SourceReport], None] | None = None,
        notes: Notes | None = None,
        retention: Retention | None = None,
    ) -> None:
        """`on_change`: called with a source's report as it goes on; `notes`: of the readers, taken as they read."""
        self._gallery, self._detect, self._every = gallery, detect, commit_every
        self._on_change = on_change
        self._accounts: dict[str, SourceAccount] = {}
        self._unread: dict[str, SourceReport] = {}
        self._names: list[str] = []
        self._notes = notes or Notes()
        self.started = False
        """Whether a source was to be gone on with, once all were planned."""
        self._retention = retention
        self._last_commit = time.monotonic()

    @property
    def reports(self) -> list[SourceReport]:
        """How far the sources are, in their order; after `run`, also one that broke off, what is committed of them."""
        return [self._report(name) for name in self._names]

    def run(self, readers: Sequence[SourceReader]) -> list[SourceReport]:
        """Index all that the sources have, cameras until one closes them; a source that fails ends alone.

        What was found before the network or the caller (Ctrl-C) broke off is committed. Raises `GalleryError` where
        the gallery cannot be written, `StreamError` where the network fails.
        """
        with self._gallery.writer() as writer:
            try:
                self._run(readers, writer)
            finally:
                for account in self._accounts.values():
                    account.settle(writer.progress(account.id))
        return self.reports

    def _run(self, readers: Sequence[SourceReader], writer: GalleryWriter) -> None:
        todo = [(reader, self._accounts[reader.source.name].done) for reader in readers if self._open(reader, writer)]
        self._purge(writer)
        if todo:
            self.started = True
            self._index(todo, writer)
            self._purge(writer)

    def _open(self, reader: SourceReader, writer: GalleryWriter) -> bool:
        """Whether there is something to do."""
        name = reader.source.name
        try:
            source = reader.plan()
            self._check_there(reader)
            progress = writer.add_source(source, reader.continues if isinstance(reader, GrowingReader) else None)
        except (ImageError, GalleryError) as error:
            self._unread[name] = SourceReport(name, reader.source.camera, None, error=str(error))
            self._names.append(name)
            self._changed(name)
            return False
        visits = find_visits(source.kind, progress.next_visit)
        if progress.last_frame >= 0 and not progress.finished and source.kind != "pictures":
            visits.warm_up(writer.recent_people(progress.source, progress.last_frame - MEMORY_MICROSECONDS))
        self._accounts[name] = SourceAccount(source, progress, visits, self._gallery.thumbnails)
        self._names.append(name)
        self._changed(name)
        return not progress.finished

    def _check_there(self, reader: SourceReader) -> None:
        """Raise `ImageError` where a video of the gallery is away, and so could be taken for a camera."""
        if isinstance(reader, WebReader) and reader.unsure:
            name = reader.source.name
            if any((info.source.name, info.source.kind) == (name, "video") for info in self._gallery.sources()):
                raise ImageError(f"{name} cannot be read: {reader.unsure}.")

    def _index(self, readers: Sequence[tuple[SourceReader, int]], writer: GalleryWriter) -> None:
        self._last_commit = time.monotonic()
        try:
            with self._detect(readers) as events:
                for event in events:
                    if event is not None:
                        self._take(event)
                    if self._due():
                        self._commit(writer)
                        if self._retention and self._retention.due:
                            self._purge(writer)
        finally:
            self._commit(writer)

    def _take(self, event: Event) -> None:
        account = self._accounts[event.source]
        if isinstance(event, Found):
            account.found(event)
        elif isinstance(event, Skipped):
            account.skipped(event.skip)
        elif isinstance(event, Failed):
            account.error = event.reason
        elif isinstance(event, Ended):
            account.end()
        self._changed(event.source)

    def _due(self) -> bool:
        waiting = sum(account.waiting for account in self._accounts.values())
        return waiting >= self._every.people or time.monotonic() - self._last_commit >= self._every.seconds

    def _commit(self, writer: GalleryWriter) -> None:
        # A batch is taken once: what failed is put in order by the next run, and may not be done twice.
        with uninterrupted():
            batches = [batch for account in self._accounts.values() if (batch := account.take_batch()) is not None]
            if batches:
                writer.commit(batches)
            self._last_commit = time.monotonic()

    def _purge(self, writer: GalleryWriter) -> None:
        if self._retention:
            self._retention.purge(writer)
            for account in self._accounts.values():
                account.purged()

    def _report(self, name: str) -> SourceReport:
        if name in self._unread:
            return self._unread[name]
        return self._accounts[name].report(*self._notes.of(name))

    def _changed(self, name: str) -> None:
        if self._on_change:
            self._on_change(self._report(name))
