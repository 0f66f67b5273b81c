"""An engine in a process of its own: seconds from the start of Python to its second result, and memory.

`psarm bench` asks for what opening an engine costs a program, the PyTorch model and any workload included;
`psarm.benchmarks.cold_start` for every phase of a bundle's, with compiled graphs kept from before and without.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psarm.errors import PsarmError

if TYPE_CHECKING:
    from psarm.benchmarks.engines import SearchEngine

PHASES = ("python", "import", "verify", "open", "first", "second")
"""Start of Python, import of psarm.runtime, SHA-256 of the bundle, opening the engine, first and second call."""
# The import of this module is a part of psarm.runtime's: all that it imports above is imported there as well.
CHILD = """
import sys, time
begun = time.time()
from psarm.benchmarks.fresh_process import report
report(float(sys.argv[1]), begun, sys.argv[2])
"""


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
    """Open `subject` and call it twice, caches of compiled models as they are; raises `PsarmError` with the reason."""
    before = gpu_memory()
    found = _run(subject, "Opening it", {})
    seconds, after = found["seconds"], found["gpu_memory"]
    used = None if before is None or after is None else max(0, after - before)
    return FreshProcess(1000 * (seconds["verify"] + seconds["open"]), 1000 * seconds["first"], found["memory"], used)


def measure_phases(subject: Subject, environment: Mapping[str, str]) -> dict[str, float]:
    """Seconds of each of `PHASES`, with these variables set; raises `PsarmError` with the reason where it fails."""
    seconds: dict[str, float] = _run(subject, f"{subject.backend} in {subject.precision}", environment)["seconds"]
    return seconds


def run_python(words: Sequence[str], what: str, environment: Mapping[str, str] | None = None) -> Any:
    """The last line that Python prints when run on `words`, which is JSON; raises `PsarmError` with its reason.

    `what`: the subject of that sentence. `environment`: on top of this process's own.
    """
    variables = os.environ | (environment or {})
    result = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, env=variables)
    lines = [line.strip() for line in (result.stdout if result.returncode == 0 else result.stderr).splitlines()]
    last = next((line for line in reversed(lines) if line), "it said nothing")
    if result.returncode:
        why = f"signal {-result.returncode}" if result.returncode < 0 else last.removeprefix("Error: ")
        raise PsarmError(f"{what} failed in a process of its own: {why}")
    return json.loads(last)


def _run(subject: Subject, what: str, environment: Mapping[str, str]) -> dict[str, Any]:
    content = json.dumps(asdict(subject))
    # The time of day is the one clock that two processes share.
    found: dict[str, Any] = run_python(["-c", CHILD, repr(time.time()), content], what, environment)
    return found


def report(started: float, begun: float, content: str) -> None:
    """In the new process: print what `content`, a `Subject` in JSON, comes to; it was `started`, Python had `begun`."""
    values = json.loads(content)
    values["size"] = None if values["size"] is None else tuple(values["size"])
    try:
        found = _measure(Subject(**values), [started, begun])
    except PsarmError as error:
        sys.exit(f"Error: {error}")
    print(json.dumps(found))


def _measure(subject: Subject, times: list[float]) -> dict[str, Any]:
    engine: SearchEngine
    from psarm.runtime import Bundle, PersonSearch, read_image

    times.append(time.time())
    if subject.bundle is None:
        times.append(times[-1])  # nothing to verify
        from psarm.benchmarks.torch_engine import load_engine

        engine = load_engine(Path(subject.checkpoint or ""), subject.threads)
    else:
        bundle = Bundle.open(subject.bundle)
        times.append(time.time())
        engine = PersonSearch(bundle, subject.backend, subject.precision, subject.threads)
    times.append(time.time())
    # A program with an engine would not import these: no phase holds them, nor the reading of the frames.
    from psarm.benchmarks.memory import peak_memory
    from psarm.benchmarks.timing import detect
    from psarm.benchmarks.workloads import Workload

    workload = Workload(subject.batch, subject.people, subject.size)
    frames = workload.frames([read_image(Path(path)) for path in subject.frames])
    with workload.imposed_on(engine):
        paused = time.time() - times[-1]
        for _ in range(2):
            detect(engine, frames)
            times.append(time.time() - paused)
    seconds = (after - before for before, after in pairwise(times))
    return {
        "seconds": dict(zip(PHASES, seconds, strict=True)),
        "memory": peak_memory(),
        "gpu_memory": gpu_memory(),
    }


def gpu_memory() -> int | None:
    """Bytes in use on all NVIDIA GPUs together; None without one."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    values = [int(line) for line in result.stdout.splitlines() if line.strip().isdecimal()]
    return sum(values) * 2**20 if result.returncode == 0 and values else None
