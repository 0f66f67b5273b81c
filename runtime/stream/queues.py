"""Frames that wait for the network: a bounded queue a source, and batches made of all of them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from psarm.runtime.video import Frame


@dataclass(frozen=True, eq=False)
class QueuedFrame:
    """A frame on its way through the stream."""

    source: str
    index: int
    seconds: float
    frame: Frame
    dropped: int
    """Frames of its source dropped so far."""


@dataclass(frozen=True, eq=False)
class SourceFailure:
    """What ended a source, after its last frame."""

    source: str
    last_index: int | None
    """Of the last frame read from it."""
    error: BaseException


@dataclass(eq=False)
class _Queue:
    name: str
    waiting: deque[tuple[float, int, float, Frame]] = field(default_factory=deque)
    """Since when, index, seconds, frame."""
    last_index: int | None = None
    dropped: int = 0
    ended: bool = False
    error: BaseException | None = None


class FrameQueues:
    """Readers put frames in and wait while their queue is full; `take` gives batches. Threads may share it."""

    def __init__(
        self, names: Sequence[str], size: int, drop_oldest: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`size`: frames that wait, a source; a full queue makes its reader wait, or loses its oldest frame."""
        self._queues = {name: _Queue(name) for name in names}
        self._size = size
        self._drop_oldest = drop_oldest
        self._clock = clock
        self._changed = threading.Condition()
        self._closed = False

    @property
    def dropped(self) -> dict[str, int]:
        """Frames dropped so far, by source."""
        with self._changed:
            return {queue.name: queue.dropped for queue in self._queues.values()}

    def put(self, name: str, index: int, seconds: float, frame: Frame) -> bool:
        """Add a frame of the source `name`, once there is room; False when the queues are closed."""
        queue = self._queues[name]
        with self._changed:
            if self._drop_oldest and len(queue.waiting) >= self._size:
                queue.waiting.popleft()
                queue.dropped += 1
            self._changed.wait_for(lambda: self._closed or len(queue.waiting) < self._size)
            if self._closed:
                return False
            queue.waiting.append((self._clock(), index, seconds, frame))
            queue.last_index = index
            self._changed.notify_all()
            return True

    def end(self, name: str, error: BaseException | None = None) -> None:
        """Say that the source `name` gives no more frames, and why where it should have."""
        with self._changed:
            self._queues[name].ended, self._queues[name].error = True, error
            self._changed.notify_all()

    def close(self) -> None:
        """Let everybody who waits go, and drop what is left."""
        with self._changed:
            self._closed = True
            for queue in self._queues.values():
                queue.waiting.clear()
            self._changed.notify_all()

    def take(self, batch: int, max_wait: float | None) -> list[QueuedFrame] | SourceFailure | None:
        """The next batch, oldest frames first: `batch` frames, or fewer once the first has waited `max_wait` seconds.

        Fewer also where no source can add one. A source that failed is told once, after its frames; None at the end.
        """
        with self._changed:
            while True:
                if self._closed:
                    return None
                if failure := self._failure():
                    return failure
                count = sum(len(queue.waiting) for queue in self._queues.values())
                if not count and all(queue.ended for queue in self._queues.values()):
                    return None
                left = None if max_wait is None or not count else self._oldest() + max_wait - self._clock()
                if count >= batch or (count and (self._stuck() or (left is not None and left <= 0))):
                    taken = [self._pop() for _ in range(min(batch, count))]
                    self._changed.notify_all()
                    return taken
                self._changed.wait(left)

    def _failure(self) -> SourceFailure | None:
        for queue in self._queues.values():
            if queue.error is not None and not queue.waiting:
                error, queue.error = queue.error, None
                return SourceFailure(queue.name, queue.last_index, error)
        return None

    def _stuck(self) -> bool:
        """Whether no source can add a frame before some are taken."""
        return all(queue.ended or len(queue.waiting) >= self._size for queue in self._queues.values())

    def _oldest(self) -> float:
        return min(queue.waiting[0][0] for queue in self._queues.values() if queue.waiting)

    def _pop(self) -> QueuedFrame:
        queue = min((one for one in self._queues.values() if one.waiting), key=lambda one: one.waiting[0][0])
        _, index, seconds, frame = queue.waiting.popleft()
        return QueuedFrame(queue.name, index, seconds, frame, queue.dropped)
