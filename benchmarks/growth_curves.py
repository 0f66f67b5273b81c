"""What a benchmark notes of a cost that grows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class GrowthPoint:
    """One place on a curve."""

    x: float
    """People a frame, pixels of a frame, frames a call, people of a gallery."""
    label: str
    """The same for people to read: `1920x1080`."""
    measured_ms: float | None = None
    """Median: an image, or a query of a gallery."""
    predicted_ms: float | None = None
    """By the MAC and byte model."""
    failure: str = ""
    """Why it was not measured."""


@dataclass(frozen=True)
class GrowthCurve:
    """One engine's cost over one thing that grows."""

    kind: str
    """Of `psarm.benchmarks.settings.GROWTHS`."""
    name: str
    """What was measured: `openvino int8`."""
    explanation: str
    """What the prediction is made of."""
    points: list[GrowthPoint]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)
