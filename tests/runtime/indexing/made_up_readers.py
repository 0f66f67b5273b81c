"""Readers of made-up frames for the toy bundle."""

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import toy_bundle as toy

from psarm.errors import ImageError
from psarm.runtime.gallery.records import Source
from psarm.runtime.indexing.reading import Skip, TakenFrame

RED, ORANGE = (255, 0, 0), (255, 90, 0)
STEP = 500_000
START = datetime(2026, 5, 1, tzinfo=UTC)


def scene(number):
    """Red stays in cell 0, orange walks in for frames 3 to 6."""
    return toy.draw_scene({0: RED} | ({6: ORANGE} if 3 <= number <= 6 else {}))


class MadeUp:
    """`frames` frames of `scene`; those of `damaged` are skipped, at `breaks` it fails, from `pause_at` on it waits."""

    def __init__(self, name, frames=10, kind="video", damaged=(), breaks=None, pause_at=None, settings=None):
        self._source = Source(name, f"camera of {name}", kind, "signature", settings or {"fps": 2.0}, START, 2.0)
        self.frames, self.damaged, self.breaks, self.pause_at = frames, damaged, breaks, pause_at
        self.closed = threading.Event()
        self.paused = threading.Event()
        self.given = []

    @property
    def source(self):
        return self._source

    def plan(self):
        if self.breaks == "at once":
            raise ImageError(f"{self._source.name} is no video.")
        self._source = replace(self._source, planned=None if self._source.kind == "live" else self.frames)
        return self._source

    def read(self, after=-1):
        for number in range(self.frames):
            frame = number if self._source.kind == "pictures" else number * STEP
            if frame <= after:
                continue
            if number == self.pause_at:
                self.paused.set()
                self.closed.wait()
            if self.closed.is_set():
                return
            if number == self.breaks:
                raise ImageError("it broke off")
            if number in self.damaged:
                yield Skip(frame, "damaged")
            else:
                self.given.append(frame)
                yield TakenFrame(frame, START + timedelta(microseconds=frame), scene(number))

    def close(self):
        self.closed.set()
