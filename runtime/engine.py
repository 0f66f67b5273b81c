"""`PersonSearch`: frame → preprocess → detect graph → NMS → (refine graph →) re-id graph → NMS → `Detections`.

N frames, n people of one frame, R people of all frames together, D embedding dimensions. Frames are uint8 [H,W,3] BGR
(OpenCV's order), boxes float32 [n,4] xyxy in frame pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psarm.errors import StreamError, UsageError
from psarm.machine import usable_cores
from psarm.runtime import postprocess
from psarm.runtime.backends import open_backend
from psarm.runtime.bundle import Bundle
from psarm.runtime.detections import Detections
from psarm.runtime.stages import Network, Size, finish, valid_sizes
from psarm.runtime.stream.options import MAX_WAIT_SECONDS, StreamOptions
from psarm.runtime.stream.sources import StreamSource, find_sources
from psarm.runtime.stream.stream import Stream
from psarm.runtime.timing import StageTimer
from psarm.runtime.validators import check_frame, check_person_boxes
from psarm.runtime.video import Frame


class PersonSearch:
    """A bundle, loaded and ready to find and embed people. A context manager; `close` frees it.

    Threads that share an engine take turns in the network; `stream` is the quick way through many frames.
    """

    def __init__(
        self,
        bundle: str | Path | Bundle,
        backend: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        score_thresh: float | None = None,
    ) -> None:
        """Open `bundle` (a directory) and load its graphs.

        `backend`: auto (the fastest that really loads) or a name of `psarm.runtime.backends.BACKENDS`; `precision`:
        auto (fp32, which is exact), one the bundle holds, or bf16, in which OpenVINO and torch run the fp32 graphs;
        `threads`: CPU threads, None for every usable core; `score_thresh`: people below it are dropped, None for the
        bundle's own. Raises `BundleError` for a bundle that cannot be used, `UsageError` for an option that cannot.
        """
        if score_thresh is not None and not 0 <= score_thresh <= 1:
            raise UsageError(f"score_thresh is {score_thresh}; needed a number between 0 and 1.")
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        self.thresholds = self.bundle.manifest.thresholds
        if score_thresh is not None:
            self.thresholds = dataclasses.replace(self.thresholds, score=score_thresh)
        """Of the steps between and after the graphs; another value holds from the next call on."""
        self._backend, self.why = open_backend(self.bundle, backend, precision, threads)
        """Why this backend runs: as asked, or what `auto` passed over for it."""
        self._threads = threads or usable_cores()
        self._network = Network(self._backend, self.bundle.manifest)
        self.last_timings: dict[str, float] = StageTimer().seconds
        """Seconds of the last call by stage: preprocess, detect, nms, reid, post."""

    @property
    def backend(self) -> str:
        """Name of the backend in use."""
        return self._backend.name

    @property
    def device(self) -> str:
        """Where the backend runs, and how where that is to be said: `CPU, 1 thread, the rest in bf16`."""
        return ", ".join(filter(None, (self._backend.device, self._backend.note)))

    @property
    def precision(self) -> str:
        """Precision of the graphs in use."""
        return self._backend.precision

    @property
    def summary(self) -> str:
        """What runs, for people: `OpenVINO int8 (the rest in bf16) on CPU, 4 threads`; `reason` also says why."""
        backend = self._backend
        note = f" ({backend.note})" if backend.note else ""
        return f"{backend.title} {self.precision}{note} on {backend.device}"

    @property
    def reason(self) -> str:
        """What runs by its names, and why: `openvino, CPU, 4 threads, fp32 (as asked; …)`."""
        return f"{self.backend}, {self.device}, {self.precision} ({self.why})"

    @property
    def embedding_dim(self) -> int:
        """D."""
        return self.bundle.manifest.embedding.size

    @overload
    def detect(self, frames: Frame) -> Detections: ...
    @overload
    def detect(self, frames: Sequence[Frame]) -> list[Detections]: ...
    def detect(self, frames: Frame | Sequence[Frame]) -> Detections | list[Detections]:
        """People of a frame uint8 [H,W,3] BGR, or of each of a list of frames (one batch, sizes may differ).

        Best score first; embeddings are weighted by the score, so that their dot product with a query's embedding is
        the search similarity. Raises `UsageError` for anything but such frames.
        """
        if not isinstance(frames, (list, tuple)):
            return self._detect([check_frame(frames)])[0]
        return self._detect([check_frame(frame) for frame in frames])

    def embed(self, frame: Frame, boxes: ArrayLike) -> NDArray[np.float32]:
        """Unit-length embeddings [n,D] of given people: `boxes` [n,4] xyxy in pixels of `frame` uint8 [H,W,3] BGR."""
        frame = check_frame(frame)
        height, width = frame.shape[:2]
        checked = check_person_boxes(boxes, width, height)
        timer = StageTimer()
        if len(checked) == 0:
            return np.zeros((0, self.embedding_dim), np.float32)
        batch = self._network.prepare([frame], timer)
        resized = postprocess.scale_boxes(checked, (height, width), valid_sizes(batch)[0])
        embeddings = self._network.embed(batch, resized, timer)
        self.last_timings = timer.seconds
        return embeddings

    def detect_around(self, frame: Frame, box: ArrayLike) -> Detections:
        """People of `frame`, the given `box` [4] first with score 1: a query's context for CBGM.

        As `detect`, but embeddings are of unit length, and people that overlap the given box make way for it.
        """
        frame = check_frame(frame)
        original: Size = frame.shape[:2]
        given = check_person_boxes(np.asarray(box)[None], original[1], original[0])
        timer = StageTimer()
        batch = self._network.prepare([frame], timer)
        (size,) = valid_sizes(batch)
        resized = postprocess.scale_boxes(given, original, size)
        people, embedding = self._network.detect_around(batch, resized[0], self.thresholds, timer)
        with timer.stage("post"):
            kept = postprocess.final_nms(postprocess.put_first(people, resized[0], embedding), self.thresholds)
            boxes = postprocess.scale_boxes(kept.boxes, size, original)
            boxes[0] = given[0]  # not its rounded image after two resizes
            result = Detections(boxes, kept.scores, kept.embeddings)
        self.last_timings = timer.seconds
        return result

    def stream(
        self,
        source: StreamSource,
        batch: int = 1,
        max_wait: float | None = MAX_WAIT_SECONDS,
        buffer: int | None = None,
        drop: Literal["oldest"] | None = None,
        every: int = 1,
        requests: int | None = None,
        on_error: Callable[[StreamError], None] | None = None,
    ) -> Stream:
        """People of every frame of one or more sources, as `StreamResult`s in order for each source.

        Decoding, preprocessing, network and post-processing run at the same time, in bounded memory: who takes results
        slowly slows the sources. The engine's other methods may be called meanwhile.

        Args:
            source: a video, a picture or a folder of pictures, an address (`rtsp://…`), a camera's number, or an
                iterable of frames uint8 [H,W,3] BGR, which nobody may write to afterwards; a list of these, or a
                mapping of names to them, is several.
            batch: frames that go through the network together, of all sources.
            max_wait: seconds after which a frame goes into the network with fewer than `batch`; None: never.
            buffer: frames that wait for the network, a source; None: two batches.
            drop: what a full buffer does: None makes the source wait, "oldest" drops its oldest frame and counts it.
            every: of videos and cameras, take every so-many-th frame.
            requests: batches in the network at a time, sharing the engine's threads; None: on a CPU, where the backend
                can, one a thread, at most 4. More than one load the graphs again for each.
            on_error: called when a source fails, and the other sources go on; None: `StreamError` is raised.

        Raises `UsageError` for an option or a source that cannot work; iterating raises `StreamError`.
        """
        options = StreamOptions(batch, max_wait, buffer, drop, every, requests, on_error)
        sources = find_sources(source, every)
        return Stream(sources, options, self._network, self.bundle, self._threads, self.thresholds)

    def close(self) -> None:
        """Free the backend; the engine cannot run afterwards."""
        self._network.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _detect(self, frames: list[Frame]) -> list[Detections]:
        if not frames:
            return []
        timer = StageTimer()
        batch = self._network.prepare(frames, timer)
        people = self._network.detect(batch, self.thresholds, timer)
        results = finish(people, batch, [frame.shape[:2] for frame in frames], self.thresholds, timer)
        self.last_timings = timer.seconds
        return results
