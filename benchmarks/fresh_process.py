"""What opening an engine costs a program: seconds until its first result, and memory, in a process of its own.

    python -m psarm.benchmarks.fresh_process '{"bundle": "prw.psarm", "backend": "onnxruntime", …}'

prints one line of JSON. Caches of compiled models stay as they are.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from psarm.benchmarks.engines import SearchEngine
from psarm.benchmarks.memory import peak_memory
from psarm.benchmarks.timing import detect
from psarm.benchmarks.workloads import Workload
from psarm.errors import PsarmError
from psarm.runtime import PersonSearch, read_image


@dataclass(frozen=True)
class Subject:
    """What to open, and what to give it."""

    bundle: str | None
    checkpoint: str | None
    """Where there is no bundle."""
    backend: str
    precision: str
    threads: int
    frames: list[str]
    """Picture files."""
    batch: int = 1
    people: int | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class FreshProcess:
    """What it came to."""

    open_ms: float
    """With the import of the backend's library."""
    first_ms: float
    """The first call, of the whole batch."""
    memory_bytes: int | None
    """Most that was resident (RSS) until two calls were done; None where the system does not tell."""
    gpu_memory_bytes: int | None
    """By how much more of the GPUs' memory was in use then, whoever's; None without an NVIDIA GPU."""

    @property
    def cold_start_ms(self) -> float:
        """From opening to the first result."""
        return self.open_ms + self.first_ms

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with `cold_start_ms`."""
        return {**asdict(self), "cold_start_ms": self.cold_start_ms}


def measure_in_fresh_process(subject: Subject) -> FreshProcess:
    """Run this module on `subject`; raises `PsarmError` with the reason where it fails."""
    words = [sys.executable, "-m", "psarm.benchmarks.fresh_process", json.dumps(asdict(subject))]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    lines = [line.strip() for line in (result.stdout if result.returncode == 0 else result.stderr).splitlines()]
    last = next((line for line in reversed(lines) if line), "it said nothing")
    if result.returncode:
        why = f"signal {-result.returncode}" if result.returncode < 0 else last.removeprefix("Error: ")
        raise PsarmError(f"Opened in a process of its own, it failed: {why}")
    return FreshProcess(**json.loads(last))


def _measure(subject: Subject) -> FreshProcess:
    before = gpu_memory()
    workload = Workload(subject.batch, subject.people, subject.size)
    frames = workload.frames([read_image(Path(path)) for path in subject.frames])
    start = time.perf_counter()
    engine: SearchEngine
    if subject.bundle is None:
        from psarm.benchmarks.torch_engine import load_engine

        engine = load_engine(Path(subject.checkpoint or ""), subject.threads)
    else:
        engine = PersonSearch(subject.bundle, subject.backend, subject.precision, subject.threads)
    with workload.imposed_on(engine):
        opened = time.perf_counter()
        detect(engine, frames)
        first = time.perf_counter()
        detect(engine, frames)
    after = gpu_memory()
    used = None if before is None or after is None else max(0, after - before)
    return FreshProcess(1000 * (opened - start), 1000 * (first - opened), peak_memory(), used)


def gpu_memory() -> int | None:
    """Bytes in use on all NVIDIA GPUs together; None without one."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    values = [int(line) for line in result.stdout.splitlines() if line.strip().isdecimal()]
    return sum(values) * 2**20 if result.returncode == 0 and values else None


def _main() -> None:
    content = json.loads(sys.argv[1])
    content["size"] = None if content["size"] is None else tuple(content["size"])
    try:
        found = _measure(Subject(**content))
    except PsarmError as error:
        sys.exit(f"Error: {error}")
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    _main()
