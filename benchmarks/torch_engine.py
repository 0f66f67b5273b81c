"""The PyTorch model, run eagerly, as an engine of the benchmark.

Stages are told apart by forward hooks on the model's submodules, which stay as they are: preprocess ends with the
transform, detect with the detection head, nms where RoIAlign starts for the second time, reid with the re-id head's
regressor.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from psarm.benchmarks.engines import Frame
from psarm.config import ModelConfig
from psarm.data.scenes import to_tensor
from psarm.errors import BundleError
from psarm.evaluation.types import Floating, ImageDetections
from psarm.model import PersonSearchModel, build_model, load_model
from psarm.model.fingerprint import embedding_fingerprint
from psarm.runtime.bundle import Bundle
from psarm.runtime.timing import STAGES
from psarm.runtime.validators import check_frame, check_person_boxes
from psarm.training.evaluate import ModelEngine


class TorchEngine:
    """A `psarm.benchmarks.engines.SearchEngine` over a model in eval mode. Frames are uint8 [H,W,3] BGR."""

    precision = "fp32"

    def __init__(self, model: PersonSearchModel, threads: int) -> None:
        """Take over `model`; torch runs on `threads` CPU threads until `close`."""
        self._engine = ModelEngine(model.eval())
        on_gpu = self._engine.device.type == "cuda"
        self.device = device_name() if on_gpu else f"CPU, {threads} thread{'s' if threads > 1 else ''}"
        self.last_timings: dict[str, float] = {}
        self._threads_before = torch.get_num_threads()
        torch.set_num_threads(threads)
        self._tf32_before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False  # as the runtime: fp32 means fp32
        self._clock = _StageClock(model, self._engine.device)

    def detect(self, frame: Frame, /) -> ImageDetections:
        """People, best first; embeddings weighted by the score."""
        self._clock.start()
        people = self._engine.detect(to_tensor(check_frame(frame)))
        self.last_timings = self._clock.stop()
        return people

    def embed(self, frame: Frame, boxes: NDArray[Any], /) -> Floating:
        """Unit embeddings [n,D] of given boxes [n,4] xyxy."""
        height, width = check_frame(frame).shape[:2]
        return self._engine.embed(to_tensor(frame), check_person_boxes(boxes, width, height))

    def detect_around(self, frame: Frame, box: NDArray[Any], /) -> ImageDetections:
        """People with the given box [4] first; embeddings not weighted."""
        height, width = check_frame(frame).shape[:2]
        [given] = check_person_boxes(np.asarray(box)[None], width, height)
        return self._engine.detect_around(to_tensor(frame), given)

    def check_exported_as(self, bundle: Bundle) -> None:
        """Raise `BundleError` where `bundle` was exported from another model: comparing the two would mean nothing."""
        ours, theirs = embedding_fingerprint(self._engine.model), bundle.manifest.embedding.fingerprint
        if ours != theirs:
            raise BundleError(
                f"The bundle {bundle.path} was exported from another model than the checkpoint (fingerprint "
                f"{theirs[:12]}…, the checkpoint has {ours[:12]}…), so comparing them would mean nothing; "
                "give the checkpoint it was exported from, or export this one."
            )

    def close(self) -> None:
        """Remove the hooks and give torch its settings back."""
        self._clock.remove()
        torch.backends.cudnn.allow_tf32 = self._tf32_before
        torch.set_num_threads(self._threads_before)


def untrained_engine(config: ModelConfig, threads: int, seed: int) -> TorchEngine:
    """The architecture with random weights; torch's own random state stays as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model(config)
    return TorchEngine(model.to(_device()), threads)


def load_engine(checkpoint: Path, threads: int) -> TorchEngine:
    """Load a checkpoint onto the GPU where there is one, else the CPU; raises `CheckpointError`."""
    return TorchEngine(load_model(checkpoint, _device()), threads)


def device_name() -> str:
    """What `load_engine` runs a model on: `CPU`, or `CUDA` and the name of the GPU that torch uses."""
    return f"CUDA, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "CPU"


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


class _StageClock:
    """Notes when the first four stages of a call to `detect` end."""

    def __init__(self, model: PersonSearchModel, device: torch.device) -> None:
        heads = model.roi_heads
        predictors: list[nn.Module] = [head.box_predictor for head in heads.reid_heads]
        if heads.faster_rcnn_predictor is not None:
            predictors.append(heads.faster_rcnn_predictor)
        self._device = device
        self._ends: dict[str, float] = {}
        self._begun = 0.0
        self._pools = 0
        self._handles = [
            model.transform.register_forward_hook(self._preprocessed),
            heads.roi_align.register_forward_pre_hook(self._pool),
            *(predictor.register_forward_hook(self._head_done) for predictor in predictors),
        ]

    def start(self) -> None:
        self._ends, self._pools = {}, 0
        self._begun = self._now()

    def stop(self) -> dict[str, float]:
        """Seconds by stage. A stage that did not happen (nobody to embed) ended with the one before it."""
        self._ends["post"] = self._now()
        seconds, last = {}, self._begun
        for stage in STAGES:
            end = self._ends.get(stage, last)
            seconds[stage] = end - last
            last = end
        return seconds

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _preprocessed(self, *_: Any) -> None:
        self._ends["preprocess"] = self._now()

    def _pool(self, *_: Any) -> None:
        self._pools += 1
        if self._pools == 2:
            self._ends["nms"] = self._now()

    def _head_done(self, *_: Any) -> None:
        # The first head takes the first pool; what follows NMS is re-identification.
        self._ends["detect" if self._pools == 1 else "reid"] = self._now()

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
