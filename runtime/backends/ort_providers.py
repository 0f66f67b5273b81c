"""ONNX Runtime's execution providers: which ones really load here, and with which options psarm uses them."""

from __future__ import annotations

import base64
import contextlib
import ctypes
import functools
import importlib
import io
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from psarm.files import cache_folder
from psarm.runtime.backends.checks import first_line

if TYPE_CHECKING:
    import onnxruntime

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
TITLES = {CPU: "CPU", CUDA: "CUDA", TENSORRT: "TensorRT"}
TF32_OVERRIDE = "NVIDIA_TF32_OVERRIDE"
"""Variable of the environment that CUDA's libraries and TensorRT obey; the TensorRT provider has no option for it."""
# fp32 means fp32: TF32 keeps ten bits of the mantissa. The number of boxes differs from call to call: an exhaustive
# search for the best convolution would run again for each.
CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
# The ONNX model y = Identity(x), float32 [1], opset 18, IR 8: the smallest thing a device can prove itself on.
IDENTITY_MODEL = base64.b64decode(
    "CAg6PgoQCgF4EgF5IghJZGVudGl0eRIIaWRlbnRpdHlaDwoBeBIKCggIARIECgIIAWIPCgF5EgoKCAgBEgQKAggBQgQKABAS"
)


@functools.cache
def probe(provider: str) -> tuple[bool, str]:
    """Whether a session really runs on `provider`, and why not: being listed by ONNX Runtime is not enough."""
    try:
        importlib.import_module("onnxruntime")
    except (ImportError, OSError) as error:
        return False, f"onnxruntime is not installed ({first_line(error)}); install it with: pip install onnxruntime"
    title = TITLES[provider]
    if not is_built_in(provider):
        return False, f"this build has no {title}, onnxruntime-gpu has"
    if provider == TENSORRT:
        os.environ.setdefault(TF32_OVERRIDE, "0")  # before its libraries are loaded
    if provider != CPU and (missing := _missing_library(title.lower())):
        return False, f"{title} is built in but does not load: {missing}; {_remedy(provider)}"
    try:
        session = open_session(IDENTITY_MODEL, [provider], 1)
        session.run(None, {"x": np.ones(1, np.float32)})
    except Exception as error:  # onnxruntime's exceptions share no base class but Exception
        return False, f"{title} is built in but does not load: {first_line(error)}"
    if session.get_providers()[0] != provider:
        return False, f"{title} is built in but does not load: no usable device, driver or CUDA libraries"
    return True, f"the {title} device loads"


def is_built_in(provider: str) -> bool:
    """Whether ONNX Runtime is installed and lists `provider`."""
    try:
        import onnxruntime
    except (ImportError, OSError):
        return False
    return provider in onnxruntime.get_available_providers()


def cuda_obstacle() -> str | None:
    """Why the CPU runs what an ONNX Runtime with CUDA was installed for; None where CUDA loads or is not built in."""
    if not is_built_in(CUDA):
        return None
    works, why = probe(CUDA)
    return None if works else why


def open_session(
    model: str | bytes, providers: list[Any], threads: int, optimised: bool = False, save: Path | None = None
) -> onnxruntime.InferenceSession:
    """A session of an ONNX file or its bytes on the first of `providers` that takes a node, with `threads` CPU threads.

    `save` is where the optimised graph is written; a graph that was such before is opened with `optimised`. ONNX
    Runtime may leave a provider out without an error: look at `get_providers()`.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if save is not None:
        options.optimized_model_filepath = str(save)
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Each graph has a pool of threads, which go on spinning for a while after a run and take the cores from the next
    # graph's: on two cores a frame of a small model took 52 ms in place of 33.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 4  # what matters comes as an exception, and is told in one sentence
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of providers that it leaves out
        return onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)


def cuda_options() -> list[Any]:
    """Providers to run on CUDA, the CPU for what it lacks."""
    return [(CUDA, CUDA_OPTIONS), CPU]


def tensorrt_options(key: str) -> list[Any]:
    """Providers to run on TensorRT, CUDA for what it lacks; engines are kept in a cache folder named `key`.

    No precision is enabled: the graphs carry their types, and with any such option networks are not strongly typed, so
    that TensorRT would compute in half what a graph keeps in fp32.
    """
    options: dict[str, str] = {}
    if folder := cache_folder():
        engines = str(folder / "onnxruntime_tensorrt" / key)
        options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": engines}
        options |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": engines}
    return [(TENSORRT, options), *cuda_options()]


def _missing_library(provider: str) -> str | None:
    """What the provider's own library misses; None where its libraries are there."""
    import onnxruntime

    if hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
            onnxruntime.preload_dlls()  # finds the CUDA libraries that pip installed
    library = Path(onnxruntime.__file__).parent / "capi" / f"libonnxruntime_providers_{provider}.so"
    if not library.exists():
        return None
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        # Not found: a symbol that ONNX Runtime itself brings. That is as it should be.
        return str(error) if "cannot open shared object" in str(error) else None
    return None


def _remedy(provider: str) -> str:
    import onnxruntime

    made_for = f"CUDA {version}" if (version := getattr(onnxruntime, "cuda_version", "")) else "another CUDA"
    also = " and TensorRT" if provider == TENSORRT else ""
    return (
        f"onnxruntime-gpu {onnxruntime.__version__} is made for {made_for}: install that CUDA's libraries with: "
        f"pip install 'onnxruntime-gpu[cuda,cudnn]'{also}, or an onnxruntime-gpu made for your CUDA"
    )
