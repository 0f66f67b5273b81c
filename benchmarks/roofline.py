"""How much of the time in the graphs the machine needs at the least: the MAC and byte model beside the measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from psarm.benchmarks.ceilings import Ceiling, measure_ceiling
from psarm.benchmarks.engines import Frame
from psarm.benchmarks.timing import Timing
from psarm.benchmarks.work_count import Work, WorkCounter
from psarm.benchmarks.workloads import Workload
from psarm.errors import PsarmError
from psarm.runtime.bundle import Bundle
from psarm.runtime.manifest import Preprocessing


@dataclass(frozen=True)
class Roofline:
    """Of one row."""

    share: float
    """The floor by the time measured in the graphs; 1 is the best there can be."""
    floor_ms: float
    """An image: what its multiply-adds take at the measured rate, or its bytes where that is longer."""
    bound: str
    """Which of the two: `arithmetic` or `memory`."""
    gmacs: float
    """An image."""
    megabytes: float
    """An image."""
    ceiling: Ceiling

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class RooflineModel:
    """Floors of one bundle on this machine: work counted on the first timed frame, ceilings as measured."""

    def __init__(self, bundle: Bundle, frame: Frame, threads: int) -> None:
        """Raises `MissingExtraError` without onnx."""
        self._counter = WorkCounter(bundle)
        self._frame = frame
        self._threads = threads
        self._works: dict[Any, Work] = {}

    def work(self, workload: Workload, rule: Preprocessing | None = None) -> Work:
        """Of a frame of the workload's size, resized as the bundle does it or as `rule` says."""
        key = (workload.size, rule)
        if key not in self._works:
            [frame] = Workload(size=workload.size).frames([self._frame])
            self._works[key] = self._counter.count(frame, rule)
        return self._works[key]

    def ceiling(self, backend: str, precision: str, device: str) -> Ceiling:
        """Raises `PsarmError` with the reason where it cannot be measured."""
        return measure_ceiling(backend, precision, device.startswith("CPU"), self._threads)

    def floor_ms(
        self, ceiling: Ceiling, precision: str, workload: Workload, people: float, rule: Preprocessing | None = None
    ) -> float:
        """Milliseconds an image."""
        work = self.work(workload, rule)
        return ceiling.floor_ms(work.macs(people), work.bytes(people, workload.batch, precision))

    def of(self, backend: str, precision: str, device: str, workload: Workload, timing: Timing) -> Roofline:
        """Of what was timed; raises `PsarmError` with the reason where there is none."""
        if timing.network_ms is None:
            raise PsarmError("its stages are not told apart.")
        ceiling = self.ceiling(backend, precision, device)
        work = self.work(workload)
        macs, moved = work.macs(timing.people), work.bytes(timing.people, workload.batch, precision)
        floor = ceiling.floor_ms(macs, moved)
        bound = "arithmetic" if ceiling.arithmetic_ms(macs) >= ceiling.memory_ms(moved) else "memory"
        return Roofline(floor / timing.network_ms, floor, bound, macs / 1e9, moved / 1e6, ceiling)


def reasons(failures: Sequence[tuple[str, str]]) -> list[str]:
    """`no roofline of A, B: why` for every reason there was: (of what, why)."""
    found: dict[str, list[str]] = {}
    for name, why in failures:
        found.setdefault(why, []).append(name)
    return [f"{', '.join(dict.fromkeys(names))}: {why}" for why, names in found.items()]
