"""RoIAlign as matrix products against torchvision's operator."""

import pytest
import torch
from torchvision.ops import roi_align

from psarm.export.separable_roi_align import SeparableRoIAlign, cell_weights

SIZES = [(1, 4, 9), (3, 7, 5), (2, 1, 1), (2, 20, 3)]
LIMITS = {torch.float64: 1e-12, torch.float32: 2e-5}


def special(height, width):
    """Boxes at the borders and outside, without area and turned round, tiny and huge, in pixels."""
    right, bottom = 16.0 * width, 16.0 * height
    return [
        [0, 0, right, bottom],
        [right - 3, 0, right, bottom],
        [0, bottom - 1, right, bottom],
        [right - 16, bottom - 16, right - 16, bottom - 16],
        [0, 0, 0, 0],
        [right, bottom, right, bottom],
        [-16, -16, -16, -16],
        [-24, -24, -20, -20],
        [-20, -30, right + 50, 9],
        [9, 9, 3, 2],
        [1e-3, 1e-3, 2e-3, 2e-3],
        [right + 16, 0, right + 30, 20],
        [-1e5, -1e5, 1e5, 1e5],
        [-1e5, 0, -1e4, bottom],
    ]


def sample(images, height, width, dtype):
    """Features, boxes image after image, and each box's image."""
    generator = torch.Generator().manual_seed(height)
    features = torch.randn(images, 3, height, width, generator=generator, dtype=dtype)
    extent = 16 * torch.tensor([width, height, width, height], dtype=dtype)
    corners = torch.rand(images, 30, 2, 2, generator=generator, dtype=dtype) * 1.6 - 0.3
    ordinary = torch.cat([corners.amin(dim=2), corners.amax(dim=2)], dim=2) * extent
    borders = torch.tensor(special(height, width), dtype=dtype).expand(images, -1, 4)
    boxes = torch.cat([ordinary, borders], dim=1)
    return features, boxes.flatten(0, 1), torch.arange(images).repeat_interleave(boxes.shape[1])


def expected(features, boxes, indices, shape):
    rois = torch.cat([indices[:, None].to(boxes.dtype), boxes], dim=1)
    return roi_align(features, rois, shape, 1 / 16, sampling_ratio=2, aligned=False)


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("shape", [(7, 5), (14, 14), (1, 1)])
@pytest.mark.parametrize("images, height, width", SIZES)
def test_boxes_in_the_images_order(images, height, width, shape, dtype):
    features, boxes, indices = sample(images, height, width, dtype)
    actual = SeparableRoIAlign(per_image=True)(features, boxes, indices, *shape, 1 / 16)
    torch.testing.assert_close(actual, expected(features, boxes, indices, shape), rtol=0, atol=LIMITS[dtype])


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("images, height, width", SIZES)
def test_boxes_in_any_order(images, height, width, dtype):
    features, boxes, indices = sample(images, height, width, dtype)
    for some in (
        torch.randperm(len(boxes), generator=torch.Generator().manual_seed(0)),
        torch.tensor([len(boxes) - 9]),
    ):
        actual = SeparableRoIAlign(per_image=False)(features, boxes[some], indices[some], 7, 5, 1 / 16)
        wanted = expected(features, boxes[some], indices[some], (7, 5))
        torch.testing.assert_close(actual, wanted, rtol=0, atol=LIMITS[dtype])


def test_samples_at_the_border_fall_on_torchvisions_side():
    """Float32 boxes whose samples meet the two limits -1 and h to within rounding: equal, not off by a whole sample."""
    cells, generator = 12, torch.Generator().manual_seed(0)
    features = 1 + torch.rand(1, 2, cells, cells, generator=generator)
    size = 1 + 20 * torch.rand(4000, generator=generator)
    number = torch.randint(14, (4000,), generator=generator)  # 7 bins of 2 samples
    limit = torch.where(torch.arange(4000) % 2 == 0, -1.0, float(cells))
    start = limit - (number + 0.5) * size / 14
    boxes = 16 * torch.stack([start, start, start + size, start + size], dim=1)
    indices = torch.zeros(4000, dtype=torch.int64)
    actual = SeparableRoIAlign(per_image=True)(features, boxes, indices, 7, 7, 1 / 16)
    torch.testing.assert_close(actual, expected(features, boxes, indices, (7, 7)), rtol=0, atol=2e-5)


def test_weights_sum_to_the_share_of_samples_inside():
    start, end = torch.tensor([2.0, -8.0, 30.0]), torch.tensor([9.0, 6.0, 40.0])
    weights = cell_weights(start, end, 7, 12)
    assert weights.shape == (3, 7, 12)
    torch.testing.assert_close(weights[0].sum(dim=1), torch.ones(7))
    assert weights[1].sum(dim=1).tolist() == [0, 0, 0, 0.5, 1, 1, 1]  # samples from -1 on count
    assert not weights[2].any()
