"""The two operators in PyTorch and in ONNX Runtime against obvious loops."""

import warnings

import onnxruntime
import pytest
import torch
from torch import nn
from torch.export import Dim
from torchvision.ops import box_iou, roi_align

from psarm.export.operators import align_rois, float32_below, nms_mask, translations

LIMIT = 12


class Nms(nn.Module):
    def __init__(self, threshold):
        super().__init__()
        self.threshold = threshold

    def forward(self, boxes, valid):
        return nms_mask(boxes, valid, self.threshold, LIMIT)


class Align(nn.Module):
    def forward(self, features, boxes, batch_indices):
        return align_rois(features, boxes, batch_indices, 7, 5, 1 / 16)


def session(module, inputs, shapes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about itself
        program = torch.onnx.export(
            module.eval(),
            inputs,
            dynamo=True,
            opset_version=20,
            dynamic_shapes=shapes,
            custom_translation_table=translations(),
            verbose=False,
        )
    return onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module", params=[0.7, 0.5, 0.4])
def onnx_nms(request):
    """A threshold, and the operator with it as a function of boxes and validity."""
    inputs = (torch.rand(2, 9, 4), torch.ones(2, 9, dtype=torch.bool))
    sizes = {0: Dim("N", min=1, max=64), 1: Dim("K", min=1, max=9999)}
    run = session(Nms(request.param), inputs, {"boxes": sizes, "valid": sizes})

    def call(boxes, valid):
        return torch.from_numpy(run.run(None, {"boxes": boxes.numpy(), "valid": valid.numpy()})[0])

    return request.param, call


def slow_nms(boxes, valid, threshold):
    """One box after another; a float32 IoU against the float64 threshold, as torchvision."""
    mask = torch.zeros_like(valid)
    for image in range(len(boxes)):
        kept = []
        for k in range(boxes.shape[1]):
            overlaps = [float(box_iou(boxes[image, k : k + 1], boxes[image, j : j + 1])) for j in kept]
            if valid[image, k] and len(kept) < LIMIT and not any(overlap > threshold for overlap in overlaps):
                kept.append(k)
        mask[image, kept] = True
    return mask


@pytest.mark.parametrize("images, candidates", [(1, 1), (1, 60), (3, 31)])
@pytest.mark.parametrize("crowd", [20, 80, 400])
def test_nms(onnx_nms, images, candidates, crowd):
    threshold, call = onnx_nms
    generator = torch.Generator().manual_seed(candidates)
    corners = torch.rand(images, candidates, 2, generator=generator) * crowd
    boxes = torch.cat([corners, corners + 5 + 60 * torch.rand(images, candidates, 2, generator=generator)], dim=2)
    valid = torch.rand(images, candidates, generator=generator) > 0.2
    expected = slow_nms(boxes, valid, threshold)
    assert torch.equal(nms_mask(boxes, valid, threshold, LIMIT), expected)
    assert torch.equal(call(boxes, valid), expected)


def test_nms_when_the_overlap_is_the_threshold(onnx_nms):
    """Only a larger overlap suppresses, to the last bit: IoU of 2/5, 1/2 and 7/10 in float32 beside 0.4, 0.5, 0.7."""
    threshold, call = onnx_nms
    boxes = torch.tensor([[[0.0, 0, 10, 1], [0, 0, width, 1]] for width in (4.0, 5.0, 7.0, 7.1)])
    valid = torch.ones(4, 2, dtype=torch.bool)
    expected = slow_nms(boxes, valid, threshold)
    assert torch.equal(nms_mask(boxes, valid, threshold, LIMIT), expected)
    assert torch.equal(call(boxes, valid), expected)


def test_nms_of_nothing_and_of_empty_boxes(onnx_nms):
    threshold, call = onnx_nms
    boxes = torch.tensor([[[0.0, 0, 10, 10], [5, 5, 5, 5], [1, 1, 10, 10]]]).repeat(3, 1, 1)
    valid = torch.tensor([[False, False, False], [True, True, True], [False, False, True]])
    expected = torch.tensor([[False, False, False], [True, True, False], [False, False, True]])
    assert torch.equal(nms_mask(boxes, valid, threshold, LIMIT), expected)
    assert torch.equal(call(boxes, valid), expected)


@pytest.mark.parametrize("value", [0.4, 0.5, 0.7, 0.1, 0.3, 1.0, 0.0])
def test_float32_below(value):
    below = torch.tensor(float32_below(value))
    assert below.double() <= value < torch.nextafter(below, torch.tensor(2.0)).double()


@pytest.fixture(scope="module")
def onnx_align():
    inputs = (torch.rand(2, 3, 6, 8), torch.tensor([[0.0, 0, 9, 9], [3, 4, 50, 60]]), torch.tensor([0, 1]))
    rois = {0: Dim("R", min=1, max=9999)}
    height, width = Dim("h", min=1, max=999), Dim("w", min=1, max=999)
    features = {0: Dim("N", min=1, max=64), 2: height, 3: width}
    return session(Align(), inputs, {"features": features, "boxes": rois, "batch_indices": rois})


@pytest.mark.parametrize("images, height, width", [(1, 4, 9), (3, 7, 5)])
def test_align_rois_equals_torchvision(onnx_align, images, height, width):
    """Bit for bit, with boxes at the borders, outside, inverted and of no area."""
    generator = torch.Generator().manual_seed(images)
    features = torch.randn(images, 3, height, width, generator=generator)
    right, bottom = 16.0 * width, 16.0 * height
    special = [
        [0, 0, right, bottom],
        [right - 3, 0, right, bottom],
        [0, 0, 0, 0],
        [-20, -30, right + 50, 9],
        [9, 9, 3, 2],
    ]
    boxes = torch.cat([torch.tensor(special), torch.rand(20, 4, generator=generator) * 90])
    indices = torch.arange(len(boxes)) % images
    expected = roi_align(
        features, torch.cat([indices[:, None].float(), boxes], dim=1), (7, 5), 1 / 16, sampling_ratio=2, aligned=False
    )
    assert torch.equal(align_rois(features, boxes, indices, 7, 5, 1 / 16), expected)
    feeds = {"features": features.numpy(), "boxes": boxes.numpy(), "batch_indices": indices.numpy()}
    torch.testing.assert_close(torch.from_numpy(onnx_align.run(None, feeds)[0]), expected, rtol=0, atol=1e-6)
