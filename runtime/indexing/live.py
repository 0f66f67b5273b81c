"""A camera: an address that has no end (rtsp://…, http://…), or the number of one at this machine.

A thread of its own takes frames from the camera as they come, so that none waits in a buffer and is taken for later
than it is. Ids are when frames came, in microseconds since 1970; they rise even where the clock goes backwards.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from psarm.errors import ImageError
from psarm.runtime.gallery.records import Source
from psarm.runtime.indexing.cameras import Camera
from psarm.runtime.indexing.reading import DAMAGED, Note, NoteEvent, OnNote, Skip, TakenFrame
from psarm.runtime.indexing.sampling import Sampling
from psarm.runtime.video import Frame

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
"""Before a camera is tried again; doubled each time, and a random part of up to a half taken off, so that many cameras
behind one switch do not come back all at once."""
STAYED_S = 10.0
"""For so long a camera must give frames before it is again tried as soon as one that never went."""
LEAP_US = 1_000_000
"""A clock that is off by less is only being set right."""
WAITING = 8
"""Frames that wait to be taken; then the oldest gives way."""
TOO_SLOW = "came faster than they were taken"
"""Reason."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class RisingClock:
    """Microseconds since 1970 that rise: where the machine's clock is set back, they go on by a clock that is not."""

    def __init__(self, after: int, on_leap: Callable[[str], None]) -> None:
        self._last = after
        self._on_leap = on_leap
        self._begin = max(_wall_us(), after + 1) - _steady_us()
        self._behind = after > _wall_us() + LEAP_US
        if self._behind:
            on_leap("the clock is behind the frames that are there already; times go on from theirs")

    def now(self) -> int:
        """Above all it gave before."""
        ahead = _wall_us() - _steady_us() - self._begin
        if ahead > 0:
            self._begin += ahead
        if ahead < -LEAP_US and not self._behind:
            self._on_leap(f"the clock was set back by {-ahead / 1e6:.0f} s; times go on as if it had not been")
        self._behind = ahead < -LEAP_US
        self._last = max(self._last + 1, self._begin + _steady_us())
        return self._last


class LiveReader:
    """Reads a camera until it is closed; one that goes, or is not there yet, is waited for and tried again."""

    def __init__(
        self, camera: Camera, source: Source, sampling: Sampling, give_up_after: float | None, on_note: OnNote
    ) -> None:
        self._camera = camera
        self._source = source
        self._sampling = sampling
        self._give_up_after = give_up_after
        self._on_note = on_note
        self._stop = threading.Event()
        self._entries = _Entries()
        self._frames = 0
        self._slot = -1
        self._first: int | None = None

    @property
    def source(self) -> Source:
        """All that is known of a camera."""
        return self._source

    def plan(self) -> Source:
        """A camera is opened when it is read."""
        return self._source

    def read(self, after: int = -1) -> Iterator[TakenFrame | Skip]:
        """Frames as they come, until `close`."""
        # Not waited for at the end: a camera that is silent holds it for as long as its time-out.
        threading.Thread(target=self._receive, args=(after,), name=f"camera {self._source.name}", daemon=True).start()
        try:
            while (entry := self._entries.take()) is not None:
                yield entry
        finally:
            self.close()

    def close(self) -> None:
        """End `read`."""
        self._stop.set()
        self._entries.end()

    def _receive(self, after: int) -> None:
        try:
            self._receive_again_and_again(RisingClock(after, lambda text: self._note("clock", text)))
            self._entries.end()
        except BaseException as error:  # raised again where frames are taken
            self._entries.end(error)

    def _receive_again_and_again(self, clock: RisingClock) -> None:
        gone: float | None = None
        wait = FIRST_WAIT_S
        while not self._stop.is_set():
            cause = "it ended"
            came: float | None = None
            try:
                for take in self._camera.frames(self._sampling.keyframes):
                    if take is not None and came is None:
                        came = time.monotonic()
                        if gone is not None:
                            self._note("back", f"it is back after {came - gone:.0f} s")
                        gone = None
                    self._put(clock.now(), take)
                    if self._stop.is_set():
                        return
            except ImageError as error:
                cause = str(error)
            if self._stop.is_set():
                return
            if came is not None and time.monotonic() - came >= STAYED_S:
                wait = FIRST_WAIT_S
            if gone is None:
                gone = time.monotonic()
                self._note("gone", f"it is gone ({cause}) and will be tried again")
            left = self._left(gone, cause)
            self._stop.wait(min(left, wait * random.uniform(0.5, 1)))
            wait = min(2 * wait, LONGEST_WAIT_S)

    def _left(self, gone: float, cause: str) -> float:
        """Seconds until it is given up."""
        if self._give_up_after is None:
            return float("inf")
        left = gone + self._give_up_after - time.monotonic()
        if left <= 0:
            raise ImageError(f"The camera {self._source.name} was away for {self._give_up_after:g} s ({cause}).")
        return left

    def _put(self, number: int, take: Callable[[], Frame | None] | None) -> None:
        """`take`: gives the picture, None where it is damaged; itself None where it could not be decoded."""
        if not self._is_due(number):
            return
        image = take() if take else None
        if image is None:
            self._entries.put(Skip(number, DAMAGED))
        else:
            self._entries.put(TakenFrame(number, EPOCH + timedelta(microseconds=number), image))

    def _is_due(self, number: int) -> bool:
        self._first = number if self._first is None else self._first
        self._frames += 1
        if self._sampling.fps is None:
            return (self._frames - 1) % (self._sampling.every or 1) == 0
        slot = int((number - self._first) * self._sampling.fps / 1e6)
        due, self._slot = slot > self._slot, slot
        return due

    def _note(self, event: NoteEvent, text: str) -> None:
        self._on_note(Note(self._source.name, event, f"{self._source.name}: {text}."))


class _Entries:
    """What came from the camera and was not taken yet."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._entries: deque[TakenFrame | Skip] = deque()
        self._ended = False
        self._error: BaseException | None = None

    def put(self, entry: TakenFrame | Skip) -> None:
        with self._changed:
            self._entries.append(entry)
            if len(self._entries) > WAITING:
                first, second = self._entries.popleft(), self._entries.popleft()
                lost = sum(one.count if isinstance(one, Skip) else 1 for one in (first, second))
                self._entries.appendleft(Skip(second.frame, TOO_SLOW, lost))
            self._changed.notify()

    def take(self) -> TakenFrame | Skip | None:
        """Waits for the next; None at the end. Raises what ended it."""
        with self._changed:
            self._changed.wait_for(lambda: self._entries or self._ended)
            if self._entries:
                return self._entries.popleft()
            if self._error:
                raise self._error
            return None

    def end(self, error: BaseException | None = None) -> None:
        with self._changed:
            self._ended, self._error = True, self._error or error
            self._changed.notify()


def _wall_us() -> int:
    return time.time_ns() // 1000


def _steady_us() -> int:
    return time.monotonic_ns() // 1000
