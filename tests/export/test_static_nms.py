"""NMS by sweeps against torchvision's: equal as far as it says that it is settled, and mostly it is."""

import pytest
import torch
from torchvision.ops import nms

from psarm.export.operators import nms_mask
from psarm.export.static_nms import StaticNms, overlaps


def torchvision_mask(boxes, valid, threshold):
    mask = torch.zeros_like(valid)
    for image in range(len(boxes)):
        [index] = torch.where(valid[image])
        ranks = torch.arange(len(index), 0, -1, dtype=boxes.dtype)
        mask[image, index[nms(boxes[image, index], ranks, threshold)]] = True
    return mask


def crowd(images, count, extent, seed=0, dtype=torch.float32):
    """Boxes of 20 to 80 pixels somewhere in a square: the smaller the square, the denser."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(images, count, 2, generator=generator, dtype=dtype) * extent
    return torch.cat([corners, corners + 20 + 60 * torch.rand(images, count, 2, generator=generator, dtype=dtype)], 2)


def people(images, count, seed=0):
    """Boxes that scatter around twenty people, as those of a trained network do."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(images, 20, 2, generator=generator) * 800
    person = torch.randint(20, (images, count), generator=generator)
    corner = corners.gather(1, person[..., None].expand(-1, -1, 2))
    return torch.cat([corner, corner + torch.tensor([60.0, 160.0])], dim=2) + 12 * torch.randn(
        images, count, 4, generator=generator
    )


def chain(count, step=2.0):
    """Each box overlaps its neighbours only, so that each box's answer hangs on the one before."""
    left = step * torch.arange(count)[:, None]
    return torch.cat([left, torch.zeros(count, 1), left + 10, torch.full((count, 1), 10.0)], dim=1)[None]


@pytest.mark.parametrize("threshold", [0.7, 0.5, 0.4])
@pytest.mark.parametrize(
    "boxes",
    [
        *(crowd(2, 300, extent) for extent in (10, 50, 200, 1000)),
        crowd(1, 1000, 40),
        people(2, 500),
        crowd(3, 1, 50),
        crowd(2, 40, 30).repeat_interleave(5, dim=1),  # five of each
        crowd(2, 100, 60).double(),
    ],
    ids=lambda boxes: "x".join(map(str, boxes.shape)),
)
def test_equals_torchvision(boxes, threshold):
    valid = torch.rand(boxes.shape[:2], generator=torch.Generator().manual_seed(1)) > 0.1
    kept, final = StaticNms(threshold, 20)(boxes, valid)
    assert final.all()
    assert torch.equal(kept, torchvision_mask(boxes, valid, threshold))
    assert torch.equal(kept, nms_mask(boxes, valid, threshold, boxes.shape[1]))


@pytest.mark.parametrize("sweeps", [1, 2, 3, 7])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_final_is_right(sweeps, seed):
    boxes = torch.cat([crowd(3, 200, 30, seed), people(3, 200, seed)], dim=1)
    valid = torch.ones(3, 400, dtype=torch.bool)
    kept, final = StaticNms(0.5, sweeps)(boxes, valid)
    assert torch.equal(final, final.cummin(dim=1).values)  # the first ones, up to some box
    assert final[:, 0].all()
    assert torch.equal(kept[final], torchvision_mask(boxes, valid, 0.5)[final])
    if sweeps <= 3:
        assert not final.all(dim=1).any()


@pytest.mark.parametrize("sweeps", [1, 5, 20, 64, 65])
def test_a_chain_needs_a_sweep_a_link(sweeps):
    """The worst case: boxes 1, 3, 5, … of 65 survive, and each sweep settles one more."""
    boxes, valid = chain(65), torch.ones(1, 65, dtype=torch.bool)
    kept, final = StaticNms(0.5, sweeps)(boxes, valid)
    assert final.sum() == (sweeps if sweeps < 65 else 65)
    assert torch.equal(kept[final], (torch.arange(65) % 2 == 0)[None][final])


def test_images_are_settled_each_for_itself():
    boxes = torch.cat([chain(50), chain(50, step=20.0), crowd(1, 50, 400)])
    _, final = StaticNms(0.5, 10)(boxes, torch.ones(3, 50, dtype=torch.bool))
    assert final.all(dim=1).tolist() == [False, True, True]


def test_only_a_larger_overlap_than_the_threshold_suppresses():
    boxes = torch.tensor([[[0.0, 0, 10, 1], [0, 0, width, 1]] for width in (4.0, 5.0, 7.0, 7.1)])
    valid = torch.ones(4, 2, dtype=torch.bool)
    for threshold in (0.4, 0.5, 0.7):
        for dtype in (torch.float32, torch.float64):
            kept, _ = StaticNms(threshold, 3)(boxes.to(dtype), valid)
            assert torch.equal(kept, torchvision_mask(boxes.to(dtype), valid, threshold))


def test_degenerate_boxes():
    """No area, the same point twice, turned round, infinitely far."""
    rows = [
        [5.0, 5, 5, 5],
        [5, 5, 5, 5],
        [0, 0, 10, 10],
        [9, 9, 3, 2],
        [0, 0, 10, 0],
        [1e30, 0, 1e30, 5],
        [0, 0, 10, 10],
    ]
    boxes, valid = torch.tensor([rows]), torch.ones(1, len(rows), dtype=torch.bool)
    for threshold in (0.0, 0.5, 0.7):
        kept, final = StaticNms(threshold, 9)(boxes, valid)
        assert final.all()
        assert torch.equal(kept, torchvision_mask(boxes, valid, threshold))
    assert overlaps(boxes).isfinite().all()


def test_nothing_valid():
    kept, final = StaticNms(0.5, 4)(crowd(2, 30, 40), torch.zeros(2, 30, dtype=torch.bool))
    assert not kept.any() and final.all()
