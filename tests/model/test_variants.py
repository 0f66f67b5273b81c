"""One training step of every preset, shrunken: finite losses, and a gradient for every trainable parameter."""

import pytest
import torch
from released_weights import picture
from small_models import randomise
from torch import nn
from torchvision.models.convnext import CNBlock
from torchvision.ops import StochasticDepth

from psarm.config import GATED, load_config
from psarm.model import build_model
from psarm.presets import find_config, load_presets

SMALL = [
    "model.backbone=resnet18",
    "model.width=0.25",
    "model.arm_reduction=1",  # the channel gate has a sixteenth of that, and a lone ReLU may be off for all RoIs
    "model.min_size=96",
    "model.max_size=160",
    "model.anchor_sizes=[16, 32, 64]",
    "model.pre_nms_top_n_train=200",
    "model.post_nms_top_n_train=40",
    "model.roi_size=8",
    "model.roi_batch_size=16",
    "model.num_identities=7",
    "model.queue_size=5",
]
NARROW = {"psarm_24x8_prw": ["model.roi_size=[12, 4]"]}
"""What a preset is known by has to be left after shrinking."""
CONVNEXT = ["model.backbone=convnext_tiny", "model.width=0.125"]
CASES = {preset.name: (preset.name, NARROW.get(preset.name, [])) for preset in load_presets()}
CASES |= {name: (name, CONVNEXT) for name in CASES if "convnext" in name}
CASES |= {
    f"{preset.name} released": (name, [*changes, "model.arm_layout=released"])
    for preset, (name, changes) in zip(load_presets(), list(CASES.values()), strict=True)
    if preset.config.model.parts.mixing in GATED
}
IMAGES = [picture(97, 141, 0), picture(120, 90, 1)]
TARGETS = [
    {"boxes": torch.tensor([[10.0, 8, 50, 90], [60.5, 20, 100, 80]]), "labels": torch.tensor([3, -1])},
    {"boxes": torch.tensor([[20.0, 30, 55, 119]]), "labels": torch.tensor([0])},
]
HEADS = {
    "nae": {"reid_cls", "reid_reg", "oim"},
    "seqnet": {"detection_cls", "detection_reg", "reid_cls", "reid_reg", "oim"},
}
HEADS["cascaded"] = HEADS["seqnet"] | {"reid_cls_2", "reid_reg_2", "oim_2"}


def make(config):
    """The model in train mode, with nothing in it that is zero, or next to it, by its initialisation."""
    torch.manual_seed(0)
    model = build_model(config)
    randomise(model)
    for head in model.roi_heads.reid_heads:
        for table in (head.reid_loss.lut, head.reid_loss.cq):
            table.copy_(nn.functional.normalize(torch.randn(table.shape), dim=1))
    for part in model.modules():
        if isinstance(part, CNBlock):
            nn.init.uniform_(part.layer_scale, 0.5, 1.5)
        if isinstance(part, StochasticDepth):
            part.p = 0.0  # a block left out for all images gets no gradient
    return model.train()


@pytest.mark.parametrize(("preset", "changes"), CASES.values(), ids=CASES)
def test_one_step(preset, changes):
    config = load_config(find_config(preset), [*SMALL, *changes])
    model = make(config.model)
    losses = model.losses(IMAGES, TARGETS)
    assert set(losses) == {"rpn_cls", "rpn_reg"} | HEADS[config.model.parts.heads]
    assert all(loss.dim() == 0 and torch.isfinite(loss) and loss > 0 for loss in losses.values())
    total = sum(config.train.loss_weights.of(name) * loss for name, loss in losses.items())
    total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad, name
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    found = model.eval().detect(IMAGES)
    assert all(len(people["boxes"]) == len(people["embeddings"]) for people in found)
