"""The threads of a stream.

    a reader a source → queue a source → dispatcher → prepare → network (a thread a lane) → finish → results

Every stage has threads of its own, so that all of them work at the same time; OpenCV, numpy and the backends let go of
Python's lock. At most `batches_in_flight` batches are between the queues and the consumer: then the dispatcher waits,
the queues fill, and the readers wait.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from psarm.runtime.backends.base import DetectInputs
from psarm.runtime.detections import Detections
from psarm.runtime.manifest import Thresholds
from psarm.runtime.postprocess import Kept
from psarm.runtime.stages import Network, finish
from psarm.runtime.stream.options import StreamOptions
from psarm.runtime.stream.queues import FrameQueues, QueuedFrame, SourceFailure
from psarm.runtime.stream.sources import Source
from psarm.runtime.timing import StageTimer
from psarm.runtime.validators import check_frame

SECONDS_TO_STOP = 2.0
"""How long closing waits for a reader, which may hang in a camera or in the caller's iterable."""


@dataclass(frozen=True, eq=False)
class Submitted:
    """A batch under way."""

    frames: list[QueuedFrame]
    people: Future[list[Detections]]
    timer: StageTimer
    """Complete with `people`."""


Arrival = Submitted | SourceFailure | BaseException | None
"""What comes out, in order; None at the end."""


class Pipeline:
    """Reads, runs the network and puts what comes out into `arrivals`; starts at once, `close` ends it."""

    def __init__(
        self,
        sources: Sequence[Source],
        queues: FrameQueues,
        lanes: Sequence[Network],
        thresholds: Thresholds,
        options: StreamOptions,
        stack: ExitStack,
    ) -> None:
        """`stack`: closed in the end."""
        self.arrivals: SimpleQueue[Arrival] = SimpleQueue()
        self._queues, self._thresholds, self._options = queues, thresholds, options
        self._threads: set[threading.Thread] = set()
        """All of the pipeline's own, which cannot wait for themselves."""
        self._prepare = ThreadPoolExecutor(1, "psarm-prepare", self._count_thread)
        self._network = ThreadPoolExecutor(len(lanes), "psarm-network", self._count_thread)
        self._finish = ThreadPoolExecutor(1, "psarm-finish", self._count_thread)
        self._first_lane = lanes[0]
        self._free_lanes: SimpleQueue[Network] = SimpleQueue()
        for lane in lanes:
            self._free_lanes.put(lane)
        self._slots: SimpleQueue[None] = SimpleQueue()
        for _ in range(batches_in_flight(len(lanes))):
            self._slots.put(None)
        self._stack = stack
        self._closing = threading.RLock()  # a handler of Ctrl-C may close what is being closed
        self._closed = False
        self.closing = False
        """Whether `close` was called."""
        start = time.monotonic()
        # Daemons: one that hangs in a camera must not keep the process alive.
        self._readers = {
            source.name: threading.Thread(
                target=self._read, args=(source, start), name=f"psarm-read {source.name}", daemon=True
            )
            for source in sources
        }
        self._dispatcher = threading.Thread(target=self._dispatch, name="psarm-dispatch", daemon=True)
        self._threads |= {*self._readers.values(), self._dispatcher}
        for thread in (*self._readers.values(), self._dispatcher):
            thread.start()

    def release(self) -> None:
        """Let another batch in: one has been fetched."""
        self._slots.put(None)

    def close(self) -> None:
        """Stop all threads, free the lanes; what is under way in the network is waited for and dropped.

        A reader that hangs longer than `SECONDS_TO_STOP` is left behind with a `ResourceWarning`. Where Ctrl-C or an
        error broke off a step, the others are done, and the next call does what is left. In a thread of the pipeline,
        where Python's garbage collection may call it, it leaves the work to a new thread and returns.
        """
        self.closing = True
        if threading.current_thread() in self._threads:
            threading.Thread(target=self._end, name="psarm-close").start()
        else:
            self._end()

    def _end(self) -> None:
        with self._closing:
            if self._closed:
                return
            with ExitStack() as steps:  # done from the last to the first, each whatever the others raise
                steps.callback(self._wait_for_readers)
                steps.callback(self.arrivals.put, None)  # for a consumer in another thread
                steps.callback(self._stack.close)
                for pool in (self._finish, self._network, self._prepare):
                    steps.callback(pool.shutdown, cancel_futures=True)
                steps.callback(self._dispatcher.join)
                steps.callback(self._slots.put, None)  # for the dispatcher, which may wait for one
                steps.callback(self._queues.close)
            self._closed = True

    def _count_thread(self) -> None:
        self._threads.add(threading.current_thread())

    def _wait_for_readers(self) -> None:
        limit = time.monotonic() + SECONDS_TO_STOP
        for name, reader in self._readers.items():
            reader.join(max(0.0, limit - time.monotonic()))
            if reader.is_alive():
                warnings.warn(
                    f"The source {name} did not answer within {SECONDS_TO_STOP:g} seconds of closing; its thread ends "
                    "with its read.",
                    ResourceWarning,
                    stacklevel=2,
                )

    def _read(self, source: Source, start: float) -> None:
        error: BaseException | None = None
        try:
            with closing(source.read()) as frames:
                for number, seconds, frame in frames:
                    check_frame(frame)
                    since = time.monotonic() - start if seconds is None else seconds
                    if not self._queues.put(source.name, number, since, frame):
                        break
        except BaseException as caught:  # whatever the caller's iterable raises is told in the consumer's thread
            error = caught
        self._queues.end(source.name, error)

    def _dispatch(self) -> None:
        try:
            while True:
                self._slots.get()
                taken = self._queues.take(self._options.batch, self._options.max_wait)
                if taken is None:
                    self.arrivals.put(None)
                    return
                self.arrivals.put(taken if isinstance(taken, SourceFailure) else self._submit(taken))
        except BaseException as error:  # memory may run out anywhere
            self.arrivals.put(error)

    def _submit(self, frames: list[QueuedFrame]) -> Submitted:
        timer = StageTimer()
        prepared = self._prepare.submit(self._first_lane.prepare, [one.frame for one in frames], timer)
        people = self._network.submit(self._run, prepared, timer)
        sizes: list[Any] = [one.frame.shape[:2] for one in frames]
        finished = self._finish.submit(
            lambda: finish(people.result(), prepared.result(), sizes, self._thresholds, timer)
        )
        return Submitted(frames, finished, timer)

    def _run(self, prepared: Future[DetectInputs], timer: StageTimer) -> list[Kept]:
        batch = prepared.result()
        lane = self._free_lanes.get()  # never waits: there are as many threads as lanes
        try:
            return lane.detect(batch, self._thresholds, timer)
        finally:
            self._free_lanes.put(lane)


def batches_in_flight(lanes: int) -> int:
    """One in each lane, one that is prepared meanwhile, one that is finished or waits for the consumer."""
    return lanes + 2
