"""ONNX Runtime: on a CUDA device when one really loads, else on the CPU."""

from __future__ import annotations

import base64
import functools
import warnings
from typing import TYPE_CHECKING, Any

from psarm.errors import BundleError, PsarmError
from psarm.machine import usable_cores
from psarm.runtime.backends.base import Backend, Tensors
from psarm.runtime.bundle import Bundle
from psarm.runtime.manifest import GraphSpec, TensorSpec

if TYPE_CHECKING:
    import onnxruntime

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
# fp32 means fp32: TF32 keeps ten bits of the mantissa.
CUDA_OPTIONS = {"use_tf32": "0"}
NUMPY_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(bool)": "bool",
}
# The ONNX model y = Identity(x), float32 [1], opset 18, IR 8: the smallest thing a device can prove itself on.
IDENTITY_MODEL = base64.b64decode(
    "CAg6PgoQCgF4EgF5IghJZGVudGl0eRIIaWRlbnRpdHlaDwoBeBIKCggIARIECgIIAWIPCgF5EgoKCAgBEgQKAggBQgQKABAS"
)


class OnnxRuntimeBackend(Backend):
    """The graphs as ONNX Runtime sessions."""

    name = "onnxruntime"
    title = "ONNX Runtime"

    def __init__(self, bundle: Bundle, precision: str, threads: int | None = None) -> None:
        """Load the graphs of `precision`, with `threads` CPU threads (None: every core this process may use).

        Raises `BundleError` when a file is no valid ONNX graph or is not the graph the manifest describes.
        """
        super().__init__(bundle, bundle.resolve_precision(precision))
        self.threads = threads or usable_cores()
        cuda_works, _ = probe_cuda()
        self.device = "CUDA" if cuda_works else f"CPU, {self.threads} {'thread' if self.threads == 1 else 'threads'}"
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        for graph in self.graphs:
            path = str(bundle.graph_path(precision, graph))
            session = _load(path, self.threads, cuda_works)
            _check_session(path, session, self.graphs[graph])
            self._sessions[graph] = session

    @staticmethod
    def probe() -> tuple[bool, str]:
        """Whether ONNX Runtime runs a graph here, and its version and device or what went wrong."""
        try:
            import onnxruntime
        except ImportError as error:
            return False, f"onnxruntime is not installed ({error}); install it with: pip install onnxruntime"
        try:
            _identity_session([CPU])
        except Exception as error:  # onnxruntime's exceptions share no base class but Exception
            return False, f"onnxruntime {onnxruntime.__version__} does not run: {_sentence(error)}"
        cuda_works, cuda_detail = probe_cuda()
        return True, f"onnxruntime {onnxruntime.__version__} on {'CUDA' if cuda_works else 'CPU'}: {cuda_detail}"

    @staticmethod
    def precisions(bundle: Bundle) -> tuple[str, ...]:
        """Those the bundle holds graphs in."""
        return tuple(bundle.manifest.precisions)

    def close(self) -> None:
        """Free the sessions."""
        self._sessions.clear()

    def _run(self, graph: str, feeds: Tensors) -> Tensors:
        if graph not in self._sessions:
            raise PsarmError("This engine is closed; make a new PersonSearch.")
        names = list(self.graphs[graph].outputs)
        try:
            outputs = self._sessions[graph].run(names, feeds)
        except Exception as error:  # onnxruntime's exceptions share no base class but Exception
            raise PsarmError(
                f"ONNX Runtime failed in the {graph} graph on {self.device}: {_sentence(error)}"
            ) from error
        return dict(zip(names, outputs, strict=True))


@functools.cache
def probe_cuda() -> tuple[bool, str]:
    """Whether a session really runs on CUDA, and why not: being listed by ONNX Runtime is not enough."""
    try:
        import onnxruntime
    except ImportError as error:
        return False, f"onnxruntime is not installed ({error})"
    if CUDA not in onnxruntime.get_available_providers():
        return False, "this build has no CUDA, onnxruntime-gpu has"
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # finds the CUDA libraries that pip installed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns when it falls back; the answer below says so
            session = _identity_session([(CUDA, CUDA_OPTIONS), CPU])
    except Exception as error:  # onnxruntime's exceptions share no base class but Exception
        return False, f"CUDA is built in but does not load: {_sentence(error)}"
    if CUDA not in session.get_providers():
        return False, "CUDA is built in but does not load: no usable device, driver or CUDA libraries"
    return True, "the CUDA device loads"


def _identity_session(providers: list[Any]) -> onnxruntime.InferenceSession:
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(IDENTITY_MODEL, _options(1), providers=providers)
    session.run(None, {"x": np.ones(1, np.float32)})
    return session


def _load(path: str, threads: int, cuda: bool) -> onnxruntime.InferenceSession:
    import onnxruntime

    providers: list[Any] = [(CUDA, CUDA_OPTIONS), CPU] if cuda else [CPU]
    try:
        return onnxruntime.InferenceSession(path, _options(threads), providers=providers)
    except Exception as error:  # onnxruntime's exceptions share no base class but Exception
        raise BundleError(
            f"{path} is not an ONNX graph that ONNX Runtime {onnxruntime.__version__} can load "
            f"({_sentence(error)}); export the bundle again."
        ) from error


def _options(threads: int) -> onnxruntime.SessionOptions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # what matters comes as an exception, and is told in one sentence
    return options


def _check_session(path: str, session: onnxruntime.InferenceSession, spec: GraphSpec) -> None:
    """Names, types and shapes of the loaded graph against the manifest."""
    for kind, found, described in (
        ("inputs", session.get_inputs(), spec.inputs),
        ("outputs", session.get_outputs(), spec.outputs),
    ):
        names = {tensor.name for tensor in found}
        if names != set(described):
            raise BundleError(
                f"{path} has the {kind} {', '.join(sorted(names))}; "
                f"its manifest says {', '.join(sorted(described))}; export the bundle again."
            )
        for tensor in found:
            _check_tensor(path, tensor, described[tensor.name])


def _check_tensor(path: str, tensor: Any, spec: TensorSpec) -> None:
    dtype = NUMPY_TYPES.get(tensor.type, tensor.type)
    same_shape = len(tensor.shape) == len(spec.shape) and all(
        not (isinstance(a, int) and isinstance(b, int)) or a == b for a, b in zip(tensor.shape, spec.shape, strict=True)
    )
    if dtype != spec.dtype or not same_shape:
        raise BundleError(
            f"{path}: {tensor.name} is {dtype} {tensor.shape}, its manifest says {spec.dtype} {list(spec.shape)}; "
            "export the bundle again."
        )


def _sentence(error: Exception) -> str:
    """The first line of an ONNX Runtime message, short enough for one sentence."""
    lines = str(error).strip().splitlines()
    return lines[0][:300].rstrip(". ") if lines else type(error).__name__
