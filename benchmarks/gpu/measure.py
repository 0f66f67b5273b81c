"""Times of functions that run on a device, taken in turns; what the device could do at best; what a function works.

Times on a GPU are those between two of its own events, so that the host's way to it is in them only where it is slower
than the GPU.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

Function = Callable[[], Any]

SAMPLE_MS = 15.0
"""About as long a sample runs: a fast function several times."""
MOST_REPEATS = 40
GEMM = {"cuda": 8192, "cpu": 192}
"""Side of the matrices that the ceiling of products is measured with."""
COPY_BYTES = {"cuda": 1 << 30, "cpu": 1 << 20}


@dataclass(frozen=True)
class Times:
    """Milliseconds a call."""

    median: float
    best: float
    worst: float
    samples: int


@dataclass(frozen=True)
class Ceiling:
    """What the device does at best."""

    tera_macs: dict[str, float]
    """10^12 multiply-adds a second of a large matrix product, by precision."""
    gigabytes: float
    """10^9 bytes a second of a large copy, those read and those written."""


def elapsed_ms(function: Function, device: torch.device, repeats: int = 1, host: bool = False) -> float:
    """Milliseconds a call of `repeats`; `host`: by the host's clock, for functions that end there."""
    if device.type == "cuda" and not host:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        for _ in range(repeats):
            function()
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end)) / repeats
    synchronise(device)
    begun = time.perf_counter()
    for _ in range(repeats):
        function()
    synchronise(device)
    return 1000 * (time.perf_counter() - begun) / repeats


def take_turns(
    functions: Mapping[str, Function], device: torch.device, rounds: int, host: bool = False
) -> dict[str, Times]:
    """Times of warm functions, one after the other in every round."""
    repeats = {}
    for name, function in functions.items():
        once = elapsed_ms(function, device, host=host)
        repeats[name] = max(1, min(MOST_REPEATS, int(SAMPLE_MS / max(once, 1e-3))))
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            taken[name].append(elapsed_ms(function, device, repeats[name], host))
    return {name: Times(statistics.median(ms), min(ms), max(ms), len(ms)) for name, ms in taken.items()}


def measure_ceiling(device: torch.device, precisions: Mapping[str, torch.dtype], rounds: int) -> Ceiling:
    """The GEMM and the copy that everything else is a share of, on random numbers: `psarm bench`'s on a GPU, too."""
    side = GEMM[device.type]
    functions: dict[str, Function] = {}
    for name, dtype in precisions.items():
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        functions[name] = lambda left=left, right=right: left @ right  # type: ignore[misc]
    source = torch.randint(0, 255, (COPY_BYTES[device.type],), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    functions["copy"] = lambda: target.copy_(source)
    times = take_turns(functions, device, rounds)
    macs = {name: side**3 / (1e9 * times[name].median) for name in precisions}
    return Ceiling(macs, 2 * source.numel() / (1e6 * times["copy"].median))


def count_macs(function: Callable[..., Any], *inputs: Tensor) -> int:
    """Multiply-adds of convolutions and matrix products in one call."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function(*inputs)
    operations: int = counter.get_total_flops()
    return operations // 2


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def reset_peak(device: torch.device) -> int:
    """Bytes the device holds now; from here on `peak_bytes` counts anew."""
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def peak_bytes(device: torch.device) -> int | None:
    """Most bytes the device held since `reset_peak`; None on a CPU, where nobody counts."""
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else None
