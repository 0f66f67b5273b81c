import numpy as np
import pytest
import torch
from torchvision.ops import nms as torchvision_nms

from psarm.runtime.nms import nms


def random_boxes(rng, count, side=100.0):
    corners = rng.uniform(0, side, (count, 2, 2)).astype(np.float32)
    return np.concatenate([corners.min(1), corners.max(1)], axis=1)


def expected(boxes, scores, threshold):
    return torchvision_nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold).numpy()


@pytest.mark.parametrize("count", [0, 1, 2, 7, 60, 300])
@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.5, 1.0])
def test_equals_torchvision_on_random_boxes(count, threshold):
    rng = np.random.default_rng(count)
    for _ in range(5):
        boxes, scores = random_boxes(rng, count), rng.random(count, np.float32)
        np.testing.assert_array_equal(nms(boxes, scores, threshold), expected(boxes, scores, threshold))


def test_equal_scores_keep_their_order():
    rng = np.random.default_rng(0)
    for _ in range(20):
        boxes = random_boxes(rng, 80)
        scores = rng.integers(0, 4, 80).astype(np.float32) / 4
        np.testing.assert_array_equal(nms(boxes, scores, 0.4), expected(boxes, scores, 0.4))


def test_integer_boxes_whose_overlap_is_exactly_the_threshold():
    rng = np.random.default_rng(1)
    for threshold in (0.2, 0.4, 0.5):
        for _ in range(20):
            boxes = np.rint(random_boxes(rng, 60, side=6))
            scores = rng.random(60, np.float32)
            np.testing.assert_array_equal(nms(boxes, scores, threshold), expected(boxes, scores, threshold))


def test_boxes_without_area_suppress_nothing():
    boxes = np.array([[5, 5, 5, 5], [5, 5, 5, 5], [0, 0, 9, 9], [3, 0, 3, 9]], np.float32)
    scores = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
    np.testing.assert_array_equal(nms(boxes, scores, 0.5), expected(boxes, scores, 0.5))
    assert len(nms(boxes, scores, 0.5)) == 4
