"""Backbones against torchvision's own networks."""

import dataclasses
import typing

import pytest
import torch
from torch import nn
from torchvision.models import get_model, get_model_weights
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import StochasticDepth

from psarm.config import ModelConfig
from psarm.model.backbone import BACKBONES, STRIDE, make_backbone, make_res5, res5_channels, torchvision_name

RESNETS = [name for name in BACKBONES if name.startswith("resnet")]
CONVNEXTS = [name for name in BACKBONES if name.startswith("convnext")]


class Network(nn.Module):
    """Backbone and last stage under the names that a person-search model gives them."""

    def __init__(self, name, width=1.0):
        super().__init__()
        self.backbone = make_backbone(name, width)
        self.head = nn.ModuleDict({"layer4": make_res5(name, width)})

    def forward(self, images):
        return self.head["layer4"](self.backbone(images))


@torch.no_grad()
def awaken(network):
    """Norms that are not the identity, and layer scales at which a ConvNeXt's blocks count."""
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(std=0.1)
            part.running_var.uniform_(0.5, 1.5)
        if isinstance(part, (nn.BatchNorm2d, nn.LayerNorm)):
            part.weight.uniform_(0.5, 1.5)
            part.bias.normal_(std=0.1)
        if isinstance(part, BasicBlock):
            part.bn2.weight.mul_(0.2)
        if isinstance(part, Bottleneck):
            part.bn3.weight.mul_(0.2)
    for name, parameter in network.named_parameters():
        if name.endswith("layer_scale"):
            parameter.uniform_(0.1, 0.5)


def features_of(network, name, images):
    """torchvision's maps at stride 16 and 32."""
    if name in CONVNEXTS:
        deep = network.features[:6](images)
        return deep, network.features[6:](deep)
    x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
    deep = network.layer3(network.layer2(network.layer1(x)))
    return deep, network.layer4(deep)


def test_names_are_those_of_the_configuration():
    hint = typing.get_type_hints(ModelConfig)["backbone"]
    assert typing.get_args(hint) == BACKBONES
    assert dataclasses.replace(ModelConfig(), backbone="convnext_base").backbone in BACKBONES


@pytest.mark.parametrize("name", BACKBONES)
def test_equals_torchvision(name):
    """With torchvision's weights under torchvision's names, the maps are torchvision's."""
    torch.manual_seed(0)
    theirs = get_model(name).eval()
    awaken(theirs)
    with torch.device("meta"):
        ours = Network(name).eval()
    weights = theirs.state_dict()
    names = {key: torchvision_name(name, key) for key in ours.state_dict()}
    ours.load_state_dict({key: weights.pop(source) for key, source in names.items()}, assign=True)
    assert {key.split(".")[0] for key in weights} == {"fc" if name in RESNETS else "classifier"}
    images = torch.randn(2, 3, 70, 101)
    with torch.no_grad():
        deep, deeper = features_of(theirs, name, images)
        torch.testing.assert_close(ours.backbone(images), deep, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours(images), deeper, rtol=1e-5, atol=1e-5)
    assert deeper.std() > 0.05
    assert deep.shape[1] == ours.backbone.out_channels
    assert deeper.shape[1] == res5_channels(name, 1.0)


@pytest.mark.parametrize("name", BACKBONES)
def test_parameter_count(name):
    """The published count, less the ImageNet classifier."""
    with torch.device("meta"):
        ours, theirs = Network(name), get_model(name)
    classifier = theirs.fc if name in RESNETS else theirs.classifier
    published = get_model_weights(name)["IMAGENET1K_V1"].meta["num_params"]
    counts = [sum(parameter.numel() for parameter in network.parameters()) for network in (ours, classifier)]
    assert sum(counts) == published


@pytest.mark.parametrize("name", ["resnet18", "convnext_tiny"])
def test_starts_as_torchvision(name):
    torch.manual_seed(0)
    ours, theirs = Network(name), get_model(name).state_dict()
    for key, value in ours.named_parameters():
        source = theirs[torchvision_name(name, key)]
        torch.testing.assert_close(value.std(correction=0), source.std(correction=0), rtol=0.1, atol=0.0)
        torch.testing.assert_close(value.mean(), source.mean(), rtol=1e-5, atol=0.1 * float(source.std(correction=0)))


@pytest.mark.parametrize("name", CONVNEXTS)
def test_stochastic_depth_is_torchvisions(name):
    with torch.device("meta"):
        ours, theirs = (
            [part.p for part in network.modules() if isinstance(part, StochasticDepth)]
            for network in (Network(name), get_model(name))
        )
    assert ours == theirs
    assert ours[0] == 0 and ours[-1] in (0.1, 0.5)


def test_stochastic_depth_drops_whole_rois_and_only_in_training():
    torch.manual_seed(0)
    stage = make_res5("convnext_base", 0.125)
    awaken(stage)
    x = torch.randn(1, 64, 4, 4).expand(64, -1, -1, -1)
    with torch.no_grad():
        assert torch.unique(stage(x).flatten(1), dim=0).shape[0] > 1
        torch.testing.assert_close(stage.eval()(x), stage(x[:1]).expand(64, -1, -1, -1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("size", [(64, 96), (33, 50), (47, 95), (224, 32)])
def test_any_image_size(name, size):
    """ResNets round sizes up, ConvNeXts down; the inputs of the model are multiples of 32, where both agree."""
    backbone = make_backbone(name, 0.125).eval()
    features = backbone(torch.randn(2, 3, *size))
    cells = [-(-side // STRIDE) if name in RESNETS else side // STRIDE for side in size]
    assert features.shape == (2, backbone.out_channels, *cells)
    assert backbone.out_channels % 8 == 0


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("size", [(14, 14), (7, 7), (24, 8), (5, 12), (3, 2)])
@pytest.mark.parametrize("count", [3, 0])
def test_any_roi_size(name, size, count):
    channels = make_backbone(name, 0.125).out_channels
    deeper = make_res5(name, 0.125).eval()(torch.randn(count, channels, *size))
    cells = [-(-side // 2) if name in RESNETS else side // 2 for side in size]
    assert deeper.shape == (count, res5_channels(name, 0.125), *cells)


@pytest.mark.parametrize("name", BACKBONES)
def test_gradient_reaches_every_parameter(name):
    torch.manual_seed(0)
    network = Network(name, 0.125)
    for part in network.modules():
        if isinstance(part, StochasticDepth):
            part.p = 0.0  # a block dropped for every image gets none
    network(torch.randn(3, 3, 64, 64)).square().sum().backward()
    without = [key for key, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == []


@pytest.mark.parametrize("name", BACKBONES)
def test_frozen_stem(name):
    backbone = make_backbone(name, 0.125)
    backbone.freeze_stem()
    still = [key for key, value in backbone.named_parameters() if not value.requires_grad]
    if name in RESNETS:
        assert still == ["conv1.weight", "bn1.weight", "bn1.bias"]
    else:
        assert still == ["features.0.0.weight", "features.0.0.bias", "features.0.1.weight", "features.0.1.bias"]


@pytest.mark.parametrize("name", BACKBONES)
def test_memory_format_changes_nothing(name):
    torch.manual_seed(0)
    network = Network(name, 0.125).eval().double()
    awaken(network)
    images = torch.randn(2, 3, 96, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = network(images)
        network.to(memory_format=torch.channels_last)
        found = network(images.contiguous(memory_format=torch.channels_last))
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10 * float(expected.abs().max()))


def test_no_torchvision_name_for_what_is_not_its_network():
    assert torchvision_name("resnet18", "rpn.head.cls_logits.weight") is None
    assert torchvision_name("resnet18", "roi_heads.further.0.reid_head.layer4.1.bn2.bias") == "layer4.1.bn2.bias"
    assert torchvision_name("convnext_base", "roi_heads.box_head.layer4.0.1.weight") == "features.6.1.weight"
    assert torchvision_name("convnext_base", "roi_heads.box_head.layer4.1.2.layer_scale") == "features.7.2.layer_scale"
