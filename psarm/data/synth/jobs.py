"""Drawing and writing all frames, here or in several processes; the files do not depend on which."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path

import cv2

from psarm.console import progress
from psarm.data.synth.cameras import camera_of
from psarm.data.synth.cast import Cast, build_cast
from psarm.data.synth.layout import Rows
from psarm.data.synth.plan import FramePlan
from psarm.data.synth.scene import draw_frame
from psarm.data.synth.settings import CAMERAS, SynthSettings
from psarm.data.synth.writer import write_picture
from psarm.errors import DataError

CHUNK = 48
"""Most frames of one camera drawn in a row; its background is painted once for all of them."""

_Chunk = list[tuple[FramePlan, str]]
"""Frames and their files."""


@dataclass(frozen=True)
class _Job:
    root: Path
    settings: SynthSettings
    cast: Cast

    def draw(self, chunk: _Chunk) -> Iterator[dict[str, Rows]]:
        """Draw and write frames one by one; yields each one's file and annotation."""
        for plan, file in chunk:
            drawn = draw_frame(plan, self.cast, self.settings)
            write_picture(self.root / file, drawn.image, camera_of(plan.camera).quality)
            yield {file: [tuple(float(value) for value in row) for row in drawn.rows]}


def draw_all(root: Path, plans: dict[str, FramePlan], settings: SynthSettings, workers: int) -> dict[str, Rows]:
    """Draw every frame and write its picture under a progress bar.

    Args:
        root: where the files go.
        plans: file, relative to `root` → what to draw.
        settings: what the data set is drawn from.
        workers: processes.

    Returns:
        File → annotation rows.

    Raises:
        DataError: a worker process died.
    """
    chunks = _chunks(plans, workers)
    workers = min(workers, len(chunks))
    annotations: dict[str, Rows] = {}
    drawn = _here(root, settings, chunks) if workers == 1 else _in_processes(root, settings, chunks, workers)
    # Closing stops the processes before anyone removes the folder they write to.
    with closing(drawn), progress() as bar:
        task = bar.add_task("Drawing frames", total=len(plans))
        try:
            for done in drawn:
                annotations.update(done)
                bar.advance(task, len(done))
        except BrokenProcessPool as error:
            raise DataError(
                "A drawing process ended early, perhaps out of memory; nothing was written; "
                "run again with fewer --workers."
            ) from error
    return annotations


def _chunks(plans: dict[str, FramePlan], workers: int) -> list[_Chunk]:
    """The frames in pieces of one camera each, enough of them for all workers."""
    chunks = []
    for camera in range(1, CAMERAS + 1):
        own = [(plan, file) for file, plan in plans.items() if plan.camera == camera]
        size = min(CHUNK, -(-len(own) // -(-workers // CAMERAS)))
        chunks += [own[i : i + size] for i in range(0, len(own), size)]
    return chunks


def _here(root: Path, settings: SynthSettings, chunks: list[_Chunk]) -> Generator[dict[str, Rows], None, None]:
    job = _Job(root, settings, build_cast(settings))
    for chunk in chunks:
        yield from job.draw(chunk)


def _in_processes(
    root: Path, settings: SynthSettings, chunks: list[_Chunk], workers: int
) -> Generator[dict[str, Rows], None, None]:
    # Spawned, not forked: forking a process with threads (OpenCV's, torch's) can hang.
    context = get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(root, settings, stop))
    try:
        futures = [pool.submit(_draw_in_worker, chunk) for chunk in chunks]
        for future in as_completed(futures):
            yield future.result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


_worker: dict[str, tuple[_Job, Event]] = {}


def _start_worker(root: Path, settings: SynthSettings, stop: Event) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    cv2.setNumThreads(1)
    _worker["job"] = (_Job(root, settings, build_cast(settings)), stop)


def _draw_in_worker(chunk: _Chunk) -> dict[str, Rows]:
    job, stop = _worker["job"]
    annotations: dict[str, Rows] = {}
    for done in job.draw(chunk):
        annotations.update(done)
        if stop.is_set():
            break
    return annotations
