"""Device memory, the stream, pinned host memory and CUDA graphs: all that psarm asks of CUDA, on `cuda.bindings`.

What has run where: finding out that there is no GPU runs in the tests. Everything behind `CudaDevice.__init__` has been
type-checked and its calls held against cuda-bindings' signatures; no machine of this project's tests has a GPU.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from psarm.errors import MissingExtraError, PsarmError

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Gpu:
    """The GPU in use."""

    name: str
    compute_capability: str
    """As 8.6."""


class DeviceMemoryError(PsarmError):
    """The device's memory ran out."""


class Recording(Protocol):
    """Work recorded as a CUDA graph."""

    def launch(self) -> None:
        """Enqueue all of it at once."""

    def free(self) -> None:
        """Give it back."""


class Device(Protocol):
    """What a runner needs: memory, copies in the order of one stream, and recorded work."""

    stream: int
    """Handle of the stream that everything runs on."""

    def allocate(self, size: int) -> int:
        """Address of `size` new bytes on the device; raises `DeviceMemoryError`."""

    def free(self, address: int) -> None:
        """Give back what `allocate` gave."""

    def allocate_pinned(self, size: int) -> Bytes:
        """Host memory [size] that copies without a detour; raises `DeviceMemoryError`."""

    def free_pinned(self, memory: Bytes) -> None:
        """Give back what `allocate_pinned` gave."""

    def copy_in(self, address: int, source: Bytes) -> None:
        """Enqueue a copy from pinned memory to the device."""

    def copy_out(self, target: Bytes, address: int) -> None:
        """Enqueue a copy from the device to pinned memory."""

    def record(self, work: Callable[[], None]) -> Recording:
        """Record what `work` enqueues, instead of running it."""

    def synchronise(self) -> None:
        """Wait until all that was enqueued is done."""

    def close(self) -> None:
        """Give back the stream."""


def find_gpu() -> tuple[Gpu | None, str]:
    """The first GPU, or None and why there is none that works; raises nothing."""
    try:
        return _find_gpu(_runtime())
    except PsarmError as error:
        return None, str(error).rstrip(".")
    except (OSError, RuntimeError) as error:  # cuda-bindings raise them for what the driver's library lacks
        return None, f"CUDA does not start ({error})"


def _find_gpu(runtime: Any) -> tuple[Gpu | None, str]:
    """As `find_gpu`; raises `PsarmError` where a call fails that usually does not."""
    code, driver = runtime.cudaDriverGetVersion()
    if code != runtime.cudaError_t.cudaSuccess or driver == 0:
        return None, "no NVIDIA driver is installed"
    code, count = runtime.cudaGetDeviceCount()
    if code != runtime.cudaError_t.cudaSuccess:
        _, newest = runtime.cudaRuntimeGetVersion()
        return None, (
            f"CUDA does not start ({_say(runtime, code)}): the driver knows CUDA up to {_version(driver)}, "
            f"the installed cuda-bindings are made for {_version(newest)}"
        )
    if count == 0:
        return None, "the NVIDIA driver sees no GPU"
    properties = _check(runtime, runtime.cudaGetDeviceProperties(0))
    name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
    return Gpu(name.rstrip("\0"), f"{properties.major}.{properties.minor}"), ""


class CudaDevice:
    """The first GPU, with a stream of its own."""

    def __init__(self) -> None:
        """Raises `PsarmError` in one sentence where no GPU works."""
        gpu, why = find_gpu()
        if gpu is None:
            raise PsarmError(f"No GPU to run on: {why}.")
        self.gpu = gpu
        self._cuda = _runtime()
        self._stream = self._call(self._cuda.cudaStreamCreateWithFlags(self._cuda.cudaStreamNonBlocking))
        self.stream = int(self._stream)

    def allocate(self, size: int) -> int:
        """See `Device`."""
        return int(self._call(self._cuda.cudaMalloc(size), size))

    def free(self, address: int) -> None:
        """See `Device`."""
        self._call(self._cuda.cudaFree(address))

    def allocate_pinned(self, size: int) -> Bytes:
        """See `Device`."""
        address = int(self._call(self._cuda.cudaMallocHost(size), size))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def free_pinned(self, memory: Bytes) -> None:
        """See `Device`."""
        self._call(self._cuda.cudaFreeHost(memory.ctypes.data))

    def copy_in(self, address: int, source: Bytes) -> None:
        """See `Device`."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call(self._cuda.cudaMemcpyAsync(address, source.ctypes.data, source.nbytes, kind, self._stream))

    def copy_out(self, target: Bytes, address: int) -> None:
        """See `Device`."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call(self._cuda.cudaMemcpyAsync(target.ctypes.data, address, target.nbytes, kind, self._stream))

    def record(self, work: Callable[[], None]) -> Recording:
        """See `Device`."""
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call(self._cuda.cudaStreamBeginCapture(self._stream, mode))
        try:
            work()
        finally:
            graph = self._call(self._cuda.cudaStreamEndCapture(self._stream))
        return CudaGraph(self._cuda, graph, self._stream)

    def synchronise(self) -> None:
        """See `Device`."""
        self._call(self._cuda.cudaStreamSynchronize(self._stream))

    def close(self) -> None:
        """See `Device`."""
        self._call(self._cuda.cudaStreamDestroy(self._stream))

    def _call(self, result: tuple[Any, ...], size: int = 0) -> Any:
        return _check(self._cuda, result, size)


class CudaGraph:
    """A `Recording`."""

    def __init__(self, cuda: Any, graph: Any, stream: Any) -> None:
        self._cuda, self._graph, self._stream = cuda, graph, stream
        self._executable = _check(cuda, cuda.cudaGraphInstantiate(graph, 0))

    def launch(self) -> None:
        """See `Recording`."""
        _check(self._cuda, self._cuda.cudaGraphLaunch(self._executable, self._stream))

    def free(self) -> None:
        """See `Recording`."""
        _check(self._cuda, self._cuda.cudaGraphExecDestroy(self._executable))
        _check(self._cuda, self._cuda.cudaGraphDestroy(self._graph))


def _runtime() -> Any:
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except (ImportError, OSError, RuntimeError) as error:  # one of CUDA's libraries does not load
        raise MissingExtraError("Running TensorRT engines", "trt", f"cuda-bindings: {error}") from error


def _check(runtime: Any, result: tuple[Any, ...], size: int = 0) -> Any:
    """The value of a CUDA call, None where it has none; its error as ours."""
    code, *values = result
    if code == runtime.cudaError_t.cudaErrorMemoryAllocation:
        wanted = f" ({size / 2**20:.0f} MiB more were needed)" if size else ""
        raise DeviceMemoryError(f"The GPU's memory ran out{wanted}; use a smaller batch or smaller frames.")
    if code != runtime.cudaError_t.cudaSuccess:
        raise PsarmError(f"CUDA failed: {_say(runtime, code)}.")
    return values[0] if values else None


def _say(runtime: Any, code: Any) -> str:
    _, text = runtime.cudaGetErrorString(code)
    return cast(bytes, text).decode()


def _version(number: int) -> str:
    """12040 → 12.4."""
    return f"{number // 1000}.{number % 1000 // 10}"
