"""Pairs of ground-truth boxes and detections of the same image, and their overlap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from psarm.evaluation.types import Floating


def same_image_pairs(
    images: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pair every ground-truth box with every detection of its image.

    Args:
        images: int64 [T], the image of each ground-truth box.
        counts: int64 [G], detections in each image; detections lie one image after the other.

    Returns:
        Two int64 [P]: ground-truth box and detection of each pair, by rising box, then rising detection.
    """
    starts = np.cumsum(counts) - counts
    partners = counts[images]
    truths = np.repeat(np.arange(len(images)), partners)
    within = np.arange(len(truths)) - np.repeat(np.cumsum(partners) - partners, partners)
    return truths, starts[images[truths]] + within


def paired_iou(first: Floating, second: Floating) -> NDArray[np.float64]:
    """Intersection over union of row i of one with row i of the other, both [P,4] xyxy; float64 [P], 0 without area."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    intersection = np.prod(np.maximum(sides, 0), axis=1)
    union = np.prod(a[:, 2:] - a[:, :2], axis=1) + np.prod(b[:, 2:] - b[:, :2], axis=1) - intersection
    overlap: NDArray[np.float64] = np.divide(intersection, union, out=np.zeros(len(a)), where=union > 0)
    return overlap


def first_best(groups: NDArray[np.int64], values: Floating) -> NDArray[np.int64]:
    """Index of the largest value of each group that occurs, by rising group; among equal values the earliest.

    Args:
        groups: int64 [P], the group of each value.
        values: [P].
    """
    order = np.lexsort((-values, groups))  # stable: equal values keep their order
    first = np.ones(len(order), bool)
    first[1:] = groups[order][1:] != groups[order][:-1]
    return order[first]
