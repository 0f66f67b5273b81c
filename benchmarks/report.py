"""The result of a benchmark: facts about where it ran, and a row for every engine and workload."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from psarm.benchmarks.facts import Facts
from psarm.benchmarks.fresh_process import FreshProcess
from psarm.benchmarks.growth_curves import GrowthCurve
from psarm.benchmarks.roofline import Roofline
from psarm.benchmarks.settings import BenchSettings
from psarm.benchmarks.timing import Timing
from psarm.benchmarks.workloads import AS_FOUND, Workload

SCHEMA = 2
Metrics = dict[str, dict[str, float]]


@dataclass
class Row:
    """One engine under one workload, or one baseline."""

    name: str
    """For people: `onnxruntime`, `PyTorch`."""
    precision: str = ""
    device: str = ""
    size_bytes: int | None = None
    """Both graphs, or the checkpoint file."""
    failure: str = ""
    """Why there are no numbers; empty when there are."""
    metrics: Metrics = field(default_factory=dict)
    """As `psarm.evaluation.score_detections` gives them, and `search_gt_boxes` when asked for; fractions."""
    workload: Workload = AS_FOUND
    """What was timed; the metrics are the same for all of an engine."""
    timing: Timing | None = None
    fresh: FreshProcess | None = None
    """Cold start and memory, in a process of its own; None where not measured."""
    roofline: Roofline | None = None
    """None where not measured."""
    requested: bool = False
    """Whether it was asked for by name: the checkpoint, or a backend or precision of the bundle."""

    @property
    def ok(self) -> bool:
        """Whether it ran."""
        return not self.failure

    def metric(self, group: str, name: str) -> float | None:
        """One number of `metrics`, None where it was not measured."""
        return self.metrics.get(group, {}).get(name)


@dataclass(frozen=True)
class BenchReport:
    """Everything one benchmark found."""

    settings: BenchSettings
    facts: Facts
    rows: list[Row]
    """The PyTorch model first, then the bundle's backends, then baselines."""
    growth: list[GrowthCurve] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What could not be measured, and why."""

    @property
    def reference(self) -> Row | None:
        """The first row of the PyTorch model that ran."""
        return next((row for row in self.rows if row.name == PYTORCH and row.ok), None)

    @property
    def workloads(self) -> list[Workload]:
        """Those of the rows, each once."""
        return list(dict.fromkeys(row.workload for row in self.rows if row.timing is not None))

    def speed_up(self, row: Row) -> float | None:
        """How many times as fast as PyTorch, frame by frame, on the same frames with the same people.

        None without both timings, and for PyTorch itself.
        """
        same = (row.workload.people, row.workload.size)
        for other in self.rows:
            if other.name == PYTORCH and other.timing and (other.workload.people, other.workload.size) == same:
                return (
                    None if row.name == PYTORCH or row.timing is None else other.timing.total_ms / row.timing.total_ms
                )
        return None

    def map_difference(self, row: Row) -> float | None:
        """Search mAP minus PyTorch's, as a fraction; None without both, and for PyTorch itself."""
        if self.reference is None or row.name == PYTORCH:
            return None
        here, there = row.metric("search", "mAP"), self.reference.metric("search", "mAP")
        return None if here is None or there is None else here - there

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, as docs/benchmarks.md says."""
        return {
            "schema": SCHEMA,
            "command": self.settings.command(),
            **asdict(self.facts),
            "rows": [self._row(row) for row in self.rows],
            "growth": [curve.to_dict() for curve in self.growth],
            "notes": self.notes,
        }

    def _row(self, row: Row) -> dict[str, Any]:
        return {
            "name": row.name,
            "precision": row.precision,
            "device": row.device,
            "status": "ok" if row.ok else "failed",
            "failure": row.failure,
            "size_bytes": row.size_bytes,
            "metrics": row.metrics,
            "workload": row.workload.to_dict(),
            "timing": row.timing.to_dict() if row.timing else None,
            "fresh_process": row.fresh.to_dict() if row.fresh else None,
            "roofline": row.roofline.to_dict() if row.roofline else None,
            "speed_up": self.speed_up(row),
            "map_difference": self.map_difference(row),
        }


PYTORCH = "PyTorch"
