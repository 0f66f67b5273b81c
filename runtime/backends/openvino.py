"""OpenVINO on the CPU: fp32 and bf16 from the fp32 graphs, fp16 and int8 from theirs."""

from __future__ import annotations

import functools
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from psarm.errors import BundleError, PsarmError, UsageError
from psarm.machine import usable_cores
from psarm.runtime.backends.base import Backend, Tensors
from psarm.runtime.backends.checks import check_described, count_threads, first_line, is_out_of_memory
from psarm.runtime.backends.compiled_cache import TRAILER_BYTES, CompiledGraph
from psarm.runtime.bundle import Bundle
from psarm.runtime.manifest import GraphSpec

if TYPE_CHECKING:
    import openvino

# Importing OpenVINO reports the use of it over the network, from a forked process; without this package it does not.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

DEVICE = "CPU"
OPENVINO_TYPES = {
    "f32": "float32",
    "f16": "float16",
    "f64": "float64",
    "i64": "int64",
    "i32": "int32",
    "boolean": "bool",
}


class OpenVINOBackend(Backend):
    """The graphs as OpenVINO models compiled for latency: one stream, no pinning, one request that is used again."""

    name = "openvino"
    title = "OpenVINO"

    def __init__(self, bundle: Bundle, precision: str, threads: int | None = None) -> None:
        """Compile the graphs of `precision`, for `threads` CPU threads (None: every core this process may use).

        Raises `UsageError` for a precision that the bundle or this CPU lacks, `BundleError` when a file is no valid
        ONNX graph or is not the graph the manifest describes.
        """
        super().__init__(bundle, precision)
        if precision == "bf16" and not _computes("BF16"):
            raise UsageError(
                f"This CPU ({_cpu_name()}) has no bf16 instructions; use fp32, or int8 where there is one."
            )
        hint = _computed_in(precision)
        graphs_of = bundle.resolve_precision("fp32" if precision == "bf16" else precision)
        self._requests: dict[str, openvino.InferRequest] = {}
        for graph in self.graphs:
            compiled = _open(bundle, graphs_of, graph, hint, threads or usable_cores())
            self.threads = int(compiled.get_property("INFERENCE_NUM_THREADS"))  # no more than there are cores
            self._requests[graph] = compiled.create_infer_request()
        self.device = f"CPU, {count_threads(self.threads)}"
        if precision in ("fp16", "int8") and hint != precision:
            self.note = f"{'the rest' if precision == 'int8' else 'computed'} in {hint}"

    @staticmethod
    def probe() -> tuple[bool, str]:
        """Whether OpenVINO has a CPU here, and its version and what the CPU computes in, or what went wrong."""
        try:
            import openvino

            core = _core()
            name = core.get_property(DEVICE, "FULL_DEVICE_NAME")
        except ModuleNotFoundError:
            return False, "openvino is not installed; install it with: pip install 'psarm[openvino]'"
        except (ImportError, OSError) as error:  # a library that its wheel needs
            return False, f"openvino is installed but does not load: {first_line(error)}"
        except RuntimeError as error:
            return False, f"openvino is installed but does not start: {_explain(error)}"
        kinds = ", ".join(kind for kind in ("FP32", "BF16", "FP16", "INT8") if _computes(kind)).lower()
        return True, f"openvino {openvino.__version__.partition('-')[0]} on CPU ({name}: {kinds})"

    @staticmethod
    def precisions(bundle: Bundle) -> tuple[str, ...]:
        """Those the bundle holds graphs in, and bf16 where it has fp32 ones and this CPU has bf16."""
        held = list(bundle.manifest.precisions)
        if "fp32" in held and _computes("BF16"):
            held.insert(held.index("fp32") + 1, "bf16")
        return tuple(held)

    def close(self) -> None:
        """Free the compiled models."""
        self._requests.clear()

    def _run(self, graph: str, feeds: Tensors) -> Tensors:
        if graph not in self._requests:
            raise PsarmError("This engine is closed; make a new PersonSearch.")
        request = self._requests[graph]
        request.infer(feeds, share_inputs=True)
        # Copies: the next call writes to the same memory.
        return {name: np.array(request.get_tensor(name).data) for name in self.graphs[graph].outputs}

    def _say(self, error: Exception) -> str:
        return _explain(error)


@functools.cache
def _core() -> openvino.Core:
    import openvino

    return openvino.Core()


def _computes(kind: str) -> bool:
    """Whether the CPU has instructions for BF16, FP16 …, by OpenVINO's name."""
    return kind in _core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")


def _cpu_name() -> str:
    return str(_core().get_property(DEVICE, "FULL_DEVICE_NAME"))


def _computed_in(precision: str) -> str:
    """What the float operations of the graphs of `precision` run in."""
    if precision == "fp16":
        return "fp16" if _computes("FP16") else "fp32"
    if precision == "int8":
        return "bf16" if _computes("BF16") else "fp32"
    return precision


def _open(bundle: Bundle, precision: str, graph: str, computed_in: str, threads: int) -> openvino.CompiledModel:
    """A graph of `precision`, compiled now or before, its float operations `computed_in` another where that is said."""
    import openvino

    path, spec = str(bundle.graph_path(precision, graph)), bundle.manifest.graphs[graph]
    hint = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}[computed_in]
    properties = {
        "INFERENCE_PRECISION_HINT": hint,  # without it OpenVINO takes bf16 where the CPU has it
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # two processes would be pinned to the same cores
    }
    file = bundle.manifest.files[bundle.manifest.precisions[precision][graph]]
    kept = CompiledGraph.find(file, spec, f"openvino {openvino.__version__}", properties)
    properties["INFERENCE_NUM_THREADS"] = threads  # what is kept is the same for any number

    def compile_graph(save: Path | None) -> openvino.CompiledModel:
        compiled = _compile(path, spec, properties)
        if save is not None:
            stream = io.BytesIO()
            compiled.export_model(stream)
            save.write_bytes(stream.getbuffer())
        return compiled

    def load(saved: Path) -> openvino.CompiledModel:
        content = np.fromfile(saved, np.uint8)[:-TRAILER_BYTES]
        # A copy in memory that the compiled model owns: it goes on reading its weights there.
        return _core().import_model(openvino.Tensor(content), DEVICE, properties)

    compiled = compile_graph(None) if kept is None else kept.load_or_compile(load, compile_graph)
    given = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if given != hint:
        raise PsarmError(f"OpenVINO runs {path} in {given} where {hint} was asked for; use another precision.")
    return compiled


def _compile(path: str, spec: GraphSpec, properties: dict[str, object]) -> openvino.CompiledModel:
    """Compile an ONNX file that is as `spec` says."""
    model = _read(path)
    for kind, found, described in (("inputs", model.inputs, spec.inputs), ("outputs", model.outputs, spec.outputs)):
        check_described(path, kind, {one.any_name: _describe(one) for one in found}, described)
    _keep_regions_exact(model)
    try:
        return _core().compile_model(model, DEVICE, properties)
    except RuntimeError as error:
        raise _refusal(path, error) from error


def _read(path: str) -> openvino.Model:
    from openvino.frontend import FrontEndManager

    # Not Core.read_model: it tries the readers of other formats on a file that is damaged, and they write to stderr.
    reader = FrontEndManager().load_by_framework("onnx")
    try:
        model = reader.convert(reader.load(path))
    except Exception as error:  # the readers' exceptions share no base class but Exception
        raise _refusal(path, error) from error
    if not model.outputs:
        raise _refusal(path, ValueError("it is empty"))
    return model


def _keep_regions_exact(model: openvino.Model) -> None:
    """Let RoIAlign have its boxes in float32 whatever the rest is computed in.

    bf16 knows a coordinate beyond 1024 to 8 pixels. OpenVINO leaves in float32 what leads to an output without a
    convolution or matrix product between, so these boxes become outputs; nobody reads them.
    """
    for operation in model.get_ops():
        if operation.get_type_name() == "ROIAlign":
            model.add_outputs(operation.input_value(1))


def _describe(tensor: Any) -> tuple[str, list[object]]:
    """Dtype and shape of a model's input or output."""
    sizes = [size.get_length() if size.is_static else str(size) for size in tensor.get_partial_shape()]
    kind = tensor.get_element_type().to_string()
    return OPENVINO_TYPES.get(kind, kind), sizes


def _refusal(path: str, error: Exception) -> PsarmError:
    if is_out_of_memory(error):
        return PsarmError(f"OpenVINO ran out of memory while loading {path}; free some memory.")
    import openvino

    version = openvino.__version__.partition("-")[0]
    return BundleError(
        f"{path} is not an ONNX graph that OpenVINO {version} can load ({_explain(error)}); export the bundle again."
    )


def _explain(error: Exception) -> str:
    """The last line of an OpenVINO message: those before it are places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300].rstrip(". ") if lines else type(error).__name__
