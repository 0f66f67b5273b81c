"""A gallery keeps people no longer than allowed, also while cameras are indexed into it without end."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from psarm.errors import UsageError
from psarm.runtime.gallery.records import Removed
from psarm.runtime.gallery.writer import GalleryWriter

CHECK_SECONDS = 3600.0
"""From one look at who is to go to the next."""

DAY = timedelta(days=1)

OnPurge = Callable[[datetime, Removed], None]
"""Called with the moment before which people were erased, and how many, where there were any."""


class Retention:
    """Purges a gallery through its one writer: whole days (UTC), as soon as all of one is to go.

    A purge writes whole tables anew and takes the index of the embeddings, so that there is one a day at most; people
    are kept for up to a day and an hour longer. Where they are kept for less than a day, whole hours are purged.
    """

    def __init__(self, keep: timedelta, on_purge: OnPurge | None = None) -> None:
        """`keep`: at least an hour; raises `UsageError`."""
        if keep.total_seconds() < CHECK_SECONDS:
            raise UsageError(f"People are purged by the hour at most and so kept for at least 1h, got {keep}.")
        self._keep, self._on_purge = keep, on_purge
        self._next = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time again."""
        return time.monotonic() >= self._next

    def purge(self, writer: GalleryWriter) -> None:
        """Erase who was seen in days that ended longer ago than is kept, where there is anybody."""
        moment = self._begin_of(datetime.now(UTC) - self._keep)
        removed = writer.purge(moment)
        self._next = time.monotonic() + CHECK_SECONDS
        if self._on_purge and (removed.people or removed.visits):
            self._on_purge(moment, removed)

    def _begin_of(self, moment: datetime) -> datetime:
        """Of the day, or hour, of a moment."""
        hour = moment.replace(minute=0, second=0, microsecond=0)
        return hour.replace(hour=0) if self._keep >= DAY else hour
