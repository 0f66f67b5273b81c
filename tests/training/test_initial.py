import dataclasses
from urllib.error import URLError

import pytest
import torch
from runs import state_of, tiny
from torchvision.models import resnet18

from psarm.config import ModelConfig
from psarm.errors import CheckpointError, ConfigError, TrainingError
from psarm.model.builder import build_model
from psarm.model.checkpoint import save_model
from psarm.training.initial import freeze, initialise, parameters
from psarm.training.trainer import train

SMALL = ModelConfig(backbone="resnet18", width=0.25, roi_size=7, num_identities=4, queue_size=5)
FULL = ModelConfig(backbone="resnet18", roi_size=7, num_identities=4, queue_size=5)


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """torchvision's resnet18 in torch's cache, with weights of our own."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    weights = resnet18().state_dict()
    torch.save(weights, folder / "resnet18-f37072fd.pth")
    return weights


def test_imagenet_fills_the_backbone_and_both_heads(cached):
    model = build_model(FULL)
    initialise(model, "imagenet")
    state = model.state_dict()
    taken = {f"backbone.{name}": value for name, value in cached.items() if not name.startswith(("layer4.", "fc."))}
    for head in ("box_head", "reid_head"):
        taken |= {f"roi_heads.{head}.{name}": v for name, v in cached.items() if name.startswith("layer4.")}
    assert len(taken) > len(cached)
    assert all(torch.equal(state[name], value) for name, value in taken.items())
    backbone = {name for name in state if name.startswith("backbone.")}
    assert backbone <= taken.keys()


def test_imagenet_keeps_the_stem_still():
    model = build_model(FULL)
    freeze(model, "imagenet")
    still = [name for name, value in model.named_parameters() if not value.requires_grad]
    assert still == ["backbone.conv1.weight", "backbone.bn1.weight", "backbone.bn1.bias"]
    assert len(parameters(model)) == len(list(model.parameters())) - 3
    freeze(fresh := build_model(FULL), "")
    assert all(value.requires_grad for value in fresh.parameters())


def test_imagenet_trains_and_resumes(cached, prw, tmp_path):
    config = tiny(prw, tmp_path / "run", epochs=1, init="imagenet", warmup_epochs=0.0)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, width=1.0, min_size=48, max_size=80))
    train(config)
    train(dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=2)), resume=True)
    state = state_of(tmp_path / "run").model
    for name in ("conv1.weight", "bn1.weight", "bn1.bias"):
        assert torch.equal(state[f"backbone.{name}"], cached[name])
    assert not torch.equal(state["backbone.layer1.0.conv1.weight"], cached["layer1.0.conv1.weight"])


def test_imagenet_weights_out_of_reach(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(TrainingError, match=r"of resnet18 are neither in torch's cache nor downloadable .*no route"):
        initialise(build_model(FULL), "imagenet")


def test_imagenet_needs_the_full_width():
    with pytest.raises(ConfigError, match=r"model\.width 0\.25; ImageNet weights need width 1"):
        initialise(build_model(SMALL), "imagenet")


def test_a_checkpoint_gives_everything_but_the_tables(tmp_path):
    source = build_model(dataclasses.replace(SMALL, num_identities=9, queue_size=3))
    source.roi_heads.reid_loss.lut.fill_(0.5)
    source.roi_heads.reid_loss.header.fill_(2)
    save_model(source, tmp_path / "model.safetensors")
    model = build_model(SMALL)
    initialise(model, str(tmp_path / "model.safetensors"))
    given = source.state_dict()
    for name, value in model.state_dict().items():
        if ".reid_loss." in name:
            assert not value.any()
        else:
            assert torch.equal(value, given[name])


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    save_model(build_model(dataclasses.replace(SMALL, variant="seqnet")), tmp_path / "seqnet.safetensors")
    with pytest.raises(CheckpointError, match=r"seqnet\.safetensors does not fit psarm with resnet18: .* missing"):
        initialise(build_model(SMALL), str(tmp_path / "seqnet.safetensors"))
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        initialise(build_model(SMALL), str(tmp_path / "none.safetensors"))


def test_empty_is_random():
    torch.manual_seed(0)
    model = build_model(SMALL)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    initialise(model, "")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
