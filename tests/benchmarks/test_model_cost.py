"""Multiply-adds and parameters: against the figures measured on the released code, and counted layer by layer."""

import math

import pytest
import torch
from small_models import EVERY, small_model
from torch import nn

from psarm.benchmarks import model_cost as cost
from psarm.benchmarks.model_cost import model_cost
from psarm.config import ModelConfig
from psarm.model.arm import TransformerMixer


def test_the_released_psarm():
    """The literal count of the released code: 84.9 + 48.3 + 314.4 + 21.0 GMACs of a 1080x1920 frame."""
    macs = model_cost(ModelConfig()).macs
    stages = [macs.backbone, macs.rpn, macs.first_head, macs.reid_heads]
    assert [round(stage / 1e9, 1) for stage in stages] == [84.9, 48.3, 314.4, 21.0]
    assert round(macs.total / 1e9, 1) == 468.6


@pytest.mark.parametrize("name", EVERY)
def test_counted_layer_by_layer(name, monkeypatch):
    """Hooks on a model with numbers in it, three proposals and two people."""
    monkeypatch.setattr(cost, "FRAME", (90, 150))
    monkeypatch.setattr(cost, "PROPOSALS", 3)
    monkeypatch.setattr(cost, "PEOPLE", 2)
    model = small_model(**EVERY[name])
    counted = model_cost(model.config)
    assert counted.parameters == sum(p.numel() for p in model.parameters())
    total = 0

    def note(module, arguments, output):
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            total += output.numel() * module.in_features
        elif isinstance(module, TransformerMixer):  # its scores, and the values they weigh
            rois, channels, *shape = output.shape
            total += 2 * rois * channels * math.prod(shape) ** 2

    for module in model.modules():
        module.register_forward_hook(note)
    heads, shape = model.roi_heads, model.config.roi_shape

    def stage(call):
        nonlocal total
        total = 0
        result = call()
        return result, total

    with torch.no_grad():
        features, backbone = stage(lambda: model.backbone(torch.rand(1, 3, 96, 160)))  # 90x150 becomes 96x160
        _, rpn = stage(lambda: model.rpn.head([features]))
        proposals, people = (torch.rand(n, features.shape[1], *shape) for n in (3, 2))
        if heads.box_head is None:
            _, first = stage(lambda: heads.outputs(proposals))
        else:
            _, first = stage(lambda: heads.faster_rcnn_predictor(heads.box_head(proposals)[1]))
        _, reid = stage(lambda: [head.outputs(people) for head in heads.reid_heads])
    macs = counted.macs
    assert (macs.backbone, macs.rpn, macs.first_head, macs.reid_heads) == (backbone, rpn, first, reid)
    assert macs.total == backbone + rpn + first + reid
