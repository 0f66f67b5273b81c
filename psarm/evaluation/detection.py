"""Detection recall and average precision at IoU 0.5, as the released person search code measures them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from psarm.errors import UsageError
from psarm.evaluation.pairs import first_best, paired_iou, same_image_pairs
from psarm.evaluation.protocol import SearchProtocol
from psarm.evaluation.types import DetectionMetrics, DetectionSet, Floating

IOU_THRESHOLD = 0.5
SCORE_THRESHOLD = 0.01


def evaluate_detection(
    protocol: SearchProtocol, detections: DetectionSet, score_threshold: float = SCORE_THRESHOLD
) -> DetectionMetrics:
    """Recall and AP over all gallery images.

    A detection is true when its best-overlapping ground truth has it as best-overlapping detection in turn, at an IoU
    of at least 0.5 (of equal overlaps the earlier counts). AP is the area under precision over recall as scikit-learn's
    `average_precision_score` has it, scaled by recall. Without detections both are 0.

    Args:
        protocol: the gallery's ground truth.
        detections: detections of every gallery image, in the protocol's order.
        score_threshold: lower scores are ignored.

    Raises:
        UsageError: the detections are not of as many images as the gallery has.
    """
    images = len(protocol.gallery_names)
    if len(detections.counts) != images:
        raise UsageError(f"the detections are of {len(detections.counts)} images, but the gallery has {images}.")
    kept = detections.at_least(score_threshold)
    truths, found = same_image_pairs(protocol.gt_images, kept.counts)
    overlaps = paired_iou(protocol.gt_boxes[truths], kept.boxes[found])
    best_of_truth = first_best(truths, overlaps)
    best_of_detection = first_best(found, overlaps)
    mutual = np.intersect1d(best_of_truth, best_of_detection)
    matched = mutual[overlaps[mutual] >= IOU_THRESHOLD]
    labels = np.zeros(len(kept.scores), bool)
    labels[found[matched]] = True
    recall = len(matched) / len(protocol.gt_boxes)
    return DetectionMetrics(recall=recall, ap=average_precision(labels, kept.scores) * recall)


def average_precision(labels: NDArray[np.bool_], scores: Floating) -> float:
    """Sum over distinct scores of precision times gain in recall; equal scores enter together; 0 without positives.

    Args:
        labels: bool [n], which items are positive.
        scores: [n].
    """
    positives = int(np.count_nonzero(labels))
    if positives == 0:
        return 0.0
    order = np.argsort(-scores, kind="stable")
    true = np.cumsum(labels[order])
    last_of_score = np.append(np.diff(scores[order]) != 0, True)
    true_at = true[last_of_score]
    precision = true_at / (np.flatnonzero(last_of_score) + 1)
    return float(np.sum(np.diff(true_at, prepend=0) * precision) / positives)
