"""The result of the suite as values: what report.json holds and the page shows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from psarm.benchmarks.paper.conditions import Conditions
from psarm.benchmarks.paper.contender import Contender
from psarm.benchmarks.paper.examples import Example
from psarm.benchmarks.paper.published import SPEEDS, PublishedRow
from psarm.benchmarks.paper.settings import PaperSettings

SCHEMA = 2


@dataclass(frozen=True)
class Result:
    """Everything measured of one checkpoint."""

    contender: Contender
    metrics: dict[str, dict[str, float]]
    """As `psarm.benchmarks.paper.scores.score` gives them; fractions."""
    measured: Conditions
    """Of the metrics."""
    timing: dict[str, Any]
    """As `psarm.benchmarks.timing.Timing.to_dict`."""
    published: PublishedRow | None
    """The paper's row of this variant on this data set."""

    @property
    def fps(self) -> float:
        """Images a second."""
        return float(self.timing["fps"])

    def percent(self, group: str, name: str) -> float:
        """One metric in percent."""
        return 100 * self.metrics[group][name]

    def differences(self) -> list[str]:
        """In what the checkpoint is not the published model."""
        return self.published.differences(self.contender.model) if self.published else []


@dataclass(frozen=True)
class Gallery:
    """A set of frames that queries are searched in."""

    name: str
    frames: int
    group: str
    """Of the metrics without CBGM; `<group>_cbgm` with it."""


@dataclass(frozen=True)
class PaperReport:
    """Everything one run of the suite found."""

    settings: PaperSettings
    facts: dict[str, Any]
    """`psarm.benchmarks.facts.Facts` of when the report was made."""
    speed: Conditions
    """Of the timings."""
    results: list[Result]
    galleries: list[Gallery]
    """Those of different sizes, rising; empty where the data set has but one."""
    published: list[PublishedRow]
    """All rows of the paper on this data set."""
    warning: str
    """Why the published figures do not compare with the measured ones; empty when they do."""
    examples: list[Example]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; metrics as fractions, published figures in percent as printed."""
        names = [result.contender.name for result in self.results]
        return {
            "schema": SCHEMA,
            "suite": "paper",
            "command": self.settings.command(),
            "facts": self.facts,
            "speed": asdict(self.speed),
            "published_comparable": not self.warning,
            "warning": self.warning,
            "galleries": [asdict(gallery) for gallery in self.galleries],
            "checkpoints": [_result(result) for result in self.results],
            "published": [row.to_dict() for row in self.published],
            "published_speeds": [asdict(speed) for speed in SPEEDS.get(self.settings.dataset, [])],
            "examples": [example.to_dict(names) for example in self.examples],
        }


def _result(result: Result) -> dict[str, Any]:
    return {
        **result.contender.to_dict(),
        "metrics": result.metrics,
        "measured": asdict(result.measured),
        "timing": result.timing,
        "published": result.published.to_dict() if result.published else None,
        "differences": result.differences(),
    }
