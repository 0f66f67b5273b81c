"""How near an engine's people are to the yardstick's in float64, and whether the graphs' algebra is exact.

n people found, m expected. Boxes are float [n,4] xyxy.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from psarm.benchmarks.yardstick import Frame, Reference
from psarm.evaluation.pairs import paired_iou
from psarm.evaluation.types import Floating, ImageDetections
from psarm.export.comparison import largest_error
from psarm.export.graphs import DetectGraph, ReidGraph

SAME_PERSON = 0.5
"""IoU from which two boxes are one person's."""


@dataclass(frozen=True)
class Parity:
    """An engine's answer on one frame beside the expected one."""

    people: int
    expected: int
    matched: int
    boxes: float | None
    """Largest error of a coordinate of a matched box, pixels; None, as those below, where nobody is matched."""
    scores: float | None
    embeddings: float | None
    """Largest error of a number of a matched, weighted embedding."""
    snr_db: float | None
    """Of the unit embeddings of the expected boxes: 10 log10 of their power over that of the errors."""

    @property
    def match_rate(self) -> float:
        """Share of all people, found or expected, who are both; 1 where there are none."""
        everybody = self.people + self.expected - self.matched
        return self.matched / everybody if everybody else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "match_rate": self.match_rate}


def compare(found: ImageDetections, expected: ImageDetections, snr_db: float | None) -> Parity:
    """Match people by their boxes, one to one, and compare those."""
    ours, theirs = match(found.boxes, expected.boxes)
    errors = {
        name: largest_error(getattr(found, name)[ours], getattr(expected, name)[theirs]) if len(ours) else None
        for name in ("boxes", "scores", "embeddings")
    }
    return Parity(len(found.scores), len(expected.scores), len(ours), **errors, snr_db=snr_db)


def match(boxes: Floating, expected: Floating) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of boxes [n,4] and of expected ones [m,4] that are one person, paired for the greatest overlap overall."""
    rows, columns = (grid.ravel() for grid in np.indices((len(boxes), len(expected))))
    overlaps = paired_iou(boxes[rows], expected[columns]).reshape(len(boxes), len(expected))
    ours, theirs = linear_sum_assignment(-overlaps)
    same = overlaps[ours, theirs] >= SAME_PERSON
    return ours[same], theirs[same]


def snr(actual: Floating, expected: Floating) -> float | None:
    """Signal-to-noise ratio in decibels; None where there is no signal or no noise at all."""
    signal = float(np.square(expected.astype(np.float64)).sum())
    noise = float(np.square(actual.astype(np.float64) - expected).sum())
    return 10 * float(np.log10(signal / noise)) if signal > 0 and noise > 0 else None


@torch.no_grad()
def algebra_errors(reference: Reference, frame: Frame) -> dict[str, float]:
    """Largest errors of the graphs' modules in float64 beside the model in float64: boxes (px), scores, embeddings.

    Compared are all proposals, as the detection head refines them, and the embeddings of the best of them.
    """
    model = reference.model
    batch, features = model._features([reference.image(frame)])
    proposals, _ = model.rpn(batch, {"map": features})
    scores, deltas = model.roi_heads.score(features, proposals)
    [boxes] = model.roi_heads.decode_foreground(deltas, proposals, batch.image_sizes)
    graph = DetectGraph(model).eval()
    found, found_scores, counts, shared = graph(batch.tensors, torch.tensor(batch.image_sizes))[:4]
    if int(counts) != len(boxes):
        raise ValueError(f"The graph has {int(counts)} proposals in float64, the model {len(boxes)}.")
    some = boxes[scores.argsort(descending=True)[:4]]
    [embeddings] = model.roi_heads.embed(features, [some])
    _, found_embeddings = ReidGraph(model).eval()(shared, some, torch.zeros(len(some), dtype=torch.int64))
    return {
        "boxes": largest_error(found[0, : len(boxes)], boxes),
        "scores": largest_error(found_scores[0, : len(boxes)], scores),
        "embeddings": largest_error(found_embeddings, embeddings),
    }
