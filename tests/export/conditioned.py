"""Models whose random weights behave like trained ones: rounding is not amplified, norms are not the identity."""

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from psarm.config import ModelConfig
from psarm.model import PersonSearchModel, build_model

SMALL = {
    "backbone": "resnet18",
    "width": 0.25,
    "min_size": 96,
    "max_size": 160,
    "anchor_sizes": (16, 32, 64),
    "pre_nms_top_n_test": 200,
    "post_nms_top_n_test": 40,
    "embedding_dim": 32,
    "num_identities": 7,
    "queue_size": 5,
}


def conditioned(seed: int = 0, **changes: object) -> PersonSearchModel:
    """A small model in eval mode with random, well-conditioned weights."""
    torch.manual_seed(seed)
    model = build_model(ModelConfig(**{**SMALL, **changes})).eval()
    condition(model)
    return model


@torch.no_grad()
def condition(model: nn.Module) -> None:
    """Random norm statistics; the last norm of every residual block scaled down, as in trained networks."""
    for part in model.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            part.weight.uniform_(0.5, 1.5)
            part.bias.normal_(std=0.1)
            part.running_mean.normal_(std=0.1)
            part.running_var.uniform_(0.5, 1.5)
    for part in model.modules():
        if isinstance(part, BasicBlock):
            part.bn2.weight.mul_(0.2)
        if isinstance(part, Bottleneck):
            part.bn3.weight.mul_(0.2)
        if isinstance(part, (nn.Linear, nn.Conv2d)) and part.bias is not None:
            part.bias.normal_(std=0.05)
    for part in (model.rpn.head.cls_logits, model.rpn.head.bbox_pred):
        part.weight.normal_(std=0.05)
