"""INT8: the float32 graphs with explicit QuantizeLinear/DequantizeLinear pairs, calibrated on pictures.

    calibration = read_calibration(folder, preprocessing)
    quantised = quantise({"detect": …, "reid": …}, calibration, thresholds)
    quantised.models["detect"]  # float32 inputs and outputs under the same names
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import onnx

from psarm.export.precision.calibration import Calibration
from psarm.runtime.manifest import Thresholds


@dataclass(frozen=True)
class KeptLayer:
    """A layer that stays in float32 and what quantising it would cost."""

    graph: str
    layer: str
    """The node's name in the graph."""
    reason: str
    """In words: `its embeddings fall to 18.2 dB`."""
    snr: float | None
    """Measured signal-to-noise ratio in dB with this layer alone quantised; None where the rule, not a measurement,
    keeps it."""


@dataclass(frozen=True)
class Quantised:
    """The graphs in int8 and what is to be said about them."""

    models: dict[str, onnx.ModelProto]
    layers: dict[str, int]
    """Graph → number of its convolutions and matrix products in int8."""
    kept: list[KeptLayer]
    """Convolutions and matrix products that stay in float32."""
    snr: dict[str, float]
    """`detect.scores`, `reid.embeddings`, … → signal-to-noise ratio in dB against float32 on calibration pictures."""
    source: str
    """What they were calibrated on, for people."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the graphs."""
        return {
            "calibration": self.source,
            "layers": self.layers,
            "kept": [asdict(layer) for layer in self.kept],
            "snr": self.snr,
        }


def quantise(
    models: Mapping[str, onnx.ModelProto],
    calibration: Calibration,
    thresholds: Thresholds,
    say: Callable[[str], None] = lambda message: None,
) -> Quantised:
    """The float32 graphs `detect`, `refine` where there is one, and `reid`, in int8.

    `thresholds` are the bundle's: the heads are calibrated on the people that the detect graph finds. `say` gets a line
    before each step. Raises `ExportError` where a graph cannot be quantised.
    """
    raise NotImplementedError
