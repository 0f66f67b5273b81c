"""The three steps of detection, which may run in threads of their own: `Network.prepare`, `Network.detect`, `finish`.

N frames, n people of one frame, R people of all frames together, D embedding dimensions. Frames are uint8 [H,W,3] BGR,
boxes float32 [n,4] xyxy, in pixels of the resized frames until `finish`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from psarm.errors import PsarmError
from psarm.runtime import postprocess
from psarm.runtime.backends.base import Backend, DetectInputs, DetectOutputs, Features, ReidOutputs
from psarm.runtime.detections import Detections
from psarm.runtime.manifest import Manifest, Thresholds
from psarm.runtime.postprocess import Kept
from psarm.runtime.timing import StageTimer
from psarm.runtime.video import Frame

Size = tuple[int, int]  # height, width


def finish(
    people: Sequence[Kept], batch: DetectInputs, originals: Sequence[Size], thresholds: Thresholds, timer: StageTimer
) -> list[Detections]:
    """People of each frame of a batch: weighted embeddings, NMS, boxes in pixels of the frames of sizes `originals`."""
    with timer.stage("post"):
        kept = [postprocess.final_nms(postprocess.weight_embeddings(one), thresholds) for one in people]
        return [
            Detections(postprocess.scale_boxes(one.boxes, size, original), one.scores, one.embeddings)
            for one, size, original in zip(kept, valid_sizes(batch), originals, strict=True)
        ]


def valid_sizes(batch: DetectInputs) -> list[Size]:
    """Of each frame after resizing, without the padding."""
    return [(int(height), int(width)) for height, width in batch.image_sizes]


class Network:
    """The graphs of one backend and what lies between them. Threads may share it: they take turns."""

    def __init__(self, backend: Backend, manifest: Manifest) -> None:
        self.backend = backend
        self._manifest = manifest
        self._preparing = threading.Lock()
        # Held from the detect graph to the re-id graph: features may lie in memory that the next batch writes to.
        self._lock = threading.Lock()

    def prepare(self, frames: Sequence[Frame], timer: StageTimer) -> DetectInputs:
        """Frames of any sizes as one batch; raises `PsarmError` where the memory does not hold it."""
        with self._preparing, timer.stage("preprocess"):
            try:
                return self.backend.make_batch(frames, self._manifest.preprocessing)
            except MemoryError as error:
                raise PsarmError(
                    f"The memory does not hold a batch of {len(frames)} frames ({error}); use a smaller batch."
                ) from error

    def detect(self, batch: DetectInputs, thresholds: Thresholds, timer: StageTimer) -> list[Kept]:
        """People of every frame: boxes clipped to it and sifted, embeddings of unit length; the final NMS is ahead."""
        with self._lock:
            return self._people(self._run_detect(batch, timer), batch, thresholds, timer)

    def embed(self, batch: DetectInputs, boxes: NDArray[np.float32], timer: StageTimer) -> NDArray[np.float32]:
        """Unit-length embeddings [n,D] of `boxes` [n,4], at least one, of the only frame of `batch`."""
        with self._lock:
            outputs = self._run_detect(batch, timer)
            with timer.stage("reid"):
                return self._reid(outputs.features, boxes, np.zeros(len(boxes), np.int64)).embeddings

    def detect_around(
        self, batch: DetectInputs, box: NDArray[np.float32], thresholds: Thresholds, timer: StageTimer
    ) -> tuple[Kept, NDArray[np.float32]]:
        """People of the only frame of `batch` as of `detect`, and the unit-length embedding [D] of `box` [4]."""
        with self._lock:
            outputs = self._run_detect(batch, timer)
            (people,) = self._people(outputs, batch, thresholds, timer)
            with timer.stage("reid"):
                embedding = self._reid(outputs.features, box[None], np.zeros(1, np.int64)).embeddings[0]
        return people, embedding

    def close(self) -> None:
        """Free the backend, after what runs on it."""
        with self._lock:
            self.backend.close()

    def _run_detect(self, batch: DetectInputs, timer: StageTimer) -> DetectOutputs:
        with timer.stage("detect"):
            return self.backend.run_detect(batch.images, batch.image_sizes)

    def _people(
        self, outputs: DetectOutputs, batch: DetectInputs, thresholds: Thresholds, timer: StageTimer
    ) -> list[Kept]:
        with timer.stage("nms"):
            proposals = _select(outputs, thresholds)
        sizes = valid_sizes(batch)
        boxes = np.concatenate([regions for regions, _ in proposals])  # [R,4]
        counts = [len(regions) for regions, _ in proposals]
        indices = np.repeat(np.arange(len(counts)), counts)
        with timer.stage("reid"):
            if self.backend.refines and len(boxes):
                limits = np.asarray(sizes, np.float32)[indices]  # height, width
                boxes = self.backend.run_refine(outputs.features, boxes, indices)
                boxes = np.clip(boxes, np.float32(0), limits[:, [1, 0, 1, 0]])
            refined, embeddings = self._reid(outputs.features, boxes, indices)
        with timer.stage("post"):
            ends = np.cumsum(counts)[:-1]
            people = [
                Kept(postprocess.clip_boxes(part, *size), scores, part_embeddings)
                for part, (_, scores), part_embeddings, size in zip(
                    np.split(refined, ends), proposals, np.split(embeddings, ends), sizes, strict=True
                )
            ]
            return [postprocess.sift(one, thresholds) for one in people]

    def _reid(self, features: Features, boxes: NDArray[np.float32], indices: NDArray[np.int64]) -> ReidOutputs:
        if len(boxes) == 0:  # the graph cannot run on nobody
            return ReidOutputs(boxes, np.zeros((0, self._manifest.embedding.size), np.float32))
        return self.backend.run_reid(features, boxes, indices)


def _select(outputs: DetectOutputs, thresholds: Thresholds) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Regions [k,4] and scores [k] of every image that go on to the next graph."""
    chosen = []
    for image, count in enumerate(outputs.counts):
        boxes, scores = outputs.boxes[image, :count], outputs.scores[image, :count]
        rows = postprocess.select_proposals(boxes, scores, thresholds)
        chosen.append((outputs.regions[image, rows], scores[rows]))
    return chosen
