"""Detection as a Ray Data job: parts of files and lists go to workers, each with an engine of its own.

What comes back is in order, so that the one who asks tracks and commits alone: a worker that dies loses nothing and
doubles nothing, Ray gives its part to another one. Nothing leaves the cluster: usage reports are switched off.
"""

from __future__ import annotations

import logging
import os
import pickle
import warnings
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from psarm.errors import ImageError, PsarmError, StreamError, UsageError
from psarm.extras import require
from psarm.files import uninterrupted
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

    Raises `UsageError` for a camera and for options that no engine of the cluster takes, `StreamError` where the
    cluster cannot be reached or its workers fail.
    """
    require("ray", feature="psarm index --ray", extra="ray")

    @contextmanager
    def detect(readers: Sequence[tuple[SourceReader, int]]) -> Generator[Iterator[Event | None]]:
        check_in_parts([reader for reader, _ in readers])
        failures: list[Event] = []
        parts = []
        for reader, after in readers:
            if isinstance(reader, ChunkedReader):
                try:
                    parts.append((reader.source.name, reader.chunks(options.frames_per_chunk, after)))
                except ImageError as error:
                    failures.append(Failed(reader.source.name, str(error)))
        with connected(options.address, engine.threads), closing(_events(parts, engine, options)) as events:
            yield chain(failures, events)

    return detect


def check_in_parts(readers: Sequence[SourceReader]) -> None:
    """Raise `UsageError` for a camera."""
    for reader in readers:
        if not isinstance(reader, ChunkedReader):
            raise UsageError(f"{reader.source.name} is a camera, which only one process reads; index it without --ray.")


@contextmanager
def connected(address: str, threads: int = 1) -> Iterator[None]:
    """A connection to a cluster for engines of so many threads; one that is open already is used and left open.

    Not to be made while another thread reads or writes a gallery: Ray forks, and what Lance is in the middle of does
    not go on in a fork. Raises `UsageError` where no node has so many CPUs, `StreamError` where the cluster cannot be
    reached.
    """
    require("ray", feature="psarm index --ray", extra="ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray Data's own actors are warned about, in every run
    import ray

    if ray.is_initialized():
        _check_threads(threads, ray.nodes())  # type: ignore[no-untyped-call]
        yield
        return
    dashboard = False if address == LOCAL else None  # a cluster has its own
    try:
        with _silence(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Lance's in the fork, where a lock of our progress bars may be held
            ray.init(address=address, include_dashboard=dashboard, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise StreamError(f"The Ray cluster {address} cannot be reached: {first_line(error)}.") from error
    try:
        _check_threads(threads, ray.nodes())  # type: ignore[no-untyped-call]
        yield
    finally:
        with uninterrupted():  # in the middle of it, Ctrl-C is a segmentation fault
            ray.shutdown()


@contextmanager
def _silence() -> Iterator[None]:
    """Standard error to nowhere: Ray says there that it was told to be quiet. What fails is raised all the same."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)


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
        with _rows(_dataset(everything, engine, options)) as rows:
            for row in rows:
                made = pickle.loads(row["events"])
                if isinstance(made, WorkerError):
                    raise made.error()
                name, events = made
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


@contextmanager
def _rows(dataset: Dataset) -> Iterator[Iterator[dict[str, Any]]]:
    """Rows as they are made; the job is ended with the body, before the connection may be."""
    rows = iter(dataset.iter_rows())
    try:
        yield rows
    finally:
        with uninterrupted():
            rows.close()  # type: ignore[attr-defined]


def _dataset(chunks: Sequence[Chunk], engine: EngineOptions, options: RayOptions) -> Dataset:
    import ray

    cluster: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    gpus = 0 if engine.backend in NOT_ON_GPU else int(cluster.get("GPU", 0))
    workers = options.workers or gpus or max(1, int(cluster.get("CPU", 1)) // engine.threads)
    _quiet(ray.data.__name__)
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


def _check_threads(threads: int, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Raise `UsageError` where no node has so many CPUs: Ray would wait for one that has, without end."""
    largest = max((int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]), default=0)
    if threads > largest:
        raise UsageError(
            f"An engine of {threads} threads needs a node with as many CPUs, and the largest of the Ray cluster has "
            f"{largest}; give fewer --threads."
        )


def _quiet(name: str) -> None:
    """Take a logger's lines off the terminal: it tells its plans, and what we say better. Its files keep them."""
    for handler in logging.getLogger(name).handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True)
class WorkerError:
    """What an engine of a worker's could not do, as a value: Ray would print its traceback, and try again."""

    text: str
    usage: bool

    @classmethod
    def of(cls, error: PsarmError) -> Self:
        """For the way to the one who asked."""
        return cls(str(error), isinstance(error, UsageError))

    def error(self) -> PsarmError:
        """To be raised there."""
        return UsageError(self.text) if self.usage else StreamError(f"The Ray job stopped: {self.text}")


class Worker:
    """Of a part, makes its events; one process of the pool."""

    def __init__(self, engine: EngineOptions, batch: int, thumbnails: bool) -> None:
        self._thumbnails = thumbnails
        self._failed: WorkerError | None = None
        try:
            opened = PersonSearch(engine.bundle, engine.backend, engine.precision, engine.threads, engine.score_thresh)
        except PsarmError as error:
            self._failed = WorkerError.of(error)
        else:
            self._detect = detect_with(opened, batch, requests=1)

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """`chunk` [n], pickled → `events` [n], each a pickled name of a source and list of its events, or an error."""
        made = np.empty(len(batch["chunk"]), object)
        for row, chunk in enumerate(batch["chunk"]):
            made[row] = pickle.dumps(self._failed or self._make(ChunkReader(pickle.loads(chunk))))
        return {"events": made}

    def _make(self, reader: ChunkReader) -> tuple[str, list[Event]] | WorkerError:
        try:
            with self._detect([(reader, -1)]) as events:
                return reader.source.name, list(self._sent(events))
        except PsarmError as error:
            return WorkerError.of(error)

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
