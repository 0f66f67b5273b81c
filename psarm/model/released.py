"""Names of the released SeqNet and PS-ARM checkpoints, mapped to ours.

Both files are dicts with `model`, `optimizer`, `lr_scheduler`, `epoch`. PS-ARM wraps the backbone's stages once more
and keeps ARM under `mlP_model`; torchvision < 0.13 named the RPN's 3x3 convolution without the two indices.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from psarm.config import ModelConfig

_RENAMES = [
    (r"^backbone\.feature1\.0\.", "backbone.conv1."),
    (r"^backbone\.feature1\.1\.", "backbone.bn1."),
    (r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1"),
    (r"\.mlP_model\.mixers\.", ".arm.mixer."),
    (r"\.token_mixer\.spatial_att\.spatial\.", ".token_mixer.gate."),
    (r"\.channel_mixer\.channel_att\.mlp\.1\.", ".channel_mixer.gate.fc1."),
    (r"\.channel_mixer\.channel_att\.mlp\.3\.", ".channel_mixer.gate.fc2."),
    (r"\.qconv1\.", ".arm.reduce."),
    (r"\.qconv2\.", ".arm.expand."),
    (r"^roi_heads\.box_predictor\.bbox_pred\.", "roi_heads.box_predictor."),
    (r"^roi_heads\.embedding_head\.projectors\.feat_(res[45])\.", r"roi_heads.embedding_head.\1."),
]
_PSARM_STAGE = (r"(backbone\.layer[123]|roi_heads\.(?:box|reid)_head\.layer4)\.0\.(\d+\.)", r"\1.\2")


def looks_released(names: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has the projectors of the norm-aware embedding under their released name."""
    return any(name.startswith("roi_heads.embedding_head.projectors.") for name in names)


def is_psarm(names: Mapping[str, Tensor]) -> bool:
    """Whether a released state dict is PS-ARM's."""
    return any(".mlP_model." in name for name in names)


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A released state dict under our names."""
    rules = [*_RENAMES, _PSARM_STAGE] if is_psarm(state) else _RENAMES
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def released_config(state: Mapping[str, Tensor], psarm: bool) -> ModelConfig:
    """The configuration of a released model, table sizes read from a renamed state dict; the rest is fixed."""
    return ModelConfig(
        variant="psarm" if psarm else "seqnet",
        arm_layout="released" if psarm else "paper",
        num_identities=len(state["roi_heads.reid_loss.lut"]),
        queue_size=len(state["roi_heads.reid_loss.cq"]),
    )
