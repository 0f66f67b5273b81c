"""Detection as a Ray Data job: parts of files and lists go to workers, each with an engine of its own.

What comes back is in order, so that the one who asks tracks and commits alone: a worker that dies loses nothing and
doubles nothing, Ray gives its part to another one. Nothing leaves the cluster: usage reports are switched off.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psarm.errors import StreamError, UsageError
from psarm.extras import require
from psarm.runtime.backends.checks import first_line
from psarm.runtime.engine import PersonSearch
from psarm.runtime.gallery.records import Source
from psarm.runtime.indexing.detecting import detect_with
from psarm.runtime.indexing.events import Detect, Ended, Event, Failed, Found
from psarm.runtime.indexing.reading import Chunk, ChunkedReader, Skip, SourceReader, TakenFrame

if TYPE_CHECKING:
    from ray.data import Dataset

LOCAL = "local"
FRAMES_PER_CHUNK = 64
NOT_ON_GPU = ("openvino",)


@dataclass(frozen=True)
class RayOptions:
    """Where and how wide a job runs."""

    address: str = LOCAL
    """Of a cluster, `HOST:6379` or `ray://HOST:10001`; "local": this machine."""
    workers: int | None = None
    """Engines at work; None: one a GPU, or one every so many CPUs as an engine has threads."""
    frames_per_chunk: int = FRAMES_PER_CHUNK
    batch: int = 1
    thumbnails: bool = True


@dataclass(frozen=True)
class EngineOptions:
    """An engine that every worker can open: as `PersonSearch`; `bundle` is a path that all of them see."""

    bundle: Path
    backend: str = "auto"
    precision: str = "auto"
    threads: int = 1
    score_thresh: float | None = None


def detect_on_ray(engine: EngineOptions, options: RayOptions) -> Detect:
    """Detection on a cluster, of sources that can be read in parts: files and lists.

    Raises `UsageError` for a camera, `StreamError` where the cluster cannot be reached or its workers fail.
    """
    require("ray", feature="psarm index --ray", extra="ray")

    @contextmanager
    def detect(readers: Sequence[tuple[SourceReader, int]]) -> Generator[Iterator[Event | None]]:
        parts = [(reader.source.name, _chunks(reader, options.frames_per_chunk, after)) for reader, after in readers]
        with _connected(options.address), closing(_events(parts, engine, options)) as events:
            yield events

    return detect


def _chunks(reader: SourceReader, frames_per_chunk: int, after: int) -> list[Chunk]:
    if not isinstance(reader, ChunkedReader):
        raise UsageError(f"{reader.source.name} is a camera, which only one process reads; index it without --ray.")
    return reader.chunks(frames_per_chunk, after)


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """A connection of the caller's own is used and left open."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    try:
        if address == LOCAL:
            ray.init(address=LOCAL, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise StreamError(f"The Ray cluster {address} cannot be reached: {first_line(error)}.") from error
    try:
        yield
    finally:
        ray.shutdown()


def _events(
    parts: Sequence[tuple[str, list[Chunk]]], engine: EngineOptions, options: RayOptions
) -> Generator[Event | None]:
    from ray.exceptions import RayError

    left = Counter({name: len(chunks) for name, chunks in parts})
    failed: set[str] = set()
    yield from (Ended(name) for name, chunks in parts if not chunks)
    everything = [chunk for _, chunks in parts for chunk in chunks]
    if not everything:
        return
    try:
        for row in _dataset(everything, engine, options).iter_rows():
            name, events = pickle.loads(row["events"])
            for event in events:
                if name not in failed:  # else its later parts wait for the next run
                    yield event
                if isinstance(event, Failed):
                    failed.add(name)
            left[name] -= 1
            if not left[name] and name not in failed:
                yield Ended(name)
    except RayError as error:
        raise StreamError(f"The Ray job stopped: {first_line(error)}.") from error


def _dataset(chunks: Sequence[Chunk], engine: EngineOptions, options: RayOptions) -> Dataset:
    import ray

    cluster: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    gpus = 0 if engine.backend in NOT_ON_GPU else int(cluster.get("GPU", 0))
    workers = options.workers or gpus or max(1, int(cluster.get("CPU", 1)) // engine.threads)
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it tells its plans
    context = ray.data.DataContext.get_current().copy()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    with ray.data.DataContext.current(context):
        items = [{"chunk": pickle.dumps(chunk)} for chunk in chunks]
        return ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            Worker,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(items))),
            fn_constructor_args=(engine, options.batch, options.thumbnails),
            num_cpus=engine.threads,
            num_gpus=1 if gpus else None,
        )


class Worker:
    """Of a part, makes its events; one process of the pool."""

    def __init__(self, engine: EngineOptions, batch: int, thumbnails: bool) -> None:
        opened = PersonSearch(engine.bundle, engine.backend, engine.precision, engine.threads, engine.score_thresh)
        self._detect = detect_with(opened, batch, requests=1)
        self._thumbnails = thumbnails

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """`chunk` [n], pickled → `events` [n], each a pickled name of a source and list of its events."""
        made = np.empty(len(batch["chunk"]), object)
        for row, chunk in enumerate(batch["chunk"]):
            reader = ChunkReader(pickle.loads(chunk))
            with self._detect([(reader, -1)]) as events:
                made[row] = pickle.dumps((reader.source.name, list(self._sent(events))))
        return {"events": made}

    def _sent(self, events: Iterable[Event | None]) -> Iterator[Event]:
        """With pictures for all people: only who tracks knows which will be wanted."""
        for event in events:
            if isinstance(event, Found):
                pictures = [event.thumbnail(row) for row in range(len(event.people))] if self._thumbnails else []
                yield replace(event, thumbnail=pictures.__getitem__)
            elif event is not None and not isinstance(event, Ended):
                yield event


class ChunkReader:
    """A part of a source as a source."""

    def __init__(self, chunk: Chunk) -> None:
        self._chunk = chunk
        self.source = Source(chunk.source, "", "video")

    def plan(self) -> Source:
        """Was done where the part was made."""
        return self.source

    def read(self, after: int = -1) -> Iterator[TakenFrame | Skip]:
        """All of the part."""
        return self._chunk.read()

    def close(self) -> None:
        """Nothing to do: a part ends soon."""
