"""A bundle's checkpoint as the graphs' modules, run by torch; without torch this file cannot be imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from psarm.errors import BundleError
from psarm.export.device_frames import FrameUploader
from psarm.export.recordings import Recorder, Recording, record_cuda
from psarm.export.torch_forms import Form, GraphForms, build_forms
from psarm.model.checkpoint import load_model
from psarm.model.fingerprint import embedding_fingerprint
from psarm.runtime.bundle import Bundle
from psarm.runtime.manifest import GRAPH_OUTPUTS, Preprocessing

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
MODES: dict[str, dict[str, Any]] = {
    "graphs": {"static": True},
    "eager": {},
    "fused": {"static": True, "fused": True},
    "kernels": {"static": True, "fused": True, "kernels": True},
    "compile": {"static": True, "compiled": "whole"},
}
"""How a GPU runs the modules (changes to `Form`): replaying CUDA graphs, or kernel by kernel; and CUDA graphs of other
kernels: cuDNN's fused convolutions, psarm's own in Triton beside them, or those that torch compiles."""


@dataclass(frozen=True)
class HeldTensor:
    """A tensor that stays on its device between two graphs; np.asarray gives it on the host."""

    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """As numpy has it."""
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """As numpy has it."""
        return np.dtype(str(self.tensor.dtype).removeprefix("torch."))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """The values on the host."""
        return np.array(self.tensor.cpu().numpy(), dtype=dtype, copy=copy)


Value = NDArray[Any] | HeldTensor


class TorchGraphs:
    """The graphs `detect`, (`refine`) and `reid` of a bundle's checkpoint on one device."""

    def __init__(self, bundle: Bundle, weights: str, precision: str, threads: int, mode: str) -> None:
        """`mode`: one of `MODES`; a CPU has eager only.

        Raises `CheckpointError` for a file that is no checkpoint, `BundleError` for one of another model.
        """
        path = bundle.path / weights
        model = load_model(path)
        ours, theirs = embedding_fingerprint(model), bundle.manifest.embedding.fingerprint
        if ours != theirs:
            raise BundleError(
                f"{path} is not the model that the bundle's graphs were made from (fingerprint {ours[:12]}…, the "
                f"manifest says {theirs[:12]}…); export the bundle again."
            )
        self.device = torch.device(preferred_device())
        self._threads = threads
        form = Form(DTYPES[precision], half_activations=self.device.type == "cuda", **MODES[mode])
        self._graphs = build_forms(model, form, self.device)
        pool = torch.cuda.graph_pool_handle() if form.static and self.device.type == "cuda" else None
        record = partial(record_cuda, pool=pool)
        self._recorders = {
            name: Recorder(graph.static, f"The {name} graph", record)
            for name, graph in self._graphs.items()
            if graph.static is not None
        }
        self._kernels = form.kernels  # in the uploader too
        self._uploader: FrameUploader | None = None

    def run(self, name: str, feeds: Mapping[str, Value]) -> dict[str, Value]:
        """Outputs by name, on the host except for `features`, which wait on the device for the next graph."""
        with torch.inference_mode(), self._settings():
            inputs = [self._tensor(value) for value in feeds.values()]
            if name == "detect":
                return self._detect(self._graphs[name], inputs)
            count = inputs[1].shape[0]
            outputs = self._rows(name, inputs)
            return {key: value[:count].cpu().numpy() for key, value in zip(GRAPH_OUTPUTS[name], outputs, strict=True)}

    def upload(self, frames: Sequence[NDArray[np.uint8]], rule: Preprocessing) -> tuple[HeldTensor, NDArray[np.int64]]:
        """Frames [h,w,3] BGR → images on the device, and their valid sizes."""
        with torch.inference_mode():
            self._uploader = self._uploader or FrameUploader(rule, self.device, self._kernels)
            images, sizes = self._uploader(frames)
        return HeldTensor(images), sizes

    def _detect(self, graph: GraphForms, inputs: list[Tensor]) -> dict[str, Value]:
        outputs = self._replayed("detect", inputs)
        # The recorded form looks at fewer candidates before NMS, and says where that may have left some out.
        if outputs is not None and not bool(outputs["exact"].all()):
            outputs = None
        if outputs is None:
            outputs = dict(zip(graph.outputs, graph.ordinary(*self._moved(inputs)), strict=False))
        # A replay overwrites what the one before it answered.
        features = HeldTensor(outputs.pop("features").clone())
        outputs.pop("exact", None)
        return {**{key: value.cpu().numpy() for key, value in outputs.items()}, "features": features}

    def _replayed(self, name: str, inputs: Sequence[Tensor]) -> dict[str, Tensor] | None:
        recording = self._find(name, inputs)
        if recording is None:
            return None
        return dict(zip(self._graphs[name].static_outputs, recording(*inputs), strict=False))

    def _rows(self, name: str, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Features, boxes and their images → a head's outputs, which may have more rows than there are boxes."""
        features, *rows = inputs
        padded = [features, *(pad_rows(values) for values in rows)]
        recording = self._find(name, padded)
        if recording is not None:
            return recording(*padded)
        outputs: Tensor | tuple[Tensor, ...] = self._graphs[name].ordinary(*self._moved(inputs))
        return (outputs,) if isinstance(outputs, Tensor) else outputs

    def _find(self, name: str, inputs: Sequence[Tensor]) -> Recording | None:
        recorder = self._recorders.get(name)
        return None if recorder is None else recorder.find(*inputs)

    def _moved(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return [value.to(self.device) for value in inputs]

    @staticmethod
    def _tensor(value: Value) -> Tensor:
        if isinstance(value, HeldTensor):
            return value.tensor
        return torch.from_numpy(np.require(value, requirements=["C", "W"]))

    @contextmanager
    def _settings(self) -> Iterator[None]:
        """Torch's settings belong to the process: they are changed for a call and put back after it.

        Threads, where the app has chosen another number; TF32 is off, as fp32 means fp32.
        """
        threads, products = torch.get_num_threads(), torch.get_float32_matmul_precision()
        convolutions = torch.backends.cudnn.allow_tf32
        try:
            if threads != self._threads:
                torch.set_num_threads(self._threads)
            torch.set_float32_matmul_precision("highest")
            torch.backends.cudnn.allow_tf32 = False
            yield
        finally:
            if threads != self._threads:
                torch.set_num_threads(threads)
            torch.set_float32_matmul_precision(products)
            torch.backends.cudnn.allow_tf32 = convolutions


def pad_rows(values: Tensor) -> Tensor:
    """[R,...] → [R',...] with the next usual number of rows; the first is repeated."""
    wanted = usual_rows(len(values))
    return torch.cat([values, values[:1].expand(wanted - len(values), *values.shape[1:])])


def usual_rows(count: int) -> int:
    """Numbers of people that recordings are made for: 8, 16, 24, 32, then in steps of a quarter of a power of two."""
    step = max(8, (1 << (count - 1).bit_length()) // 8)
    return -(-count // step) * step


def preferred_device() -> str:
    """`cuda` where torch can use one, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_precisions() -> tuple[str, ...]:
    """What the preferred device computes in; fp16 is too slow on a CPU to be of use."""
    if preferred_device() == "cpu":
        return ("fp32", "bf16")
    return ("fp32", "bf16", "fp16") if torch.cuda.is_bf16_supported(including_emulation=False) else ("fp32", "fp16")
