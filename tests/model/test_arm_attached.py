"""ARM in front of a RoI head that is not psarm's: docs/models.md's line on torchvision's Faster R-CNN."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign

from psarm.model.arm import Arm

DOCUMENT = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
[EXAMPLE] = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)


def documented():
    """The model of the document, on small images with few RoIs."""
    torch.manual_seed(0)
    names = {}
    exec(compile(EXAMPLE, "docs/models.md", "exec"), names)
    model = names["model"]
    model.transform.min_size, model.transform.max_size = (64,), 96
    model.roi_heads.fg_bg_sampler.batch_size_per_image = 16
    return model


def other():
    """RoIs of 8x4 cells and 40 channels, one map, ARM on 16 channels in the released layout."""
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 40, 9, stride=8, padding=4), nn.ReLU())
    backbone.out_channels = 40
    return FasterRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(((16, 32),), ((1.0, 2.0),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], (8, 4), 2),
        box_head=nn.Sequential(Arm(40, (8, 4), reduced=16, layout="released"), TwoMLPHead(40 * 8 * 4, 32)),
        box_predictor=FastRCNNPredictor(32, 2),
        min_size=64,
        max_size=96,
        box_score_thresh=0.0,
    )


def arm_of(model):
    arm = model.roi_heads.box_head[0]
    assert isinstance(arm, Arm)
    return arm


@pytest.mark.parametrize("make", [documented, other])
def test_it_trains_a_step_and_detects(make):
    model = make().train()
    images = [torch.rand(3, 64, 90), torch.rand(3, 80, 64)]
    targets = [
        {"boxes": torch.tensor([[5.0, 5, 40, 60]]), "labels": torch.tensor([1])},
        {"boxes": torch.tensor([[10.0, 8, 50, 70], [2, 2, 30, 50]]), "labels": torch.tensor([1, 1])},
    ]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = model(images, targets)
    assert set(losses) == {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    before = arm_of(model).reduce.weight.detach().clone()
    for name, parameter in arm_of(model).named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name
    optimizer.step()
    assert not torch.equal(arm_of(model).reduce.weight, before)
    with torch.no_grad():
        for people, image in zip(model.eval()(images), images, strict=True):
            assert people["boxes"].shape == (len(people["scores"]), 4)
            assert torch.isfinite(people["boxes"]).all() and (people["boxes"] >= 0).all()
            assert (people["boxes"][:, 2] <= image.shape[2]).all() and (people["boxes"][:, 3] <= image.shape[1]).all()


@pytest.mark.parametrize(("make", "channels", "size"), [(documented, 256, (7, 7)), (other, 40, (8, 4))])
def test_it_sees_the_rois_and_changes_what_the_head_gets(make, channels, size, monkeypatch):
    model = make().eval()
    seen = []
    arm_of(model).register_forward_hook(lambda arm, arguments, result: seen.append((arguments[0], result)))
    with torch.no_grad():
        model([torch.rand(3, 64, 90)])
    [(rois, enriched)] = seen
    assert rois.shape == enriched.shape == (len(rois), channels, *size) and len(rois) > 0
    assert (rois - enriched).abs().max() > 1e-3
