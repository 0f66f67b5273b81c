"""How a stream runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from psarm.errors import StreamError, UsageError

MAX_WAIT_SECONDS = 0.1


@dataclass(frozen=True)
class StreamOptions:
    """Options of `PersonSearch.stream`; raises `UsageError` for a value that cannot work."""

    batch: int = 1
    """Frames that go through the network together, of all sources."""
    max_wait: float | None = MAX_WAIT_SECONDS
    """Seconds after which a frame goes into the network with fewer than `batch` frames; None: never."""
    buffer: int | None = None
    """Frames that wait for the network, a source; None: two batches."""
    drop: str | None = None
    """What a full buffer does: None makes the source wait, "oldest" drops its oldest frame."""
    every: int = 1
    """Of videos and cameras, every so-many-th frame is taken."""
    requests: int | None = None
    """Batches in the network at a time, sharing the engine's threads; None: what suits the backend."""
    on_error: Callable[[StreamError], None] | None = None
    """Called when a source fails, and the other sources go on; None: the stream raises it and ends."""

    def __post_init__(self) -> None:
        for name in ("batch", "buffer", "every", "requests"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}; needed 1 or more.")
        if self.max_wait is not None and not self.max_wait >= 0:
            raise UsageError(
                f"max_wait is {self.max_wait}; needed seconds, 0 or more, or None to wait for full batches."
            )
        if self.drop not in (None, "oldest"):
            raise UsageError(f'drop is {self.drop!r}; needed "oldest", or None to drop nothing.')

    @property
    def queue_size(self) -> int:
        """Frames that wait for the network, a source."""
        return self.buffer or 2 * self.batch
