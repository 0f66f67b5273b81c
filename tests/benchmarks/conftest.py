"""A toy bundle with a data set it can search, and a tiny torch model that finds somebody everywhere."""

import json
import shutil

import pytest
import torch
from toy_bundle import make_toy_bundle
from toy_prw import write_toy_prw

from psarm.config import ModelConfig
from psarm.data.prw import read_prw
from psarm.model import build_model, save_model
from psarm.model.fingerprint import embedding_fingerprint

CONFIG = ModelConfig(
    backbone="resnet18",
    width=0.25,
    min_size=96,
    max_size=160,
    anchor_sizes=(32,),
    anchor_ratios=(2.0,),
    pre_nms_top_n_test=40,
    post_nms_top_n_test=12,
    roi_size=7,
    num_identities=3,
    queue_size=4,
)


@pytest.fixture(scope="session")
def toy_bundle(tmp_path_factory):
    return make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy.psarm")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    return read_prw(write_toy_prw(tmp_path_factory.mktemp("data") / "prw"))


@pytest.fixture(scope="session")
def model():
    torch.manual_seed(0)
    model = build_model(CONFIG).eval()
    with torch.no_grad():  # untrained, it finds nobody
        model.roi_heads.faster_rcnn_predictor.cls_score.bias.copy_(torch.tensor([0.0, 3.0]))
    return model


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, model):
    path = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
    save_model(model, path)
    return path


@pytest.fixture
def matching_bundle(toy_bundle, model, tmp_path):
    """The toy bundle under the fingerprint of the tiny model."""
    target = tmp_path / "matching.psarm"
    shutil.copytree(toy_bundle, target)
    manifest = json.loads((target / "manifest.json").read_text())
    manifest["embedding"]["fingerprint"] = embedding_fingerprint(model)
    (target / "manifest.json").write_text(json.dumps(manifest))
    return target
