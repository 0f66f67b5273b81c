"""ONNX Runtime: on a CUDA device when one really loads, else on the CPU; with TensorRT where that is asked for."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psarm.errors import BundleError, PsarmError
from psarm.machine import usable_cores
from psarm.runtime.backends import ort_providers
from psarm.runtime.backends.base import Backend, Tensors
from psarm.runtime.backends.checks import check_described, count_threads, first_line, is_out_of_memory
from psarm.runtime.backends.compiled_cache import CompiledGraph
from psarm.runtime.backends.ort_providers import CPU, CUDA, TENSORRT, TITLES
from psarm.runtime.bundle import Bundle
from psarm.runtime.manifest import GraphSpec

if TYPE_CHECKING:
    import onnxruntime

NUMPY_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(bool)": "bool",
}


class OnnxRuntimeBackend(Backend):
    """The graphs as ONNX Runtime sessions; the feature map stays on the device between them."""

    name = "onnxruntime"
    title = "ONNX Runtime"

    def __init__(self, bundle: Bundle, precision: str, threads: int | None = None) -> None:
        """Load the graphs of `precision`, with `threads` CPU threads (None: every core this process may use).

        Raises `UsageError` for a precision without graphs, `BundleError` when a file is no valid ONNX graph or is not
        the graph the manifest describes.
        """
        super().__init__(bundle, bundle.resolve_precision(precision))
        self.threads = threads or usable_cores()
        provider = self.provider()
        self.device = f"CPU, {count_threads(self.threads)}" if provider == CPU else TITLES[provider]
        self._memory = "cpu" if provider == CPU else "cuda"
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        for graph in self.graphs:
            path = str(bundle.graph_path(precision, graph))
            session = _load(path, self._providers(bundle, provider), self.threads, self._kept(bundle, graph, provider))
            if session.get_providers()[0] != provider:
                raise PsarmError(f"ONNX Runtime does not run {path} on {TITLES[provider]}; see psarm doctor.")
            _check_session(path, session, self.graphs[graph])
            self._sessions[graph] = session

    @classmethod
    def provider(cls) -> str:
        """The execution provider to run on."""
        return CUDA if ort_providers.probe(CUDA)[0] else CPU

    @classmethod
    def probe(cls) -> tuple[bool, str]:
        """Whether ONNX Runtime runs a graph here, and its version and device or what went wrong."""
        works, detail = ort_providers.probe(CPU)
        if not works:
            return False, detail
        works, detail = ort_providers.probe(CUDA)
        return True, f"{_version()} on {'CUDA' if works else 'CPU'}: {detail}"

    @staticmethod
    def precisions(bundle: Bundle) -> tuple[str, ...]:
        """Those the bundle holds graphs in."""
        return tuple(bundle.manifest.precisions)

    def close(self) -> None:
        """Free the sessions."""
        self._sessions.clear()

    def _providers(self, bundle: Bundle, provider: str) -> list[Any]:
        return [CPU] if provider == CPU else ort_providers.cuda_options()

    def _kept(self, bundle: Bundle, graph: str, provider: str) -> CompiledGraph | None:
        """Where the optimised graph is kept; on a GPU there is none, half its nodes are the provider's own."""
        if provider != CPU:
            return None
        file = bundle.manifest.files[bundle.manifest.precisions[self.precision][graph]]
        return CompiledGraph.find(file, self.graphs[graph], _version(), {"provider": provider})

    def _run(self, graph: str, feeds: Tensors) -> Tensors:
        if graph not in self._sessions:
            raise PsarmError("This engine is closed; make a new PersonSearch.")
        session = self._sessions[graph]
        names = list(self.graphs[graph].outputs)
        arrays = {name: value for name, value in feeds.items() if not isinstance(value, OrtTensor)}
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}  # alive until the run is over
        binding = session.io_binding()
        for name, value in feeds.items():
            if isinstance(value, OrtTensor):
                binding.bind_ortvalue_input(name, value.value)
            else:
                binding.bind_cpu_input(name, arrays[name])
        for name in names:
            binding.bind_output(name, self._memory if name == "features" else "cpu")
        session.run_with_iobinding(binding)
        outputs = dict(zip(names, binding.get_outputs(), strict=True))
        return {name: OrtTensor(value) if name == "features" else value.numpy() for name, value in outputs.items()}


class OnnxRuntimeTensorRTBackend(OnnxRuntimeBackend):
    """ONNX Runtime's TensorRT provider: it builds an engine at the first call of every range of shapes, and keeps it.

    It leaves what TensorRT does not take to CUDA. It has no option against TF32: psarm sets NVIDIA_TF32_OVERRIDE=0 for
    the process, and `note` says where the user has set it to something else.
    """

    name = "onnxruntime_tensorrt"
    title = "ONNX Runtime with TensorRT"

    def __init__(self, bundle: Bundle, precision: str, threads: int | None = None) -> None:
        """As of ONNX Runtime."""
        super().__init__(bundle, precision, threads)
        if (override := os.environ.get(ort_providers.TF32_OVERRIDE)) != "0":
            self.note = f"TF32 as {ort_providers.TF32_OVERRIDE}={override} says"

    @classmethod
    def provider(cls) -> str:
        """The execution provider to run on."""
        return TENSORRT

    @classmethod
    def probe(cls) -> tuple[bool, str]:
        """Whether ONNX Runtime runs a graph with TensorRT here, and its version or what went wrong."""
        works, detail = ort_providers.probe(TENSORRT)
        return works, f"{_version()}: {detail}" if works else detail

    def _providers(self, bundle: Bundle, provider: str) -> list[Any]:
        return ort_providers.tensorrt_options(f"{self._key(bundle)}-{_version().replace(' ', '-')}")

    def _key(self, bundle: Bundle) -> str:
        """Names the graphs themselves: ONNX Runtime does not see that an engine is of a graph with other weights."""
        files = bundle.manifest.precisions[self.precision]
        hashes = {graph: bundle.manifest.files[file].sha256 for graph, file in files.items()}
        return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()[:16]


class OrtTensor:
    """A tensor where ONNX Runtime left it, on the GPU or the CPU; `np.asarray` copies it to the host."""

    def __init__(self, value: onnxruntime.OrtValue) -> None:
        self.value = value
        self.shape: tuple[int, ...] = tuple(value.shape())
        self.dtype = np.dtype(NUMPY_TYPES[value.data_type()])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """The values on the host."""
        array: NDArray[Any] = self.value.numpy()
        return array if dtype is None else array.astype(dtype)


def _version() -> str:
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"


def _load(path: str, providers: list[Any], threads: int, kept: CompiledGraph | None) -> onnxruntime.InferenceSession:
    def optimise(save: Path | None) -> onnxruntime.InferenceSession:
        return ort_providers.open_session(path, providers, threads, save=save)

    def load(saved: Path) -> onnxruntime.InferenceSession:
        return ort_providers.open_session(str(saved), providers, threads, optimised=True)

    try:
        return optimise(None) if kept is None else kept.load_or_compile(load, optimise)
    except Exception as error:  # onnxruntime's exceptions share no base class but Exception
        if is_out_of_memory(error):
            raise PsarmError(f"ONNX Runtime ran out of memory while loading {path}; free some memory.") from error
        raise BundleError(
            f"{path} is not an ONNX graph that {_version().replace('onnxruntime', 'ONNX Runtime')} can load "
            f"({first_line(error)}); export the bundle again."
        ) from error


def _check_session(path: str, session: onnxruntime.InferenceSession, spec: GraphSpec) -> None:
    """Names, types and shapes of the loaded graph against the manifest."""
    for kind, found, described in (
        ("inputs", session.get_inputs(), spec.inputs),
        ("outputs", session.get_outputs(), spec.outputs),
    ):
        tensors = {tensor.name: (NUMPY_TYPES.get(tensor.type, tensor.type), tensor.shape) for tensor in found}
        check_described(path, kind, tensors, described)
