"""psarm.load_model of a released file against the oracle: detection, embedding of given boxes, context of a query."""

import re

import pytest
import torch
from released_files import released_shapes
from released_oracle import nms
from released_weights import SIZES, picture

import psarm

TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-5}


def pictures(dtype):
    return [picture(*size, seed).to(dtype) for seed, size in enumerate(SIZES)]


def canvas(model, images):
    """Height and width of the batch that `images` make."""
    return tuple(model.transform(images)[0].tensors.shape[-2:])


def assert_same_people(ours, theirs, dtype):
    assert set(ours) == {"boxes", "scores", "embeddings"}
    for key, value in theirs.items():
        # Boxes in pixels of images some hundred pixels wide, the rest of order one.
        atol = TOLERANCE[dtype] * (100 if key == "boxes" else 1)
        assert ours[key].dtype == dtype
        torch.testing.assert_close(ours[key], value, rtol=0, atol=atol, msg=lambda m, key=key: f"{key}: {m}")


def test_oracle_has_the_released_names_and_shapes(released):
    shapes = {name: list(value.shape) for name, value in released.oracle.state_dict().items()}
    assert shapes == released_shapes(released.variant, 482, 500)


def test_detect_and_detect_around(precise):
    """In float32 a batch of odd sizes, each image padded to the largest; in float64, which is slow, one image."""
    images = pictures(precise.dtype)[: 2 if precise.dtype == torch.float32 else 1]
    given = torch.tensor([[20, 10, 61.5, 88], [-3, 5.25, 50, 61]], dtype=precise.dtype)[: len(images)]
    size = canvas(precise.model, images)
    all_ours = precise.model.detect(images)
    all_around = precise.model.detect_around(images, given)
    assert len(all_ours) == len(all_around) == len(images)
    passed = found = looser = final = 0
    with torch.no_grad():
        for image, box, ours, around in zip(images, given, all_ours, all_around, strict=True):
            scene = precise.oracle.look(image, size)
            assert_same_people(ours, precise.oracle.detect(scene), precise.dtype)
            assert_same_people(around, precise.oracle.detect_around(scene, box), precise.dtype)
            assert (ours["scores"].diff() <= 0).all()
            assert around["scores"][0] == 1
            torch.testing.assert_close(around["boxes"][0], box, rtol=0, atol=1e-4)
            assert len(around["boxes"]) > 2
            passed += len(precise.oracle.passed[0])
            looser += len(nms(*precise.oracle.passed, 0.5))
            found += len(scene.found)
            final += len(ours["boxes"])
    if len(images) == 2:
        assert 24 > passed > looser > found > final > 6  # the threshold and both suppressions had something to do


def test_embed(precise):
    images = pictures(precise.dtype)[:1]
    boxes = torch.tensor([[0, 0, 141, 97], [30.5, 20, 60, 90], [120, 50, 141, 97], [-10, -5, 200, 120]])
    boxes = boxes.to(precise.dtype)
    [ours] = precise.model.embed(images, [boxes])
    with torch.no_grad():
        theirs = precise.oracle.embed(images[0], boxes)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE[precise.dtype])
    torch.testing.assert_close(ours.norm(dim=1), torch.ones(4, dtype=precise.dtype))
    assert (ours @ ours.t()).min() < 0.9  # not all the same


def test_boxes_refined_out_of_the_image_are_left_out(released):
    image, box = picture(97, 141, 0), torch.tensor([20, 10, 61.5, 88])
    biases = [released.model.roi_heads.box_predictor[1].bias]
    biases.append(released.oracle.roi_heads.box_predictor.bbox_pred[1].bias)
    kept = biases[0].data.clone()
    try:
        for bias in biases:
            bias.data[4] += 20  # two widths to the right
        with torch.no_grad():
            scene = released.oracle.look(image)
            assert_same_people(released.model.detect([image])[0], released.oracle.detect(scene), torch.float32)
            assert 0 < released.oracle.flat < len(scene.found)
            [around] = released.model.detect_around([image], box[None])
            assert_same_people(around, released.oracle.detect_around(scene, box), torch.float32)
    finally:
        for bias in biases:
            bias.data.copy_(kept)


@pytest.fixture
def empty_street(released):
    """The detection head sees nobody."""
    for model in (released.model, released.oracle):
        model.roi_heads.faster_rcnn_predictor.cls_score.bias.data[1] -= 50
    yield released
    for model in (released.model, released.oracle):
        bias = released.state["roi_heads.faster_rcnn_predictor.cls_score.bias"]
        model.roi_heads.faster_rcnn_predictor.cls_score.bias.data.copy_(bias)


def test_nobody(empty_street):
    images = [picture(*size, seed) for seed, size in enumerate(SIZES)]
    for found in empty_street.model.detect(images):
        assert {key: list(value.shape) for key, value in found.items()} == {
            "boxes": [0, 4],
            "scores": [0],
            "embeddings": [0, 256],
        }
    box = torch.tensor([20, 10, 61.5, 88])
    [found] = empty_street.model.detect_around(images[:1], box[None])
    with torch.no_grad():
        assert_same_people(
            found, empty_street.oracle.detect_around(empty_street.oracle.look(images[0]), box), torch.float32
        )
    assert found["scores"].tolist() == [1]
    none = empty_street.model.embed(images, [torch.zeros(0, 4)] * 2)
    assert [list(e.shape) for e in none] == [[0, 256]] * 2


def test_the_given_box_comes_first_beside_certain_detections(released):
    """In float32 a detection's softmax can round to 1; the given box still wins."""
    bias = released.model.roi_heads.faster_rcnn_predictor.cls_score.bias
    image = picture(97, 141, 0)
    try:
        bias.data[1] += 100
        person = released.model.detect([image])[0]["boxes"][0]
        given = person + torch.tensor([1.0, 1.0, -1.0, -1.0])
        [found] = released.model.detect_around([image], given[None])
    finally:
        bias.data.copy_(released.state["roi_heads.faster_rcnn_predictor.cls_score.bias"])
    assert (found["scores"] == 1).sum() > 1
    torch.testing.assert_close(found["boxes"][0], given, rtol=0, atol=1e-4)


def test_the_given_box_comes_first_whatever_the_threshold(released, monkeypatch):
    monkeypatch.setattr(released.model.roi_heads, "score_thresh", 1.0)
    box = torch.tensor([[20, 10, 61.5, 88]])
    [found] = released.model.detect_around([picture(97, 141, 0)], box)
    assert found["scores"].tolist() == [1] and found["embeddings"].shape == (1, 256)
    torch.testing.assert_close(found["boxes"], box, rtol=0, atol=1e-4)


def test_old_torchvision_names_give_the_same_model(released, tmp_path):
    old = {re.sub(r"^rpn\.head\.conv\.0\.0\.", "rpn.head.conv.", name): v for name, v in released.state.items()}
    assert set(old) != set(released.state)
    path = tmp_path / "old.pth"
    torch.save({"model": old, "epoch": 12}, path)
    model = psarm.load_model(path)
    path.unlink()
    new = released.model.state_dict()
    assert all(torch.equal(value, new[name]) for name, value in model.state_dict().items())


def test_released_settings(released, tmp_path):
    """The numbers of the description, before the fixture made the model small for speed."""
    model = psarm.load_model(released.path)
    assert not model.training
    assert model.config.variant == released.variant
    assert model.config.num_identities == 482
    assert model.config.queue_size == 500
    if released.variant == "psarm":
        assert model.config.arm_layout == "released"
    assert (model.transform.min_size, model.transform.max_size, model.transform.size_divisible) == ((900,), 1500, 32)
    assert model.rpn._pre_nms_top_n == {"training": 12000, "testing": 6000}
    assert model.rpn._post_nms_top_n == {"training": 2000, "testing": 300}
    assert (model.rpn.nms_thresh, model.rpn.score_thresh, model.rpn.min_size) == (0.7, 0.0, 1e-3)
    theirs = released.oracle.rpn
    for name in ("sizes", "aspect_ratios"):
        assert getattr(model.rpn.anchor_generator, name) == getattr(theirs.anchor_generator, name)
    for ours, expected in (
        (model.rpn.proposal_matcher, theirs.proposal_matcher),
        (model.rpn.fg_bg_sampler, theirs.fg_bg_sampler),
    ):
        assert vars(ours) == vars(expected)
    heads = model.roi_heads
    assert (heads.score_thresh, heads.detection_nms_thresh, heads.final_nms_thresh) == (0.5, 0.4, 0.5)
    assert heads.detections_per_image == 300
    assert (heads.reid_loss.momentum, heads.reid_loss.scalar) == (0.5, 30)
    for name in ("lut", "cq"):
        assert torch.equal(getattr(heads.reid_loss, name), released.state[f"roi_heads.reid_loss.{name}"])
