"""Errors of an exported bundle against the PyTorch model, and the limits they must keep."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LIMITS = {"boxes": 1e-2, "scores": 1e-4, "embeddings": 1e-4}
"""Largest errors allowed: boxes in pixels, scores and embeddings as they are."""


@dataclass(frozen=True)
class Comparison:
    """One input through the graphs and the model."""

    graph: str
    """detect, reid, or bundle (frames to people)."""
    case: str
    compared: int
    """Proposals, boxes or people compared."""
    boxes: float | None = None
    scores: float | None = None
    embeddings: float | None = None
    problem: str | None = None
    """What cannot be put as a number: another choice or count."""
    redrawn: int = 0
    """Inputs discarded before this one because PyTorch's own answer hangs on a near tie there."""

    def failures(self) -> list[str]:
        """One phrase for each limit that does not hold."""
        found = [] if self.problem is None else [self.problem]
        for name, limit in LIMITS.items():
            error = getattr(self, name)
            if error is not None and not error <= limit:  # NaN must fail
                unit = " px" if name == "boxes" else ""
                found.append(f"{name} differ by {error:.3g}{unit} (limit {limit:g}{unit})")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def largest_error(actual: Any, expected: Any) -> float:
    """Largest absolute difference of two arrays or tensors of one shape; 0 where they are empty, NaN where one is."""
    a, b = (np.asarray(values, dtype=np.float64) for values in (actual, expected))
    if a.shape != b.shape:
        raise ValueError(f"Got shapes {a.shape} and {b.shape}.")
    return float(np.max(np.abs(a - b), initial=0.0))


def worst(*errors: float) -> float:
    """The largest; NaN where one is NaN."""
    return float(np.max(np.asarray(errors), initial=0.0))


def match_boxes(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.int64]:
    """For n boxes [n,4] and n expected ones: which expected box each stands for, one to one, nearest overall."""
    from scipy.optimize import linear_sum_assignment

    distances = np.abs(actual[:, None].astype(np.float64) - expected[None]).max(axis=2)
    _, columns = linear_sum_assignment(distances)
    return np.asarray(columns, np.int64)
