"""What every backend offers: the graphs of a bundle, with inputs and outputs checked against the manifest.

N images, P proposals an image, R boxes of all images together, D embedding dimensions, [h,w] the feature map.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from psarm.errors import BundleError, PsarmError, UsageError
from psarm.runtime.backends.checks import check_tensors, first_line, is_out_of_memory
from psarm.runtime.bundle import Bundle
from psarm.runtime.manifest import Preprocessing
from psarm.runtime.preprocess import make_batch

Tensors = dict[str, Any]
"""By name: arrays, and `features` as the `DeviceTensor` of a backend that keeps it where it is."""


class DeviceTensor(Protocol):
    """A tensor that its backend keeps where it was computed, to be given to the next graph; np.asarray copies it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As numpy has it."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """As numpy has it."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """The values on the host."""


Features = NDArray[np.float32] | DeviceTensor
"""The feature map [N,C,h,w] as a backend's own graphs take it."""


class DetectInputs(NamedTuple):
    """Frames as the detection stage takes them."""

    images: NDArray[np.float32] | DeviceTensor  # [N,3,H,W] normalised, padded at the right and the bottom
    image_sizes: NDArray[np.int64]  # [N,2] valid height and width


class DetectOutputs(NamedTuple):
    """Results of the detection stage, in pixels of the resized images."""

    boxes: NDArray[np.float32]  # [N,P,4] xyxy
    scores: NDArray[np.float32]  # [N,P]
    counts: NDArray[np.int64]  # [N] valid proposals, the rest is padding
    features: Features  # [N,C,h,w]
    regions: NDArray[np.float32]  # [N,P,4] where the graphs that follow look for each of `boxes`


class ReidOutputs(NamedTuple):
    """Results of the re-id stage."""

    boxes: NDArray[np.float32]  # [R,4] refined, not clipped
    embeddings: NDArray[np.float32]  # [R,D] unit length


class Backend(ABC):
    """The graphs of a bundle, loaded and ready; a context manager."""

    name: str
    """As in `psarm.runtime.backends.BACKENDS`."""
    title: str
    """The name for people: `ONNX Runtime`."""
    device: str
    """Where it runs, for people: `CPU, 4 threads`."""
    note: str = ""
    """What else is to be said of how it computes, for people: `the rest in bf16`."""

    def __init__(self, bundle: Bundle, precision: str, threads: int | None = None) -> None:
        """`threads`: CPU threads, None for every usable core. Raises `UsageError` for a precision it cannot run."""
        self.graphs = bundle.manifest.graphs
        self.precision = precision

    def make_batch(self, frames: Sequence[NDArray[np.uint8]], rule: Preprocessing) -> DetectInputs:
        """Frames uint8 [h,w,3] BGR → what `run_detect` takes, made on the host; a backend may have a faster way.

        May run in another thread while the graphs run on the batch before, whose memory it must not write to.
        Raises `MemoryError` where they do not fit.
        """
        batch = make_batch(frames, rule)
        return DetectInputs(batch.images, batch.image_sizes)

    def run_detect(self, images: NDArray[np.float32] | DeviceTensor, image_sizes: NDArray[np.int64]) -> DetectOutputs:
        """Detection stage: `images` [N,3,H,W] normalised and padded, `image_sizes` [N,2] valid height and width."""
        outputs = self._checked("detect", {"images": images, "image_sizes": image_sizes})
        return DetectOutputs(**{"regions": outputs["boxes"], **outputs})

    @property
    def refines(self) -> bool:
        """Whether the bundle has a `refine` graph, to be run on boxes before they are embedded."""
        return "refine" in self.graphs

    def run_refine(
        self, features: Features, boxes: NDArray[np.float32], batch_indices: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Refined boxes [R,4], not clipped; the arguments are those of `run_reid`."""
        refined: NDArray[np.float32] = self._run_heads("refine", features, boxes, batch_indices)["refined_boxes"]
        return refined

    def run_reid(self, features: Features, boxes: NDArray[np.float32], batch_indices: NDArray[np.int64]) -> ReidOutputs:
        """Re-id stage: `boxes` [R,4] in resized pixels, `batch_indices` [R] the image of each; R must not be 0."""
        outputs = self._run_heads("reid", features, boxes, batch_indices)
        return ReidOutputs(outputs["refined_boxes"], outputs["embeddings"])

    @staticmethod
    @abstractmethod
    def probe() -> tuple[bool, str]:
        """Whether its library really starts here, and version and device, or what is wrong; what to do after a `;`."""

    @staticmethod
    @abstractmethod
    def precisions(bundle: Bundle) -> tuple[str, ...]:
        """Those of `psarm.runtime.backends.PRECISIONS` it can run `bundle` in; its library is there.

        What `lacks` names has to be made first.
        """

    @classmethod
    def lacks(cls, bundle: Bundle, precision: str) -> str | None:
        """What must be made here before it runs `bundle` in one of its `precisions`, and how; None where nothing."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Free what the backend holds; it cannot run afterwards."""

    @abstractmethod
    def _run(self, graph: str, feeds: Tensors) -> Tensors:
        """Run `graph` on checked inputs and return its outputs by name."""

    def _run_heads(
        self, graph: str, features: Features, boxes: NDArray[np.float32], batch_indices: NDArray[np.int64]
    ) -> Tensors:
        if len(boxes) == 0:
            raise UsageError(f"The {graph} graph needs at least one box, got none.")
        return self._checked(graph, {"features": features, "boxes": boxes, "batch_indices": batch_indices})

    def _checked(self, graph: str, feeds: Tensors) -> Tensors:
        spec = self.graphs[graph]
        sizes: dict[str, int] = {}
        check_tensors(f"input of the {graph} graph", feeds, spec.inputs, sizes, UsageError)
        try:
            outputs = self._run(graph, feeds)
        except PsarmError:
            raise
        except Exception as error:  # the libraries' exceptions share no base class but Exception
            raise self._failure(graph, feeds, error) from error
        check_tensors(f"output of the {graph} graph", outputs, spec.outputs, sizes, BundleError)
        return outputs

    def _say(self, error: Exception) -> str:
        """What a library's exception says, for the middle of a sentence."""
        return first_line(error)

    def _failure(self, graph: str, feeds: Tensors, error: Exception) -> PsarmError:
        if not is_out_of_memory(error):
            return PsarmError(f"{self.title} failed in the {graph} graph on {self.device}: {self._say(error)}.")
        frames = len(feeds["image_sizes"]) if graph == "detect" else feeds["features"].shape[0]
        if frames > 1:
            where = f"with {frames} frames at a time; use a smaller batch"
        else:
            where = "with a single frame; free some memory, or export a model of a smaller input size"
        return PsarmError(f"{self.title} ran out of memory in the {graph} graph on {self.device} {where}.")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
