import cv2
import numpy as np
import pytest

from psarm.benchmarks.histogram import histogram_embeddings
from psarm.errors import UsageError


def test_equals_counting_pixels():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    boxes = np.array([[3.4, 5.5, 30.2, 39.9], [-10, -10, 12, 8], [50, 20, 90, 80]], np.float32)
    crops = [image[6:40, 3:30], image[0:8, 0:12], image[20:40, 50:60]]
    got = histogram_embeddings(image, boxes)
    assert got.shape == (3, 256) and got.dtype == np.float32
    for row, crop in zip(got, crops, strict=True):
        expected = np.zeros((16, 4, 4))
        for h, s, v in cv2.cvtColor(crop, cv2.COLOR_BGR2HSV).reshape(-1, 3).astype(int):
            expected[h * 16 // 180, s // 64, v // 64] += 1
        np.testing.assert_allclose(row, expected.ravel() / np.linalg.norm(expected), atol=1e-6)


def test_colours_tell_apart_whatever_the_size():
    image = np.zeros((50, 100, 3), np.uint8)
    image[:, :50], image[:, 50:] = (200, 30, 30), (30, 30, 200)
    blue, small_blue, red = histogram_embeddings(image, np.array([[0, 0, 40, 50], [5, 5, 10, 20], [60, 0, 99, 50]]))
    assert blue @ small_blue == pytest.approx(1) and blue @ red == 0


def test_no_boxes_boxes_outside_and_wrong_images():
    image = np.zeros((10, 20, 3), np.uint8)
    assert histogram_embeddings(image, np.zeros((0, 4))).shape == (0, 256)
    outside = histogram_embeddings(image, np.array([[-9, -9, -5, -5], [30, 30, 40, 40], [5, 5, 5, 5]]))
    np.testing.assert_allclose(np.linalg.norm(outside, axis=1), 1)
    for wrong in (image[..., 0], image.astype(np.float32), image[:0]):
        with pytest.raises(UsageError, match="uint8"):
            histogram_embeddings(wrong, np.zeros((0, 4)))
