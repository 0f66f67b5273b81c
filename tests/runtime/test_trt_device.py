"""The CUDA module without a GPU: what it says when there is none; its calls against cuda-bindings' signatures."""

import ctypes
import inspect
import types

import numpy as np
import pytest

from psarm.errors import MissingExtraError, PsarmError
from psarm.runtime.tensorrt import device
from psarm.runtime.tensorrt.device import CudaDevice, DeviceMemoryError, find_gpu

real = pytest.importorskip("cuda.bindings.runtime")
OK, FULL, OLD = (real.cudaError_t(code) for code in (0, 2, 35))
BUFFER = ctypes.create_string_buffer(64)


class Recorded:
    """Takes every call with the arguments that cuda-bindings takes, and answers as told."""

    def __init__(self, **answers):
        properties = types.SimpleNamespace(name=b"NVIDIA L4\0\0", major=8, minor=9)
        self.answers = {
            "cudaDriverGetVersion": (OK, 13000),
            "cudaRuntimeGetVersion": (OK, 13050),
            "cudaGetDeviceCount": (OK, 1),
            "cudaGetDeviceProperties": (OK, properties),
            "cudaStreamCreateWithFlags": (OK, 7),
            "cudaMalloc": (OK, 4096),
            "cudaMallocHost": (OK, ctypes.addressof(BUFFER)),
            "cudaStreamEndCapture": (OK, "graph"),
            "cudaGraphInstantiate": (OK, "executable"),
        } | answers
        self.calls = []

    def __getattr__(self, name):
        member = getattr(real, name)  # nothing that cuda-bindings does not have
        if not callable(member) or isinstance(member, type) or name == "cudaGetErrorString":
            return member

        def call(*arguments):
            inspect.signature(member).bind(*arguments)
            self.calls.append((name, *arguments))
            return self.answers.get(name, (OK,))

        return call


@pytest.fixture
def cuda(monkeypatch):
    made = Recorded()
    monkeypatch.setattr(device, "_runtime", lambda: made)
    return made


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"cudaDriverGetVersion": (OK, 0)}, "no NVIDIA driver is installed"),
        ({"cudaGetDeviceCount": (OK, 0)}, "the NVIDIA driver sees no GPU"),
        (
            {"cudaDriverGetVersion": (OK, 12040), "cudaGetDeviceCount": (OLD, 0)},
            r"CUDA does not start \(CUDA driver version is .*\): the driver knows CUDA up to 12.4, the .* 13.5",
        ),
    ],
)
def test_no_gpu_is_told(monkeypatch, answers, reason):
    monkeypatch.setattr(device, "_runtime", lambda: Recorded(**answers))
    assert find_gpu()[0] is None
    with pytest.raises(PsarmError, match=f"No GPU to run on: {reason}"):
        CudaDevice()


def test_calls_that_fail_are_told(monkeypatch):
    monkeypatch.setattr(device, "_runtime", lambda: Recorded(cudaGetDeviceProperties=(OLD, None)))
    assert find_gpu()[1].startswith("CUDA failed: CUDA driver version is")

    def lacking():
        raise RuntimeError('Function "cudaDriverGetVersion" not found')

    monkeypatch.setattr(device, "_runtime", lambda: types.SimpleNamespace(cudaDriverGetVersion=lacking))
    assert find_gpu() == (None, 'CUDA does not start (Function "cudaDriverGetVersion" not found)')


def test_this_machine_is_told_in_one_line():
    gpu, why = find_gpu()
    assert (gpu is None) == bool(why)
    assert "\n" not in why


def test_cuda_bindings_missing(monkeypatch):
    def missing(name):
        raise ImportError("No module named 'cuda'")

    monkeypatch.setattr(device.importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"pip install 'psarm\[trt\]'"):
        device._runtime()
    assert find_gpu()[1].startswith("Running TensorRT engines needs")


def test_memory_and_copies(cuda):
    gpu = CudaDevice()
    assert (gpu.gpu.name, gpu.gpu.compute_capability, gpu.stream) == ("NVIDIA L4", "8.9", 7)
    address = gpu.allocate(64)
    host = gpu.allocate_pinned(64)
    assert host.shape == (64,) and host.dtype == np.uint8
    host[3] = 9
    assert BUFFER.raw[3] == 9, "it is the memory that CUDA gave"
    gpu.copy_in(address, host)
    gpu.copy_out(host, address)
    gpu.synchronise()
    gpu.free(address)
    gpu.free_pinned(host)
    gpu.close()
    pinned = ctypes.addressof(BUFFER)
    kinds = real.cudaMemcpyKind
    assert cuda.calls[-7:] == [
        ("cudaMallocHost", 64),
        ("cudaMemcpyAsync", 4096, pinned, 64, kinds.cudaMemcpyHostToDevice, 7),
        ("cudaMemcpyAsync", pinned, 4096, 64, kinds.cudaMemcpyDeviceToHost, 7),
        ("cudaStreamSynchronize", 7),
        ("cudaFree", 4096),
        ("cudaFreeHost", pinned),
        ("cudaStreamDestroy", 7),
    ]


def test_recording(cuda):
    gpu, done = CudaDevice(), []
    recording = gpu.record(lambda: done.append(len(cuda.calls)))
    recording.launch()
    recording.free()
    names = [name for name, *_ in cuda.calls[done[0] - 1 :]]
    assert names == [
        "cudaStreamBeginCapture",
        "cudaStreamEndCapture",
        "cudaGraphInstantiate",
        "cudaGraphLaunch",
        "cudaGraphExecDestroy",
        "cudaGraphDestroy",
    ]
    with pytest.raises(ZeroDivisionError):
        gpu.record(lambda: 1 / 0)
    assert cuda.calls[-1][0] == "cudaStreamEndCapture", "the stream is usable again"


def test_out_of_memory(cuda):
    cuda.answers["cudaMalloc"] = (FULL, None)
    with pytest.raises(
        DeviceMemoryError, match=r"ran out \(100 MiB more were needed\); use a smaller batch or smaller"
    ):
        CudaDevice().allocate(100 << 20)
