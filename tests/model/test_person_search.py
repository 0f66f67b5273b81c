"""The assembled model on small backbones: true batches, zero people, modes."""

import pytest
import torch
from released_weights import condition, picture, standardise

from psarm.config import ModelConfig
from psarm.model import build_model

CONFIG = ModelConfig(backbone="resnet18", width=0.25, min_size=96, max_size=160, post_nms_top_n_test=12)


@pytest.fixture(scope="module")
def model():
    """float64, random weights, most proposals a person."""
    model = build_model(CONFIG)
    shapes = {name: list(value.shape) for name, value in model.state_dict().items() if not name.endswith("header")}
    model.load_state_dict(condition(shapes, seed=3) | {"roi_heads.reid_loss.header": torch.tensor(0)})
    model = model.double().eval()
    features = model.backbone(model.transform(make_pictures())[0].tensors)
    boxes = torch.tensor([[0, 0, 60, 90], [50, 20, 120, 60], [70, 0, 141, 97], [10, 10, 50, 30]]).double()
    rois = model.roi_heads.roi_align(features, [boxes] * 3)
    _, deep = model.roi_heads.box_head(rois)
    standardise(model.roi_heads.faster_rcnn_predictor.cls_score, deep, torch.tensor([-0.8, 0.8]), 0.5)
    standardise(model.roi_heads.faster_rcnn_predictor.bbox_pred, deep, torch.zeros(8), 0.8)
    _, deep = model.roi_heads.reid_head(rois)
    standardise(model.roi_heads.box_predictor[0], deep, torch.zeros(8), 0.8)
    return model


@pytest.fixture
def pictures():
    return make_pictures()


def make_pictures():
    return [picture(97, 141, seed).double() for seed in range(3)]


def test_a_batch_of_equal_sizes_answers_as_single_images(model, pictures):
    boxes = torch.tensor([[20, 10, 60, 90], [0, 0, 50, 60], [70, 20, 141, 97]], dtype=torch.float64)
    together = model.detect(pictures)
    alone = [model.detect([image])[0] for image in pictures]
    assert_same(together, alone)
    sides = torch.cat([found["boxes"][:, 2:] - found["boxes"][:, :2] for found in together])
    assert (sides > 5).all(dim=1).sum() > 6
    alone = [model.detect_around([image], box[None])[0] for image, box in zip(pictures, boxes, strict=True)]
    assert_same(model.detect_around(pictures, boxes), alone)
    lists = [boxes[:2], boxes[:0], boxes]
    alone = [model.embed([image], [b])[0] for image, b in zip(pictures, lists, strict=True)]
    for one, other in zip(model.embed(pictures, lists), alone, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_nobody_in_some_images_of_a_batch(model, pictures, monkeypatch):
    best = [float(found["scores"][0]) for found in model.detect(pictures)]
    middle = sorted(best)[1]
    monkeypatch.setattr(model.roi_heads, "score_thresh", middle)  # leaves people in one image only
    found = model.detect(pictures)
    assert [len(f["boxes"]) > 0 for f in found] == [b > middle for b in best]
    assert_same(found, [model.detect([image])[0] for image in pictures])
    boxes = torch.tensor([[20, 10, 60, 90]], dtype=torch.float64).expand(3, 4)
    around = model.detect_around(pictures, boxes)
    assert all(a["scores"][0] == 1 for a in around)
    assert_same(around, [model.detect_around([i], b[None])[0] for i, b in zip(pictures, boxes, strict=True)])


def test_at_most_detections_per_image(model, pictures, monkeypatch):
    monkeypatch.setattr(model.roi_heads, "detections_per_image", 2)
    assert [len(found["boxes"]) for found in model.detect(pictures)] == [2, 2, 2]


def test_images_are_left_as_they_were(model, pictures):
    before = [image.clone() for image in pictures]
    model.detect(pictures)
    assert all(torch.equal(a, b) for a, b in zip(before, pictures, strict=True))


def test_the_mode_has_to_fit(model, pictures):
    box = torch.zeros(1, 4)
    with pytest.raises(RuntimeError, match="train mode"):
        model.losses(pictures, [])
    model.train()
    try:
        for call in (lambda: model.detect(pictures), lambda: model.embed(pictures, [box] * 3)):
            with pytest.raises(RuntimeError, match="eval mode"):
                call()
    finally:
        model.eval()


def test_inference_tracks_no_gradient(model, pictures):
    found = model.detect(pictures[:1])[0]
    assert not any(value.requires_grad for value in found.values())
    assert not model.embed(pictures[:1], [torch.tensor([[0.0, 0, 50, 50]]).double()])[0].requires_grad


def assert_same(together, alone):
    for one, other in zip(together, alone, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            torch.testing.assert_close(one[key], other[key], rtol=0, atol=1e-9)
