"""Several readers through one engine, in batches of all of them."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from psarm.errors import StreamError
from psarm.runtime.engine import PersonSearch
from psarm.runtime.indexing.events import Detect, Ended, Event, Failed, Found, Skipped, thumbnail
from psarm.runtime.indexing.reading import Skip, SourceReader
from psarm.runtime.stream.stream import Stream, StreamResult
from psarm.runtime.video import Frame

TICK_SECONDS = 0.5
"""How long nothing may happen before that is told: commits go on where no frame comes."""


@dataclass(frozen=True)
class Taken:
    """What is known of a frame that is on its way through the engine."""

    frame: int
    time: datetime | None


class Ahead:
    """What a reader gave and the engine has not given back: skips go past the network, in order all the same.

    One thread puts, another takes.
    """

    def __init__(self) -> None:
        self._entries: deque[Taken | Skip | None] = deque()  # None: the end
        self._lock = threading.Lock()

    def put(self, entry: Taken | Skip | None) -> None:
        """Add; skips for the same reason become one, so that it stays short where a whole file is damaged."""
        with self._lock:
            last = self._entries[-1] if self._entries else None
            if isinstance(entry, Skip) and isinstance(last, Skip) and last.reason == entry.reason:
                self._entries[-1] = Skip(entry.frame, entry.reason, last.count + entry.count)
            else:
                self._entries.append(entry)

    def take(self, with_frame: bool) -> list[Taken | Skip | None]:
        """What comes before the next frame, or up to and with it."""
        taken: list[Taken | Skip | None] = []
        with self._lock:
            while self._entries and (with_frame or not isinstance(self._entries[0], Taken)):
                taken.append(self._entries.popleft())
                if isinstance(taken[-1], Taken):
                    break
        return taken


def detect_with(engine: PersonSearch, batch: int = 1, requests: int | None = None) -> Detect:
    """Detection with an engine in this process; `batch`, `requests`: of `PersonSearch.stream`."""

    @contextmanager
    def detect(readers: Sequence[tuple[SourceReader, int]]) -> Generator[Iterator[Event | None]]:
        detection = Detection(engine, readers, batch, requests)
        try:
            yield detection.events()
        finally:
            detection.close()

    return detect


class Detection:
    """Readers through an engine: an iterator of `Event`s, None where nothing came for `TICK_SECONDS`.

    Iterating raises `StreamError` where the network fails. `close` ends it, from the thread that iterates.
    """

    def __init__(
        self,
        engine: PersonSearch,
        readers: Sequence[tuple[SourceReader, int]],
        batch: int,
        requests: int | None,
    ) -> None:
        """`readers`: each with the id of the last frame that is done."""
        self._readers = tuple(reader for reader, _ in readers)
        self._ahead = {reader.source.name: Ahead() for reader, _ in readers}
        self._arrived: queue.Queue[StreamResult | Exception | None] = queue.Queue(maxsize=2 * batch)
        self._closing = threading.Event()
        frames = {reader.source.name: self._read(reader, after) for reader, after in readers}
        self._stream: Stream = engine.stream(frames, batch, requests=requests, on_error=self._put)
        self._pump = threading.Thread(target=self._run, name="psarm-index", daemon=True)
        self._pump.start()

    def events(self) -> Generator[Event | None]:
        """All that happens."""
        while True:
            try:
                arrived = self._arrived.get(timeout=TICK_SECONDS)
            except queue.Empty:
                yield from self._between()
                yield None
                continue
            if isinstance(arrived, StreamResult):
                yield from self._result(arrived)
            yield from self._between()
            if arrived is None:
                return
            if isinstance(arrived, StreamError) and arrived.source is not None:
                yield Failed(arrived.source, str(arrived))
            elif isinstance(arrived, Exception):
                raise arrived

    def close(self) -> None:
        """End the readers and the stream; what is under way is dropped."""
        self._closing.set()
        for reader in self._readers:
            reader.close()
        self._stream.close()
        while self._pump.is_alive():  # it may wait for room
            while not self._arrived.empty():
                self._arrived.get()
            self._pump.join(0.05)

    def _read(self, reader: SourceReader, after: int) -> Generator[Frame]:
        """In a thread of the stream's."""
        ahead = self._ahead[reader.source.name]
        for one in reader.read(after):
            if isinstance(one, Skip):
                ahead.put(one)
            else:
                ahead.put(Taken(one.frame, one.time))
                yield one.image
        if not self._closing.is_set():  # else it was told to end
            ahead.put(None)

    def _run(self) -> None:
        try:
            for result in self._stream:
                self._put(result)
            self._put(None)
        except Exception as error:  # told in the thread that iterates
            self._put(error)

    def _put(self, arrived: StreamResult | Exception | None) -> None:
        self._arrived.put(arrived)

    def _result(self, result: StreamResult) -> Generator[Event]:
        for entry in self._ahead[result.source].take(with_frame=True):
            if isinstance(entry, Taken):
                make = partial(thumbnail, result.frame, result.detections)
                height, width = result.frame.shape[:2]
                yield Found(result.source, entry.frame, entry.time, result.detections, make, (width, height))
            else:
                yield self._event(result.source, entry)

    def _between(self) -> Generator[Event]:
        for source, ahead in self._ahead.items():
            for entry in ahead.take(with_frame=False):
                if not isinstance(entry, Taken):
                    yield self._event(source, entry)

    @staticmethod
    def _event(source: str, entry: Skip | None) -> Event:
        return Ended(source) if entry is None else Skipped(source, entry)
