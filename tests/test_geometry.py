"""Sizes against torchvision's transform, which the model uses."""

import numpy as np
import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from psarm.geometry import resized_size


def test_sizes_equal_torchvision_for_many_shapes():
    rng = np.random.default_rng(0)
    for min_size, max_size, count in ((900, 1500, 50), (96, 160, 300), (320, 533, 200)):
        transform = GeneralizedRCNNTransform(min_size, max_size, [0.0] * 3, [1.0] * 3).eval()
        for _ in range(count):
            height, width = (int(2 ** rng.uniform(4, 10)) for _ in range(2))
            resized, _ = transform.resize(torch.zeros(1, height, width))
            assert resized_size(height, width, min_size, max_size) == tuple(resized.shape[1:])


def test_an_extreme_aspect_keeps_one_pixel():
    assert resized_size(1, 20_000, 900, 1500) == (1, 1500)
