"""The result of a benchmark: facts about where it ran, and a row for every engine."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from psarm.benchmarks.facts import Facts
from psarm.benchmarks.settings import BenchSettings
from psarm.benchmarks.timing import Timing

SCHEMA = 1
Metrics = dict[str, dict[str, float]]


@dataclass
class Row:
    """One engine, or one baseline."""

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
    timing: Timing | None = None
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

    @property
    def reference(self) -> Row | None:
        """The row of the PyTorch model, if it ran."""
        return next((row for row in self.rows if row.name == PYTORCH and row.ok), None)

    def speed_up(self, row: Row) -> float | None:
        """How many times as fast as PyTorch; None without both timings, and for PyTorch itself."""
        reference = self.reference
        if reference is None or row is reference or reference.timing is None or row.timing is None:
            return None
        return reference.timing.total_ms / row.timing.total_ms

    def map_difference(self, row: Row) -> float | None:
        """Search mAP minus PyTorch's, as a fraction; None without both, and for PyTorch itself."""
        if self.reference is None or row is self.reference:
            return None
        here, there = row.metric("search", "mAP"), self.reference.metric("search", "mAP")
        return None if here is None or there is None else here - there

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: `schema`, `command`, the facts, and `rows` with metrics, timing and differences."""
        return {
            "schema": SCHEMA,
            "command": self.settings.command(),
            **asdict(self.facts),
            "rows": [self._row(row) for row in self.rows],
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
            "timing": row.timing.to_dict() if row.timing else None,
            "speed_up": self.speed_up(row),
            "map_difference": self.map_difference(row),
        }


PYTORCH = "PyTorch"
