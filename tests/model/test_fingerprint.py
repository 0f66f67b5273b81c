"""The fingerprint follows what embeddings depend on, and nothing else."""

import dataclasses

import pytest
import torch

from psarm.config import ModelConfig
from psarm.model import build_model
from psarm.model.fingerprint import embedding_fingerprint

SMALL = ModelConfig(
    backbone="resnet18", width=0.25, min_size=96, max_size=160, roi_size=7, num_identities=3, queue_size=4
)


@pytest.fixture(scope="module")
def model():
    return build_model(SMALL).eval()


@pytest.mark.parametrize(
    "part, same",
    [
        ("roi_heads.reid_head.layer4.0.conv1.weight", False),
        ("backbone.conv1.weight", False),
        ("roi_heads.embedding_head.res4.1.running_mean", False),
        ("roi_heads.box_head.layer4.0.conv1.weight", True),
        ("roi_heads.reid_loss.lut", True),
        ("rpn.head.cls_logits.bias", True),
    ],
)
def test_weights(model, part, same):
    before = embedding_fingerprint(model)
    value = model.state_dict()[part]
    kept = value.clone()
    with torch.no_grad():
        value.view(-1)[0] += 1
        after = embedding_fingerprint(model)
        value.copy_(kept)
    assert (before == after) is same
    assert embedding_fingerprint(model) == before


@pytest.mark.parametrize(
    "changes, same",
    [
        ({"arm_layout": "released"}, False),
        ({"variant": "seqnet"}, False),
        ({"roi_size": 8}, False),
        ({"roi_size": (7, 7)}, True),
        ({"roi_size": (7, 8)}, False),
        ({"min_size": 97}, False),
        ({"max_size": 170}, False),
        ({"score_thresh": 0.3}, True),
        ({"post_nms_top_n_test": 20}, True),
    ],
)
def test_settings_with_the_same_weights(model, monkeypatch, changes, same):
    before = embedding_fingerprint(model)
    monkeypatch.setattr(model, "config", dataclasses.replace(SMALL, **changes))
    assert (embedding_fingerprint(model) == before) is same


def test_normalisation(model, monkeypatch):
    before = embedding_fingerprint(model)
    monkeypatch.setattr("psarm.model.fingerprint.IMAGE_MEAN", (0.5, 0.5, 0.5))
    assert embedding_fingerprint(model) != before


def test_a_cascade_is_known_by_its_last_head():
    model = build_model(dataclasses.replace(SMALL, variant="cascaded_psarm"))
    before = embedding_fingerprint(model)
    model.roi_heads.reid_head.layer4[0].conv1.weight.data.add_(1)
    model.roi_heads.embedding_head.res5[0].weight.data.add_(1)
    assert embedding_fingerprint(model) == before
    model.roi_heads.further[0].reid_head.layer4[0].conv1.weight.data.add_(1)
    assert embedding_fingerprint(model) != before
