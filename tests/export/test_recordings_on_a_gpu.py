"""How a CUDA graph is recorded, on doubles of torch's calls: the order, and what is left of a recording that fails."""

from contextlib import contextmanager

import pytest
import torch

from psarm.export import recordings
from psarm.export.recordings import WARM_UPS, record_cuda

POOL = (0, 7)


class Gpu:
    """What torch is asked to do, in order. `invalid`: CUDA has given the recording up, which torch cannot end then."""

    def __init__(self):
        self.calls, self.invalid, self.ended, self.streams = [], False, False, 0

    def say(self, name):
        return lambda *_, **__: self.calls.append(name)

    def make_stream(self, device):
        self.streams += 1
        return type("Stream", (), {"wait_stream": self.say("wait")})()

    @contextmanager
    def on_stream(self, _):
        self.calls.append("on stream")
        try:
            yield
        finally:
            self.calls.append("off stream")

    def make_graph(self):
        self.ended = False
        return type("Graph", (), {"capture_begin": self.say("begin"), "capture_end": self.end, "replay": None})()

    def end(self, *_):
        if self.invalid or self.ended:
            raise RuntimeError("operation failed due to a previous error during capture")
        self.ended = True
        self.calls.append("end")


@pytest.fixture
def gpu(monkeypatch):
    gpu = Gpu()
    empty_like = torch.empty_like
    monkeypatch.setattr(recordings.torch, "empty_like", lambda given, device: empty_like(given))
    doubles = {
        "current_device": lambda: 0,
        "current_stream": lambda: None,
        "Stream": gpu.make_stream,
        "stream": gpu.on_stream,
        "synchronize": gpu.say("synchronize"),
        "empty_cache": lambda: None,
        "graph_pool_handle": lambda: POOL,
        "CUDAGraph": gpu.make_graph,
    }
    for name, double in doubles.items():
        monkeypatch.setattr(torch.cuda, name, double)
    for name, call in {"endAllocateToPool": "let go", "releasePool": "release"}.items():
        monkeypatch.setattr(torch._C, f"_cuda_{name}", gpu.say(call))
    monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", gpu.say("work space"))
    recordings._stream.cache_clear()
    yield gpu
    recordings._stream.cache_clear()


def test_the_order_and_one_stream_for_all(gpu):
    def run(x):
        gpu.calls.append("run")
        assert torch.backends.cudnn.benchmark  # and not as in the calls before, whose algorithms were not tuned
        assert torch.backends.cudnn.deterministic
        return (2 * x,)

    recording = record_cuda(run, [torch.ones(3)])
    assert gpu.calls == [
        *("wait", "on stream", *["run"] * WARM_UPS, "synchronize", "work space"),
        *("begin", "run", "end", "work space", "off stream", "synchronize"),
    ]
    assert recording.outputs[0].equal(torch.full((3,), 2.0))
    record_cuda(run, [torch.ones(2)], POOL)
    assert gpu.streams == 1


def runs_until_recorded(gpu, error):
    """A function that works until it is recorded."""

    def run(x):
        if "begin" in gpu.calls:
            gpu.invalid = error is RuntimeError
            raise error("it waits for the GPU")
        return (x,)

    return run


@pytest.mark.parametrize("error", [RuntimeError, TypeError])
def test_a_recording_that_fails_leaves_nothing_behind(gpu, error):
    cudnn = torch.backends.cudnn
    with pytest.raises(error, match="it waits for the GPU"):
        record_cuda(runs_until_recorded(gpu, error), [torch.ones(3)])
    after = gpu.calls[gpu.calls.index("begin") + 1 :]
    ended = ["let go", "release"] if error is RuntimeError else ["end"]  # by torch itself where CUDA goes on
    assert after == [*ended, "work space", "off stream"] and (cudnn.benchmark, cudnn.deterministic) == (False, False)
