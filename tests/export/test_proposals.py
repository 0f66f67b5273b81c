"""The proposal graph against torchvision's RegionProposalNetwork."""

import pytest
import torch
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers

from psarm.config import ModelConfig
from psarm.export.proposals import ProposalGraph
from psarm.model.rpn import build_rpn


def make_rpn(**changes):
    settings = {"anchor_sizes": (16, 32, 64), "pre_nms_top_n_test": 150, "post_nms_top_n_test": 40}
    return build_rpn(8, ModelConfig(**(settings | changes))).eval()


def torchvision_proposals(rpn, objectness, deltas, sizes, height, width):
    images = ImageList(torch.zeros(len(sizes), 3, 16 * height, 16 * width), sizes)
    anchors = rpn.anchor_generator(images, [torch.zeros(len(sizes), 8, height, width, dtype=deltas.dtype)])
    _, flat = concat_box_prediction_layers([objectness], [deltas])
    boxes = rpn.box_coder.decode(flat, anchors).reshape(len(sizes), -1, 4)
    return rpn.filter_proposals(boxes, objectness.permute(0, 2, 3, 1).flatten(1), sizes, [boxes.shape[1]])[0]


def maps(rpn, count, height, width, seed, spread=0.5):
    generator = torch.Generator().manual_seed(seed)
    anchors = rpn.anchor_generator.num_anchors_per_location()[0]
    objectness = torch.randn(count, anchors, height, width, generator=generator)
    return objectness, spread * torch.randn(count, 4 * anchors, height, width, generator=generator)


def assert_same(rpn, objectness, deltas, sizes):
    height, width = objectness.shape[2:]
    expected = torchvision_proposals(rpn, objectness, deltas, sizes, height, width)
    proposals, counts, _ = ProposalGraph(rpn)(objectness, deltas, torch.tensor(sizes))
    assert counts.tolist() == [len(boxes) for boxes in expected]
    for rows, boxes in zip(proposals, expected, strict=True):
        torch.testing.assert_close(rows[: len(boxes)], boxes, rtol=0, atol=1e-4)
        assert not rows[len(boxes) :].any()
    return counts


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "height, width, sizes",
    [
        (6, 10, [(96, 160)]),
        (6, 10, [(90, 151), (33, 160), (96, 20)]),
        (2, 2, [(32, 32), (17, 30)]),  # fewer anchors than proposals wanted
        (1, 7, [(11, 100)]),
    ],
)
def test_same_as_torchvision(height, width, sizes, seed):
    rpn = make_rpn()
    assert_same(rpn, *maps(rpn, len(sizes), height, width, seed), sizes)


def test_published_settings():
    rpn = build_rpn(8, ModelConfig()).eval()
    counts = assert_same(rpn, *maps(rpn, 1, 28, 40, seed=1), [(448, 630)])
    assert counts.tolist() == [300]


def test_boxes_outside_and_degenerate():
    """Wild deltas: most boxes lie outside the image, are flat after clipping, or were limited before exp."""
    rpn = make_rpn()
    counts = assert_same(rpn, *maps(rpn, 2, 6, 10, seed=3, spread=6.0), [(96, 160), (40, 33)])
    assert 0 < min(counts) < 40


def test_nobody_survives():
    rpn = make_rpn()
    objectness, deltas = maps(rpn, 2, 6, 10, seed=0)
    deltas[0, 0::4] = -1000.0  # every box of the first image far to the left
    counts = assert_same(rpn, objectness, deltas, [(96, 160), (96, 160)])
    assert counts.tolist() == [0, 40]


def test_candidates_are_the_boxes_before_nms():
    rpn = make_rpn()
    objectness, deltas = maps(rpn, 2, 6, 10, seed=0)
    sizes = [(96, 160), (50, 60)]
    proposals, counts, candidates = ProposalGraph(rpn)(objectness, deltas, torch.tensor(sizes))
    assert candidates.shape == (2, 150, 4)
    for chosen, count, boxes in zip(proposals, counts, candidates, strict=True):
        places = [int((boxes == box).all(dim=1).nonzero()[0]) for box in chosen[:count]]
        assert places == sorted(places)
