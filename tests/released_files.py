"""Released-style files written the way the released code writes them, at their real sizes or at a small model's."""

import json
import re
from pathlib import Path

import torch
from small_models import VARIANTS, small_model

from psarm.model import released

KEYS = Path(__file__).parent / "model" / "released_keys"
CUHK_SYSU, PRW = (5532, 5000), (482, 500)  # identities, rows of the queue
PARALLEL = "module."


def released_shapes(variant, identities=5532, queue=5000):
    """Names and shapes of a released file."""
    shapes = json.loads((KEYS / f"{variant}.json").read_text())
    return shapes | {"roi_heads.reid_loss.lut": [identities, 256], "roi_heads.reid_loss.cq": [queue, 256]}


def empty_state(variant, tables=PRW, dtype=torch.float32):
    """A whole released state dict that takes no room: every tensor is one number seen many times."""
    return {
        name: torch.tensor(7) if name.endswith("num_batches_tracked") else torch.zeros((), dtype=dtype).expand(shape)
        for name, shape in released_shapes(variant, *tables).items()
    }


def before_013(state):
    """The names that torchvision < 0.13 gave."""
    return {re.sub(r"^rpn\.head\.conv\.0\.0\.", "rpn.head.conv.", name): value for name, value in state.items()}


def training_state():
    """What stands beside `model`: real states of SGD with momentum after a step, and of the scheduler."""
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=0.003, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [8], gamma=0.1)
    weight.sum().backward()
    optimizer.step()
    scheduler.step()
    return {"optimizer": optimizer.state_dict(), "lr_scheduler": scheduler.state_dict(), "epoch": 11}


# Ours → PS-ARM's, in this order; by hand, so that psarm's own table has something to be compared with.
_NAMES = [
    (r"^(backbone\.layer\d|roi_heads\.\w+_head\.layer4)\.", r"\1.0."),
    (r"^backbone\.conv1\.", "backbone.feature1.0."),
    (r"^backbone\.bn1\.", "backbone.feature1.1."),
    (r"\.token_mixer\.gate\.", ".token_mixer.spatial_att.spatial."),
    (r"\.channel_mixer\.gate\.fc1\.", ".channel_mixer.channel_att.mlp.1."),
    (r"\.channel_mixer\.gate\.fc2\.", ".channel_mixer.channel_att.mlp.3."),
    (r"\.arm\.mixer\.", ".mlP_model.mixers."),
    (r"\.arm\.reduce\.", ".qconv1."),
    (r"\.arm\.expand\.", ".qconv2."),
    (r"^roi_heads\.box_predictor\.", "roi_heads.box_predictor.bbox_pred."),
    (r"^roi_heads\.embedding_head\.(res[45])\.", r"roi_heads.embedding_head.projectors.feat_\1."),
]


def small_released(path, monkeypatch):
    """Write a small PS-ARM to `path` under the released names, and let psarm take its sizes for the released ones.

    Returns the model.
    """
    model = small_model(**VARIANTS["released"])
    state = {}
    for name, value in model.state_dict().items():
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        state[name] = value
    del state["roi_heads.reid_loss.header"]
    torch.save({"model": state, **training_state()}, path)
    monkeypatch.setattr(released, "released_config", lambda *arguments: model.config)
    return model
