"""Functions of tensors run by replaying CUDA graphs: one recording for every set of shapes that came before.

A recording launches hundreds of kernels at once; run one by one from Python, launching them takes longer than they do.
"""

from __future__ import annotations

import gc
import warnings
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from psarm.errors import PsarmError

Function = Callable[..., Sequence[Tensor]]
Shapes = tuple[tuple[tuple[int, ...], torch.dtype], ...]

LIMIT = 20
"""Recordings kept, which share their memory: enough for every number of people that `torch_graphs.usual_rows` gives."""
REMEMBERED = 256
"""Shapes remembered as having come before."""
WARM_UPS = 3
"""Runs before the recording, in which libraries choose their algorithms and compilers compile."""


@dataclass(frozen=True)
class Recording:
    """A function recorded on its own inputs and outputs, which every replay reads and writes."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    replay: Callable[[], None]

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Outputs that hold until the next call; inputs on the host are copied to the device."""
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        self.replay()
        return self.outputs


Record = Callable[[Function, Sequence[Tensor]], Recording]


def record_cuda(function: Function, inputs: Sequence[Tensor], pool: Any = None) -> Recording:
    """Record `function` on tensors like `inputs` of a GPU; raises whatever stops it: memory, an operator that waits.

    `pool`: of `torch.cuda.graph_pool_handle`, shared by recordings that are never replayed at the same time.
    """
    own = tuple(torch.empty_like(given, device="cuda").copy_(given) for given in inputs)
    stream = _stream(torch.cuda.current_device())
    stream.wait_stream(torch.cuda.current_stream())
    with _tuned(), torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            function(*own)
        graph = torch.cuda.CUDAGraph()
        outputs = _capture(graph, partial(function, *own), pool or torch.cuda.graph_pool_handle())
    torch.cuda.synchronize()
    return Recording(own, outputs, graph.replay)


@contextmanager
def _tuned() -> Iterator[None]:
    """Let cuDNN try every algorithm once: the shapes stay, so that it pays.

    Torch goes on with the algorithm of a convolution's first call, which was not tuned where it was before a recording.
    It keeps those of `deterministic` apart.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark = cudnn.deterministic = True
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before


@cache
def _stream(device: int) -> torch.cuda.Stream:
    """Where a device's recordings are made: memory of one pool goes to recordings of one stream only."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _capture(graph: torch.cuda.CUDAGraph, function: Callable[[], Sequence[Tensor]], pool: Any) -> tuple[Tensor, ...]:
    """What `torch.cuda.graph` does, on the current stream, but that the process may go on where it fails."""
    gc.collect()  # nothing is to be freed by calls that a recording forbids
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    # Work space of cuBLAS is then the recording's own; that of a stream is gone with the first of its recordings.
    torch._C._cuda_clearCublasWorkspaces()
    # Other threads may go on with the GPU meanwhile: one that uploads the next frames, say.
    graph.capture_begin(pool=pool, capture_error_mode="thread_local")
    try:
        outputs = tuple(function())
        graph.capture_end()
    except BaseException:
        _abandon(graph, pool)
        raise
    finally:
        torch._C._cuda_clearCublasWorkspaces()
    return outputs


def _abandon(graph: torch.cuda.CUDAGraph, pool: Any) -> None:
    """End a recording that failed.

    Where CUDA has given it up, torch cannot end it, and its allocator would for ever take it to be under way: it would
    neither free memory nor let a recording share this pool.
    """
    device = torch.cuda.current_device()
    try:
        graph.capture_end()
    except RuntimeError:
        with suppress(RuntimeError):  # it has ended
            torch._C._cuda_endAllocateToPool(device, pool)
            torch._C._cuda_releasePool(device, pool)


class Recorder:
    """Recordings of one function by the shapes of its inputs, made when shapes come for the second time.

    What cannot be recorded goes on without, and a warning says why.
    """

    def __init__(self, function: Function, title: str, record: Record) -> None:
        """`title`: what it is, for the warning."""
        self.function = function
        self.title = title
        self.refused: str | None = None
        """Why the last shapes that could not be recorded were not."""
        self._record = record
        self._seen: deque[Shapes] = deque(maxlen=REMEMBERED)
        self._kept: OrderedDict[Shapes, Recording | None] = OrderedDict()  # None: it cannot be recorded

    def find(self, *inputs: Tensor) -> Recording | None:
        """The recording for inputs of these shapes; None where there is none (yet)."""
        shapes: Shapes = tuple((tuple(given.shape), given.dtype) for given in inputs)
        if shapes not in self._kept:
            if shapes not in self._seen:
                self._seen.append(shapes)
                return None
            self._make_room()
            self._kept[shapes] = self._try(inputs)
        self._kept.move_to_end(shapes)
        return self._kept[shapes]

    def _make_room(self) -> None:
        while len(self._kept) >= LIMIT:
            self._kept.popitem(last=False)

    def _try(self, inputs: Sequence[Tensor]) -> Recording | None:
        try:
            return self._record(self.function, inputs)
        except PsarmError:
            raise
        except Exception as error:  # compilers and CUDA raise of every kind
            first = (str(error).strip().splitlines() or [""])[0][:200]
            self.refused = f"{type(error).__name__}: {first}"
            sizes = ", ".join("x".join(map(str, given.shape)) for given in inputs)
            warnings.warn(
                f"{self.title} on {sizes} runs without a CUDA graph, slower: recording one failed ({self.refused}).",
                stacklevel=2,
            )
            return None
