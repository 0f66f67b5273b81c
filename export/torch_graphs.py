"""A bundle's checkpoint as the graphs' modules, run eagerly by torch; without torch this file cannot be imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from psarm.errors import BundleError
from psarm.export.graphs import DetectGraph, RefineGraph, ReidGraph
from psarm.export.reduced import reduce_precision
from psarm.model.checkpoint import load_model
from psarm.model.fingerprint import embedding_fingerprint
from psarm.model.person_search import PersonSearchModel
from psarm.runtime.bundle import Bundle
from psarm.runtime.manifest import GRAPH_OUTPUTS

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


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


class TorchGraphs:
    """The graphs `detect`, (`refine`) and `reid` of a bundle's checkpoint on one device."""

    def __init__(self, bundle: Bundle, weights: str, precision: str, threads: int) -> None:
        """Raises `CheckpointError` for a file that is no checkpoint, `BundleError` for one of another model."""
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
        self._outputs: dict[str, tuple[str, ...]] = {}
        self._graphs: dict[str, nn.Module] = {}
        for name, graph in _build(model).items():
            self._outputs[name] = tuple(graph.outputs) if isinstance(graph, DetectGraph) else GRAPH_OUTPUTS[name]
            if precision in DTYPES:
                reduce_precision(graph, DTYPES[precision])
            # Convolutions follow the layout of their weights.
            self._graphs[name] = graph.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(self, name: str, feeds: Mapping[str, NDArray[Any] | HeldTensor]) -> dict[str, NDArray[Any] | HeldTensor]:
        """Outputs by name, on the host except for `features`, which wait on the device for the next graph."""
        with torch.inference_mode(), self._settings():
            outputs = self._graphs[name](*(self._tensor(value) for value in feeds.values()))
        values = [outputs] if isinstance(outputs, Tensor) else outputs
        named = zip(self._outputs[name], values, strict=False)
        return {key: HeldTensor(value) if key == "features" else value.cpu().numpy() for key, value in named}

    def _tensor(self, value: NDArray[Any] | HeldTensor) -> Tensor:
        if isinstance(value, HeldTensor):
            return value.tensor
        return torch.from_numpy(np.require(value, requirements=["C", "W"])).to(self.device)

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


def preferred_device() -> str:
    """`cuda` where torch can use one, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_precisions() -> tuple[str, ...]:
    """What the preferred device computes in; fp16 is too slow on a CPU to be of use."""
    if preferred_device() == "cpu":
        return ("fp32", "bf16")
    return ("fp32", "bf16", "fp16") if torch.cuda.is_bf16_supported(including_emulation=False) else ("fp32", "fp16")


def _build(model: PersonSearchModel) -> dict[str, nn.Module]:
    graphs: dict[str, nn.Module] = {"detect": DetectGraph(model)}
    if len(model.roi_heads.reid_heads) > 1:
        graphs["refine"] = RefineGraph(model, 0)
    return {**graphs, "reid": ReidGraph(model)}
