"""A gallery keeps people no longer than allowed, also while cameras are indexed into it without end."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from psarm.errors import UsageError
from psarm.runtime.gallery.records import Removed
from psarm.runtime.gallery.writer import GalleryWriter

PURGE_SECONDS = 3600.0
"""From one purge to the next."""

OnPurge = Callable[[datetime, Removed], None]
"""Called with the moment before which people were erased, and how many, where there were any."""


class Retention:
    """Purges a gallery through its one writer: at the start, every hour and at the end of indexing."""

    def __init__(self, keep: timedelta, on_purge: OnPurge | None = None) -> None:
        """`keep`: at least an hour; raises `UsageError`."""
        if keep.total_seconds() < PURGE_SECONDS:
            raise UsageError(f"People are purged every hour and so kept for at least 1h, got {keep}.")
        self._keep, self._on_purge = keep, on_purge
        self._next = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time again."""
        return time.monotonic() >= self._next

    def purge(self, writer: GalleryWriter) -> None:
        """Erase who was seen longer ago than is kept."""
        moment = datetime.now(UTC) - self._keep
        removed = writer.purge(moment)
        self._next = time.monotonic() + PURGE_SECONDS
        if self._on_purge and (removed.people or removed.visits):
            self._on_purge(moment, removed)
