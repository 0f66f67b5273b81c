"""The graphs as modules against the model, in float64: every rewrite is exact."""

from collections import OrderedDict

import pytest
import torch
from small_models import EVERY, SMALL, small_model
from torchvision.models.detection.image_list import ImageList

from psarm.export.graphs import DetectGraph, RefineGraph, ReidGraph
from psarm.export.heads import TrunkGraph

MORE = {
    "released": {"arm_layout": "released", "backbone": "resnet50", "width": 0.125},
    "released-resnet18": {"arm_layout": "released"},
    "seqnet-resnet50": {"variant": "seqnet", "backbone": "resnet50"},
    "roi7": {"roi_size": 7, "arm_reduction": 2},
}
SIZES = [(96, 150), (80, 129), (17, 40)]


@pytest.fixture(scope="module", params=[*EVERY, *MORE])
def model(request):
    return small_model(1, **{**EVERY, **MORE}[request.param]).double()


@pytest.fixture(scope="module")
def images():
    torch.manual_seed(0)
    batch = torch.randn(3, 3, 96, 160, dtype=torch.float64)
    for image, (height, width) in zip(batch, SIZES, strict=True):
        image[:, height:], image[:, :, width:] = 0, 0
    return batch


@torch.no_grad()
def test_detect(model, images):
    graph = DetectGraph(model)
    outputs = dict(zip(graph.outputs, graph(images, torch.tensor(SIZES)), strict=False))
    boxes, scores, counts = outputs["boxes"], outputs["scores"], outputs["counts"]
    features = model.backbone(images)
    proposals, _ = model.rpn(ImageList(images, SIZES), OrderedDict(map=features))
    flat_scores, deltas = model.roi_heads.score(features, proposals)
    expected_boxes = model.roi_heads.decode_foreground(deltas, proposals, SIZES)
    expected_scores = flat_scores.split([len(p) for p in proposals])
    assert ("regions" in outputs) == (model.config.parts.heads == "nae")
    assert boxes.shape == (3, SMALL["post_nms_top_n_test"], 4)
    assert counts.tolist() == [len(p) for p in proposals]
    for i, count in enumerate(counts):
        torch.testing.assert_close(boxes[i, :count], expected_boxes[i], rtol=0, atol=1e-11)  # pixels
        torch.testing.assert_close(scores[i, :count], expected_scores[i], rtol=0, atol=1e-13)
        assert not boxes[i, count:].any() and not scores[i, count:].any()
        if "regions" in outputs:
            torch.testing.assert_close(outputs["regions"][i, :count], proposals[i], rtol=0, atol=1e-11)
    assert expected_scores[0].std() > 1e-3


@torch.no_grad()
def test_reid(model, images):
    features = DetectGraph(model)(images, torch.tensor(SIZES))[3]
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(3, 6, 2, 2, generator=generator, dtype=torch.float64) * torch.tensor([160.0, 96.0])
    boxes = list(torch.cat([corners.amin(dim=2), corners.amax(dim=2)], dim=2))  # ordinary
    boxes[1] = boxes[1][:0]
    border = [[157.0, 0, 160, 96], [158, 10, 160, 90], [0, 94, 160, 96], [0, 0, 160, 96], [-30, -20, 200, 120]]
    boxes[2] = torch.cat([boxes[2], torch.tensor(border, dtype=torch.float64)])
    indices = torch.repeat_interleave(torch.arange(3), torch.tensor([len(b) for b in boxes]))
    rois = model.roi_heads.roi_align(model.backbone(images), boxes)
    *earlier, last = model.roi_heads.reid_heads
    for number, head in enumerate(earlier):
        expected = model.roi_heads.box_coder.decode(head.outputs(rois)[0], boxes)[:, 1]
        actual = RefineGraph(model, number)(features, torch.cat(boxes), indices)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-11)
    deltas, embeddings, _ = last.outputs(rois)
    refined = model.roi_heads.box_coder.decode(deltas, boxes)[:, 1]
    actual_boxes, actual_embeddings = ReidGraph(model)(features, torch.cat(boxes), indices)
    torch.testing.assert_close(actual_boxes, refined, rtol=0, atol=1e-11)
    torch.testing.assert_close(actual_embeddings, embeddings, rtol=0, atol=1e-13)
    assert (refined - torch.cat(boxes)).abs().max() > 0.1


@torch.no_grad()
def test_bias_after_roi_align_is_what_makes_the_right_border_exact(images):
    """The same trunk with the bias on the map in place of after RoIAlign is wrong there: samples outside weigh 0."""
    model = small_model(1).double()
    reduce = model.roi_heads.box_head.arm.reduce
    trunk = TrunkGraph(model.roi_heads.box_head, model.config.roi_shape)
    res4 = model.backbone(images)
    boxes, indices = torch.tensor([[158.0, 0, 160, 96]], dtype=torch.float64), torch.tensor([0])
    expected = model.roi_heads.box_head(model.roi_heads.roi_align(res4, [boxes, boxes[:0], boxes[:0]]))[1]
    plain = torch.nn.functional.conv2d(res4, reduce.weight)
    torch.testing.assert_close(trunk(plain, boxes, indices)[1], expected, rtol=0, atol=1e-12)
    trunk.bias = torch.zeros_like(trunk.bias)
    assert (trunk(reduce(res4), boxes, indices)[1] - expected).abs().max() > 1e-6


def test_graphs_leave_the_model_alone():
    model = small_model(1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kinds = [type(part) for part in model.modules()]
    DetectGraph(model), ReidGraph(model)
    assert [type(part) for part in model.modules()] == kinds
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.roi_heads.parameters())
