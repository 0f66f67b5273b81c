"""What this machine does at best: multiply-adds a second in a matrix product, bytes a second in a copy.

On a CPU the product runs as the engines do, in a bundle of its own whose graph is nothing else, on the same backend
with the same threads; for the torch backend torch multiplies. The time of a short chain of products is subtracted from
that of a long one, so that calls do not count. A GPU's are the GPU suite's.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from psarm.benchmarks.ceiling_bundle import COLUMNS, ROWS, SIDE, make_ceiling_bundle
from psarm.errors import PsarmError
from psarm.extras import require
from psarm.runtime.backends import load_backend
from psarm.runtime.backends.compiled_cache import nothing_kept
from psarm.runtime.bundle import Bundle

if TYPE_CHECKING:
    import torch

ROUNDS = 5
CHAINS = 1, 5
"""Products in the short and the long chain."""
COPIED_BYTES = 1 << 28


@dataclass(frozen=True)
class Ceiling:
    """Of a backend in a precision."""

    gmacs_per_s: float
    copy_gb_per_s: float
    """Bytes read and bytes written, both counted."""
    how: str
    """With what it was measured."""

    def floor_ms(self, macs: float, moved: float) -> float:
        """Milliseconds below which `macs` multiply-adds on `moved` bytes cannot be done."""
        return max(self.arithmetic_ms(macs), self.memory_ms(moved))

    def arithmetic_ms(self, macs: float) -> float:
        """Milliseconds of the multiply-adds alone."""
        return macs / self.gmacs_per_s / 1e6

    def memory_ms(self, moved: float) -> float:
        """Milliseconds of the bytes alone."""
        return moved / self.copy_gb_per_s / 1e6


@cache
def measure_ceiling(backend: str, precision: str, on_cpu: bool, threads: int) -> Ceiling:
    """Measure it, once; raises `PsarmError` with the reason where that cannot be done."""
    if not on_cpu or backend == "torch":
        return _by_torch(precision, threads) if on_cpu else _of_gpu(precision)
    require("onnx", feature="Measuring the ceiling of a backend", extra="export")
    try:
        with tempfile.TemporaryDirectory() as folder:
            seconds = [_chain_seconds(Path(folder), backend, precision, threads, length) for length in CHAINS]
    except OSError as error:  # what was timed so far is worth more than its roofline
        raise PsarmError(f"the products to measure it with cannot be written: {error.strerror}.") from error
    macs = (CHAINS[1] - CHAINS[0]) * ROWS * COLUMNS * COLUMNS
    rate = _rate(macs, *seconds)
    return Ceiling(rate, copy_rate(threads), f"a chain of {ROWS}x{COLUMNS}x{COLUMNS} products on {backend}")


@cache
def copy_rate(threads: int) -> float:
    """GB a second that `threads` threads copy in main memory, read and written ones counted."""
    source = np.ones(COPIED_BYTES, np.uint8)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        seconds = _least(lambda: list(pool.map(lambda part: np.copyto(part[1], part[0]), parts)))
    return 2 * COPIED_BYTES / seconds / 1e9


def _chain_seconds(folder: Path, backend: str, precision: str, threads: int, length: int) -> float:
    bundle = make_ceiling_bundle(folder / f"{length}.psarm", precision, length)
    images = np.random.default_rng(0).random((1, 3, SIDE, SIDE), np.float32)
    with nothing_kept(), load_backend(backend)(Bundle.open(bundle), precision, threads) as engine:
        return _least(lambda: engine.run_detect(images, np.array([[SIDE, SIDE]])))


def _of_gpu(precision: str) -> Ceiling:
    """As the GPU suite measures it: medians by the GPU's own clock."""
    kind = _torch_type(precision)
    import torch

    from psarm.benchmarks.gpu.measure import GEMM, measure_ceiling

    if not torch.cuda.is_available():
        raise PsarmError("the ceiling of a GPU is measured by torch, which has none here.")
    device = torch.device("cuda")
    found, side = measure_ceiling(device, {precision: kind}, ROUNDS), GEMM[device.type]
    return Ceiling(1000 * found.tera_macs[precision], found.gigabytes, f"{side}x{side}x{side} products in torch")


def _by_torch(precision: str, threads: int) -> Ceiling:
    kind, side = _torch_type(precision), COLUMNS
    import torch

    matrix = torch.rand(side, side, dtype=kind)
    result = torch.empty_like(matrix)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)

    def multiply(times: int) -> None:
        for _ in range(times):
            torch.matmul(matrix, matrix, out=result)

    try:
        seconds = [_least(lambda length=length: multiply(length)) for length in CHAINS]  # type: ignore[misc]
    finally:
        torch.set_num_threads(before)
    rate = _rate((CHAINS[1] - CHAINS[0]) * side**3, *seconds)
    return Ceiling(rate, copy_rate(threads), f"{side}x{side}x{side} products in torch")


def _torch_type(precision: str) -> torch.dtype:
    require("torch", feature="Measuring the ceiling of this device", extra="train")
    import torch

    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision not in kinds:
        raise PsarmError(f"torch, by which the ceiling of this device is measured, has no product in {precision}.")
    return kinds[precision]


def _rate(macs: int, short: float, long: float) -> float:
    """GMACs a second by the difference of two chains."""
    if long <= short:
        raise PsarmError("a long chain of products took no longer than a short one: the machine is too busy.")
    return macs / (long - short) / 1e9


def _least(function: Callable[[], object]) -> float:
    """Seconds of the fastest of some runs after a first: what is possible, not what is usual."""
    function()
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
