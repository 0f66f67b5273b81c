"""The worker processes of a loader: how they behave, and how what goes wrong in them reaches the user."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import cv2

from psarm.errors import DataError

T = TypeVar("T")

_DEAD = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: ([^.]+)|exited unexpectedly)"
)
_NO_SHARED_MEMORY = "No space left on device"
_WHY = "most often for want of memory or of shared memory (/dev/shm)"
_WHAT_TO_DO = "see that there is enough, or read images with fewer processes (data.workers; 0 uses none)."


def begin_worker(worker: int) -> None:
    """What a worker begins with, as the `worker_init_fn` of a loader.

    One thread: the workers are the parallelism, threads in each would only get in the way. A scheduler's SIGTERM, which
    comes to all processes of a job at once, ends it without a word: the main process says what happened.
    """
    cv2.setNumThreads(0)
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))


def plain_errors(loader: Iterable[T]) -> Iterator[T]:
    """Iterate over a loader; what goes wrong in its workers becomes one sentence.

    Raises:
        DataError: as the data set raised it, without the worker's traceback; or a worker died, or has no shared memory
            to hand over its images.
    """
    try:
        with dead_workers_explained():
            yield from loader
        return
    except (EOFError, ConnectionError) as error:
        if "DataLoader worker" in str(error):  # what the data set raised in a worker, with its traceback
            raise
        # A batch lay ready when its worker died, and its tensors went with the worker.
        sentence = f"A process that reads images ended unexpectedly, {_WHY}; {_WHAT_TO_DO}"
        error.__traceback__ = None
    except DataError as error:
        sentence = str(error).rpartition("DataError: ")[2].strip()
        # torch's frames hold the error and the error its frames, with the loader in them: left to the garbage
        # collector, they lose the queue that ends the workers before the workers, which are then waited for in vain.
        error.__traceback__ = None
    raise DataError(sentence)


@contextmanager
def dead_workers_explained() -> Iterator[None]:
    """Raise `DataError` where a worker died; torch says it when it happens, whatever the main process is doing."""
    try:
        yield
    except RuntimeError as error:
        # Where somebody waited for the worker, torch says only in the cause which signal ended it.
        sentence = worker_sentence(str(error.__cause__)) or worker_sentence(str(error))
        if sentence is None:
            raise
        raise DataError(sentence) from None


def worker_sentence(message: str) -> str | None:
    """The sentence for what torch says of a dead worker, None for any other error."""
    dead = _DEAD.search(message)
    if dead is not None:
        how = "ended unexpectedly" if dead[2] is None else f"died ({dead[2]})"
        return f"A process that reads images (pid {dead[1]}) {how}, {_WHY}; {_WHAT_TO_DO}"
    if "DataLoader worker" in message and _NO_SHARED_MEMORY in message:
        return f"A process that reads images found no room in shared memory (/dev/shm); {_WHAT_TO_DO}"
    return None
