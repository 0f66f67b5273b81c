"""Folding of norms and 1x1 convolutions against the modules as they were, in float64."""

import copy

import pytest
import torch
from small_models import randomise
from torch import nn

from psarm.export.folding import fold_convolution, fold_linear, fold_norms, fold_pointwise, linear
from psarm.model.backbone import make_backbone, make_res5
from psarm.model.resnet import RESNETS

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def prepared(module):
    """Random norms, eval mode, float64."""
    randomise(module)
    return module.eval().double()


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel, stride, padding", [(1, 1, 0), (1, 2, 0), (3, 1, 1), (7, 2, 3)])
def test_convolution_and_norm(kernel, stride, padding, bias):
    pair = prepared(
        nn.Sequential(nn.Conv2d(5, 8, kernel, stride=stride, padding=padding, bias=bias), nn.BatchNorm2d(8))
    )
    x = torch.randn(3, 5, 11, 9, dtype=torch.float64)
    torch.testing.assert_close(fold_convolution(*pair)(x), pair(x), **EXACT)


def test_linear_and_norm():
    pair = prepared(nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)))
    x = torch.randn(7, 6, dtype=torch.float64)
    torch.testing.assert_close(linear(*fold_linear(pair), torch.float64)(x), pair(x), **EXACT)


def test_linear_without_its_norm_is_refused():
    with pytest.raises(TypeError, match="BatchNorm1d"):
        fold_linear(nn.Sequential(nn.Linear(6, 4), nn.ReLU()))


@pytest.mark.parametrize("name", RESNETS)
def test_every_norm_of_the_backbone_and_res5(name):
    for module, channels in ((make_backbone(name, 0.125), 3), (make_res5(name, 0.125), None)):
        module = prepared(module)
        channels = channels or module[0].conv1.in_channels
        folded = copy.deepcopy(module)
        fold_norms(folded)
        assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
        assert any(isinstance(part, nn.BatchNorm2d) for part in module.modules())
        x = torch.randn(2, channels, 34, 50, dtype=torch.float64)
        torch.testing.assert_close(folded(x), module(x), **EXACT)


def test_a_norm_with_no_convolution_before_it_is_refused():
    with pytest.raises(ValueError, match=r"BatchNorm 0"):
        fold_norms(nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel, stride, padding", [(1, 1, 0), (1, 2, 0), (3, 1, 1), (3, 2, 1)])
@pytest.mark.parametrize("shape", [(14, 14), (7, 7), (12, 5)])
def test_pointwise_into_the_next_convolution(kernel, stride, padding, bias, shape):
    pointwise = nn.Conv2d(4, 12, 1, bias=bias).double()
    convolution = nn.Conv2d(12, 6, kernel, stride=stride, padding=padding, bias=bias).double()
    x = torch.randn(3, 4, *shape, dtype=torch.float64)
    folded = fold_pointwise(pointwise, convolution, shape)
    torch.testing.assert_close(folded(x), convolution(pointwise(x)), **EXACT)
