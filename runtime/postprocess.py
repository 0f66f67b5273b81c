"""The steps between the graphs and after them, as the PyTorch model does them (released SeqNet / PS-ARM rules).

P proposals, k kept of one image, D embedding dimensions. Boxes are float32 [k,4] xyxy in pixels of the resized image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from psarm.runtime.manifest import Thresholds
from psarm.runtime.nms import nms


@dataclass(frozen=True, eq=False)
class Kept:
    """People of one image on their way through the pipeline."""

    boxes: NDArray[np.float32]  # [k,4]
    scores: NDArray[np.float32]  # [k]
    embeddings: NDArray[np.float32]  # [k,D]


def select_proposals(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], thresholds: Thresholds
) -> NDArray[np.int64]:
    """First-head boxes [P,4] and scores [P] → rows of those that go on to the next graph, best first."""
    rows = np.flatnonzero(_candidates(boxes, scores, thresholds))
    return rows[nms(boxes[rows], scores[rows], thresholds.detection_nms)[: thresholds.detections_per_image]]


def clip_boxes(boxes: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Boxes [k,4] cut to an image of the given size."""
    return np.clip(boxes, np.float32(0), np.asarray([width, height, width, height], np.float32))


def sift(people: Kept, thresholds: Thresholds) -> Kept:
    """Score filter again, and boxes without width or height left out: refined out of the image, then clipped.

    Comes before a given box joins, which stays whatever the threshold.
    """
    keep = _candidates(people.boxes, people.scores, thresholds)
    return Kept(people.boxes[keep], people.scores[keep], people.embeddings[keep])


def weight_embeddings(people: Kept) -> Kept:
    """Embeddings multiplied by the detection score (confidence-weighted similarity)."""
    return Kept(people.boxes, people.scores, people.embeddings * people.scores[:, None])


def put_first(people: Kept, box: NDArray[np.float32], embedding: NDArray[np.float32]) -> Kept:
    """A given box [4] with its embedding [D] in front with score 1.

    In front, because the sort of the final NMS is stable: it stays first beside a detection whose score rounds to 1.
    """
    return Kept(
        np.concatenate([box[None], people.boxes]),
        np.concatenate([np.ones(1, np.float32), people.scores]),
        np.concatenate([embedding[None], people.embeddings]),
    )


def final_nms(people: Kept, thresholds: Thresholds) -> Kept:
    """NMS on the refined boxes, at most `detections_per_image`, best first."""
    keep = nms(people.boxes, people.scores, thresholds.final_nms)[: thresholds.detections_per_image]
    return Kept(people.boxes[keep], people.scores[keep], people.embeddings[keep])


def scale_boxes(
    boxes: NDArray[np.float32], from_size: tuple[int, int], to_size: tuple[int, int]
) -> NDArray[np.float32]:
    """Boxes [k,4] from an image of one (height, width) to the same image of another."""
    ratio_y, ratio_x = (np.float32(new) / np.float32(old) for new, old in zip(to_size, from_size, strict=True))
    return boxes * np.asarray([ratio_x, ratio_y, ratio_x, ratio_y], np.float32)


def _candidates(boxes: NDArray[np.float32], scores: NDArray[np.float32], thresholds: Thresholds) -> NDArray[np.bool_]:
    """What scores above the threshold and has some width and height; bool [k]."""
    sides = boxes[:, 2:] - boxes[:, :2]
    keep: NDArray[np.bool_] = (scores > thresholds.score) & (sides >= thresholds.min_box_side).all(axis=1)
    return keep
