"""`PersonSearch`: frame → preprocess → detect graph → NMS → (refine graph →) re-id graph → NMS → `Detections`.

N frames, n people of one frame, R people of all frames together, D embedding dimensions. Frames are uint8 [H,W,3] BGR
(OpenCV's order), boxes float32 [n,4] xyxy in frame pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psarm.errors import UsageError
from psarm.runtime import postprocess
from psarm.runtime.backends import open_backend
from psarm.runtime.bundle import Bundle
from psarm.runtime.detections import Detections
from psarm.runtime.stages import Network, Size, finish, valid_sizes
from psarm.runtime.timing import StageTimer
from psarm.runtime.validators import check_frame, check_person_boxes
from psarm.runtime.video import Frame


class PersonSearch:
    """A bundle, loaded and ready to find and embed people. A context manager; `close` frees it.

    One call at a time: threads need an engine each.
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
        self._network = Network(self._backend, self.bundle.manifest)
        self.last_timings: dict[str, float] = StageTimer().seconds
        """Seconds of the last call by stage: preprocess, detect, nms, reid, post."""

    @property
    def backend(self) -> str:
        """Name of the backend in use."""
        return self._backend.name

    @property
    def device(self) -> str:
        """Where the backend runs, for people: `CPU, 4 threads`."""
        return self._backend.device

    @property
    def precision(self) -> str:
        """Precision of the graphs in use."""
        return self._backend.precision

    @property
    def summary(self) -> str:
        """What runs, for people: `ONNX Runtime, CPU, 4 threads, fp32`; `reason` also says why."""
        return f"{self._backend.title}, {self.device}, {self.precision}"

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
