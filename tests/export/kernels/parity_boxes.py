"""RoIAlign, NMS and preprocessing in Triton's interpreter; run by `test_kernels.py` in a process of its own."""

import numpy as np
import pytest
import torch

from psarm.export.kernels import reference
from psarm.export.kernels.frames import normalise_frames
from psarm.export.kernels.roi_align import roi_align
from psarm.export.kernels.suppression import nms
from psarm.runtime.manifest import Preprocessing
from psarm.runtime.preprocess import make_batch

TYPES = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
"""Tolerance relative to the largest value: the rounding of the answer, twice that of bfloat16's 8 bits."""
LAYOUTS = (torch.contiguous_format, torch.channels_last)


def draw(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def rois(count, seed=0):
    corners = draw(count, 2, seed=seed) * 150 - 40  # some reach out of a map of 7 x 9 cells of 16 pixels
    return torch.cat([corners, corners + draw(count, 2, seed=seed + 1) * 90], dim=1)


BIAS = draw(5, seed=9)


@pytest.mark.parametrize(
    ("dtype", "layout", "bias"),
    [
        (torch.float32, LAYOUTS[0], None),
        (torch.float32, LAYOUTS[1], BIAS),
        (torch.float16, LAYOUTS[0], BIAS),
        (torch.bfloat16, LAYOUTS[1], None),
    ],
    ids=str,
)
def test_roi_align(dtype, layout, bias):
    features = (draw(2, 5, 7, 9) - 0.5).to(dtype).contiguous(memory_format=layout)
    odd = [[40.0, 40, 40, 40], [30, 20, 30.5, 90], [60, 60, 20, 10], [0, 0, 144, 112]]
    boxes, images = torch.cat([rois(3), torch.tensor(odd)]), torch.arange(7) % 2
    ours = roi_align(features, boxes, images, (3, 5), 1 / 16, bias)
    theirs = reference.roi_align(features.float(), boxes, images, (3, 5), 1 / 16, bias)
    assert ours.dtype == dtype and ours.is_contiguous(memory_format=layout)
    torch.testing.assert_close(ours.float(), theirs, rtol=0, atol=TYPES[dtype])


def test_roi_align_of_a_part_of_a_map():
    """The maps of two heads lie beside each other; what neither layout fits is read by its strides."""
    features = draw(1, 6, 4, 4).contiguous(memory_format=torch.channels_last)[:, 2:5]
    boxes, images = rois(3), torch.zeros(3, dtype=torch.int64)
    ours = roi_align(features, boxes, images, (2, 2), 1 / 16)
    torch.testing.assert_close(ours, reference.roi_align(features, boxes, images, (2, 2), 1 / 16))


def test_roi_align_where_there_is_nothing():
    features, bias = draw(1, 3, 1, 1), torch.tensor([1.0, 2, 3])
    assert roi_align(features, torch.empty(0, 4), torch.empty(0, dtype=torch.int64), (2, 2), 1.0).shape == (0, 3, 2, 2)
    boxes = torch.tensor([[0.0, 0, 5, 5], [0, 0, 5, 5], [float("nan"), 0, 5, 5]])
    answer = roi_align(features, boxes, torch.tensor([-1, 1, 0]), (2, 2), 1.0, bias)
    assert torch.equal(answer, bias[:, None, None].expand(3, 3, 2, 2))


def crowd(images, count, extent):
    corners = draw(images, count, 2) * extent
    return torch.cat([corners, corners + 20 + 60 * draw(images, count, 2, seed=1)], dim=2)


def chain(count):
    """Each box overlaps its neighbours only: every sweep settles one box more."""
    left = 2.0 * torch.arange(count)[:, None]
    return torch.cat([left, torch.zeros(count, 1), left + 10, torch.full((count, 1), 10.0)], dim=1)[None]


@pytest.mark.parametrize(
    "boxes",
    [
        *(crowd(2, count, 40) for count in (1, 32, 33)),
        crowd(1, 300, 400),
        crowd(2, 20, 30).repeat_interleave(4, dim=1),
        chain(70),
    ],
    ids=lambda boxes: "x".join(map(str, boxes.shape)),
)
def test_nms(boxes):
    valid = draw(*boxes.shape[:2], seed=2) > 0.1
    for limit in (3, 300):
        for ours, theirs in zip(nms(boxes, valid, 0.5, limit), reference.nms(boxes, valid, 0.5, limit), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("threshold", [0.4, 0.5, 0.7])
def test_only_a_larger_overlap_than_the_threshold_suppresses(threshold):
    boxes = torch.tensor([[[0.0, 0, 10, 1], [0, 0, width, 1]] for width in (4.0, 5.0, 7.0, 7.1)])
    valid = torch.ones(4, 2, dtype=torch.bool)
    assert torch.equal(nms(boxes, valid, threshold, 2)[0], reference.nms(boxes, valid, threshold, 2)[0])


def test_nms_of_odd_boxes():
    """No area, the same point twice, turned round, far outside; nothing valid, no boxes, no images."""
    point, square, turned, everything = [5.0, 5, 5, 5], [0.0, 0, 10, 10], [9.0, 9, 3, 2], [-1e6, -1e6, 1e6, 1e6]
    rows = [point, point, square, turned, [0.0, 0, 10, 0], everything, square]
    boxes, valid = torch.tensor([rows, rows]), torch.tensor([[True] * 7, [False] * 7])
    kept, counts = nms(boxes, valid, 0.5, 7)
    assert kept[0].tolist() == [0, 1, 2, 3, 4, 5, -1]  # as torchvision's: 0 / 0 suppresses nothing
    assert torch.equal(kept, reference.nms(boxes, valid, 0.5, 7)[0])
    assert counts[1] == 0 and (kept[1] == -1).all()
    for images, count in ((1, 0), (0, 3)):
        kept, counts = nms(torch.empty(images, count, 4), torch.empty(images, count, dtype=torch.bool), 0.5, 2)
        assert kept.shape == (images, 2) and counts.tolist() == [0] * images


@pytest.mark.parametrize(
    ("shape", "side", "dtype", "layout"),
    [
        ((2, 13, 17), 8, torch.float32, LAYOUTS[0]),
        ((1, 13, 17), 8, torch.bfloat16, LAYOUTS[1]),
        ((1, 6, 9), 11, torch.float16, LAYOUTS[1]),
        ((1, 1, 1), 1, torch.float32, LAYOUTS[1]),
    ],
    ids=str,
)
def test_normalise_frames(shape, side, dtype, layout):
    """As the runtime's preprocessing, which cv2 does; shrunk, enlarged and one pixel."""
    batch = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    rule = Preprocessing(side, 64, 8, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "RGB", (0.0, 1.0), "bilinear")
    expected = make_batch(list(batch), rule)
    wanted, resized = torch.from_numpy(expected.images), tuple(expected.image_sizes[0].tolist())
    out = torch.full(wanted.shape, 9.0, dtype=dtype).contiguous(memory_format=layout)
    for function in (normalise_frames, reference.normalise_frames):
        assert function(torch.from_numpy(batch), resized, rule.mean, rule.std, out.fill_(9.0)) is out
        torch.testing.assert_close(out.float(), wanted, rtol=0, atol=max(3 * TYPES[dtype], 1e-5))


def test_normalise_frames_into_a_part_of_a_batch():
    """Frames of other sizes share a batch: each is written into its own image, and nothing else is."""
    out = torch.full((3, 3, 8, 8), 9.0)
    normalise_frames(torch.zeros(1, 4, 4, 3, dtype=torch.uint8), (5, 6), (0.5,) * 3, (0.5,) * 3, out[1:2])
    assert (out[1, :, :5, :6] == -1).all() and (out[1, :, 5:] == 0).all() and (out[1, :, :, 6:] == 0).all()
    assert (out[0] == 9).all() and (out[2] == 9).all()


def test_normalise_frames_refuses_what_does_not_fit():
    frame = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"do not fit into the shape \(1, 3, 4, 9\)"):
        normalise_frames(frame, (5, 6), (0.5,) * 3, (0.5,) * 3, torch.empty(1, 3, 4, 9))
    with pytest.raises(ValueError, match="sides of up to 32767"):
        normalise_frames(frame, (5, 40000), (0.5,) * 3, (0.5,) * 3, torch.empty(1, 3, 4, 9))
