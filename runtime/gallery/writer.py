"""The one writer of a gallery: what is committed, survives.

A commit of several sources is: 1 add the people; 2 add a segment a source, in one step: the commit point; 3 fold the
people into their visits; 4 where a gallery keeps visits only, delete the people that no tracker needs any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from psarm.runtime.gallery.records import IndexedPeople, Source, SourceBatch, SourceProgress
from psarm.runtime.gallery.store import Store

TRACK_MEMORY = 60.0
"""Seconds (of pictures: pictures) of a source's people kept for its tracker where a gallery keeps visits only."""


class GalleryWriter:
    """Adds sources and their people; from `Gallery.writer`, in a `with` block."""

    compact_every = 200
    """Commits from one compaction to the next."""

    def __init__(self, store: Store) -> None:
        """Raises `GalleryError` where another process writes, or the gallery cannot be written."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let others write; what was not committed is gone."""
        raise NotImplementedError

    def add_source(self, source: Source) -> SourceProgress:
        """Add a source, or go on with it: what a broken-off commit left of it is put in order first.

        Raises:
            GalleryError: there is a source of that name with other content, settings, camera or kind.
        """
        raise NotImplementedError

    def recent_people(self, source: int, since_frame: int) -> list[IndexedPeople]:
        """People of a source's frames from `since_frame` on, without thumbnails: what its tracker goes on with."""
        raise NotImplementedError

    def commit(self, batches: Sequence[SourceBatch]) -> None:
        """Add the batches of several sources (one a source), all of them or none.

        Raises:
            GalleryError: a batch is not of a source that was added, its frames do not rise beyond those done, or
                it cannot be written: disk full, somebody else wrote.
        """
        raise NotImplementedError
