"""`Stream`: results of an engine over video, in the thread of whoever asks for them.

Frames are uint8 [H,W,3] BGR.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from psarm.errors import PsarmError, StreamError
from psarm.runtime.backends.checks import first_line
from psarm.runtime.bundle import Bundle
from psarm.runtime.detections import Detections
from psarm.runtime.manifest import Thresholds
from psarm.runtime.stages import Network
from psarm.runtime.stream.lanes import default_requests, open_lanes
from psarm.runtime.stream.options import StreamOptions
from psarm.runtime.stream.pipeline import Pipeline, Submitted
from psarm.runtime.stream.queues import FrameQueues, SourceFailure
from psarm.runtime.stream.sources import Source
from psarm.runtime.video import Frame


@dataclass(frozen=True, eq=False)
class StreamResult:
    """One frame and the people in it."""

    source: str
    """Name of its source: the path, the address without user, password and query, `camera 0`, `frames`, or as given."""
    index: int
    """From 0, in its source; of a video file, its frame number."""
    time_s: float
    """Seconds: of a video file, its place in it; else, when it was read, since the stream began."""
    frame: Frame
    detections: Detections
    dropped: int
    """Frames of this source dropped so far."""
    seconds: dict[str, float]
    """Of work by stage (preprocess, detect, nms, reid, post): its share of its batch."""


class Stream(Iterator[StreamResult]):
    """Results of a stream, in order for each source. An iterator, and a context manager that closes.

    It reads ahead as soon as it is made, and no further than its buffers. It closes at the end, on an error, at
    `close`, when the `with` block is left, and when nobody holds it any more; no thread is left then.
    """

    def __init__(
        self,
        sources: list[Source],
        options: StreamOptions,
        network: Network,
        bundle: Bundle,
        threads: int,
        thresholds: Thresholds,
    ) -> None:
        """`network`: the engine's, with `threads` CPU threads."""
        self.sources = tuple(source.name for source in sources)
        """Their names."""
        self._options = options
        self._queues = FrameQueues(self.sources, options.queue_size, options.drop is not None)
        requests = options.requests or default_requests(network, threads)
        with ExitStack() as stack:
            lanes = open_lanes(network, bundle, threads, requests, stack)
            self._pipeline = Pipeline(sources, self._queues, lanes, thresholds, options, stack.pop_all())
        self._finalizer = weakref.finalize(self, self._pipeline.close)
        self._ready: deque[StreamResult] = deque()
        self._last_good: dict[str, int] = {}

    @property
    def dropped(self) -> dict[str, int]:
        """Frames dropped so far, by source."""
        return self._queues.dropped

    def __next__(self) -> StreamResult:
        """The next result.

        Raises `StreamError`, with the last good frame of every source, where a source or the network fails; results
        of the frames before it have been given out by then.
        """
        try:
            while not self._ready:
                if self._pipeline.closing:
                    raise StopIteration
                self._ready.extend(self._fetch())
        except BaseException:  # Ctrl-C among them
            self.close()
            raise
        result = self._ready.popleft()
        self._last_good[result.source] = result.index
        return result

    def close(self) -> None:
        """Stop reading, drop what is under way and end all threads; where Ctrl-C breaks it off, call it again."""
        self._ready.clear()
        self._pipeline.close()
        self._finalizer.detach()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fetch(self) -> list[StreamResult]:
        """What comes out next: a batch, or nothing where it is a failure that `on_error` took."""
        arrival = self._pipeline.arrivals.get()
        self._pipeline.release()
        if arrival is None:
            raise StopIteration
        if isinstance(arrival, SourceFailure):
            failure = self._source_error(arrival)
            if self._options.on_error is None:
                raise failure from arrival.error
            self._options.on_error(failure)
            return []
        if isinstance(arrival, BaseException):
            raise self._error(None, arrival) from arrival
        try:
            people = arrival.people.result()
        except Exception as error:
            raise self._error(arrival, error) from error
        share = {stage: taken / len(people) for stage, taken in arrival.timer.seconds.items()}
        return [
            StreamResult(one.source, one.index, one.seconds, one.frame, found, one.dropped, share)
            for one, found in zip(arrival.frames, people, strict=True)
        ]

    def _source_error(self, failure: SourceFailure) -> StreamError:
        where = "before its first frame" if failure.last_index is None else f"after its frame {failure.last_index}"
        message = f"The source {failure.source} failed {where}: {_reason(failure.error)}."
        return StreamError(message, failure.source, dict(self._last_good))

    def _error(self, batch: Submitted | None, error: BaseException) -> StreamError:
        first: dict[str, int] = {}
        for one in batch.frames if batch else []:
            first.setdefault(one.source, one.index)
        at = f" at {_list(first)}" if first else ""
        last = f"the last good is {_list(self._last_good)}" if self._last_good else "none was done before"
        return StreamError(f"The stream stopped{at}: {_reason(error)}; {last}.", None, dict(self._last_good))


def _list(frames: dict[str, int]) -> str:
    return ", ".join(f"frame {index} of {source}" for source, index in frames.items())


def _reason(error: BaseException) -> str:
    if isinstance(error, PsarmError):
        return str(error).rstrip(".")
    return f"{type(error).__name__}: {first_line(error)}"
