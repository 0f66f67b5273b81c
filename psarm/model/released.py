"""The released SeqNet and PS-ARM checkpoints: what they call our parameters, and reading them strictly.

Both files are dicts with `model`, `optimizer`, `lr_scheduler`, `epoch`. PS-ARM wraps the backbone's stages once more
and keeps ARM under `mlP_model`; torchvision < 0.13 named the RPN's 3x3 convolution without the two indices.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from psarm.config import ModelConfig
from psarm.errors import CheckpointError
from psarm.model.builder import build_model
from psarm.model.weights_file import misfit

HEADER = "roi_heads.reid_loss.header"
COUNTER = ".num_batches_tracked"
_PARALLEL = "module."
_TABLES = ("roi_heads.reid_loss.lut", "roi_heads.reid_loss.cq")
_NAMED_IN_MESSAGES = 10

# Ours → released, applied in this order.
_BOTH = [
    (r"^roi_heads\.box_predictor\.", "roi_heads.box_predictor.bbox_pred."),
    (r"^roi_heads\.embedding_head\.(res[45])\.", r"roi_heads.embedding_head.projectors.feat_\1."),
]
_PSARM = [
    (r"^backbone\.conv1\.", "backbone.feature1.0."),
    (r"^backbone\.bn1\.", "backbone.feature1.1."),
    (r"^(backbone\.layer[123]|roi_heads\.(?:box|reid)_head\.layer4)\.", r"\1.0."),
    (r"\.arm\.reduce\.", ".qconv1."),
    (r"\.arm\.expand\.", ".qconv2."),
    (r"\.arm\.mixer\.", ".mlP_model.mixers."),
    (r"\.token_mixer\.gate\.", ".token_mixer.spatial_att.spatial."),
    (r"\.channel_mixer\.gate\.fc1\.", ".channel_mixer.channel_att.mlp.1."),
    (r"\.channel_mixer\.gate\.fc2\.", ".channel_mixer.channel_att.mlp.3."),
]
_OLD_TORCHVISION = [(r"^rpn\.head\.conv\.0\.0\.", "rpn.head.conv.")]


@dataclass(frozen=True)
class Released:
    """A released state dict, every name accounted for."""

    config: ModelConfig
    state: dict[str, Tensor]
    """What the model of `config` needs, under our names and no others."""
    names: dict[str, str]
    """Our name → the file's, of everything in the file."""
    old_torchvision: bool
    """The RPN is named as by torchvision < 0.13."""
    parallel: bool
    """Every name began with DataParallel's `module.`."""

    @property
    def added(self) -> list[str]:
        """Our names of what the file does not store: 0 in `state`."""
        return [name for name in self.state if name not in self.names]


def looks_released(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has the projectors of the norm-aware embedding under their released name."""
    return any(name.startswith("roi_heads.embedding_head.projectors.") for name in _bare(state))


def read_released(state: Mapping[str, Tensor], source: str) -> Released:
    """A state dict that `looks_released`, read from `source`.

    Raises CheckpointError, naming what is wrong as the file does, unless it holds exactly the released SeqNet or
    PS-ARM, with OIM tables of any length.
    """
    bare = _bare(state)
    if not any(name.startswith("roi_heads.reid_head.") for name in bare):
        raise CheckpointError(
            f"{source} has a norm-aware embedding but no re-id head behind its detection head (NAE's single head?); "
            "psarm reads the released SeqNet and PS-ARM files."
        )
    _check_tables(bare, source)
    psarm = any(".mlP_model." in name for name in bare)
    config = released_config(bare, psarm)
    with torch.device("meta"):  # names, shapes and types alone
        needed = build_model(config).state_dict()
    old = "rpn.head.conv.weight" in bare
    counted = any(name.endswith(COUNTER) for name in bare)
    names = {
        name: released_name(name, psarm, old)
        for name in needed
        if name != HEADER and (counted or not name.endswith(COUNTER))
    }
    if wrong := misfit({names[name]: needed[name] for name in names}, bare, _NAMED_IN_MESSAGES):
        raise CheckpointError(
            f"{source} is not the released {'PS-ARM' if psarm else 'SeqNet'}: parameters {wrong}; give the released "
            "file unchanged."
        )
    return Released(
        config,
        {
            name: bare[names[name]].to(value.dtype) if name in names else torch.zeros(value.shape, dtype=value.dtype)
            for name, value in needed.items()
        },
        {name: (_PARALLEL if bare is not state else "") + theirs for name, theirs in names.items()},
        old,
        bare is not state,
    )


def released_name(name: str, psarm: bool, old_torchvision: bool) -> str:
    """What the released PS-ARM (or SeqNet) calls our parameter `name`."""
    for pattern, replacement in [*_BOTH, *(_PSARM if psarm else []), *(_OLD_TORCHVISION if old_torchvision else [])]:
        name = re.sub(pattern, replacement, name)
    return name


def released_config(state: Mapping[str, Tensor], psarm: bool) -> ModelConfig:
    """The configuration of a released model, table sizes read from its state dict; the rest is fixed."""
    lut, queue = (len(state[name]) for name in _TABLES)
    return ModelConfig(
        variant="psarm" if psarm else "seqnet",
        arm_layout="released" if psarm else "paper",
        num_identities=lut,
        queue_size=queue,
    )


def _bare(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """`state` itself, or without DataParallel's prefix where every name has it."""
    if not all(name.startswith(_PARALLEL) for name in state):
        return state
    return {name.removeprefix(_PARALLEL): value for name, value in state.items()}


def _check_tables(state: Mapping[str, Tensor], source: str) -> None:
    for name in _TABLES:
        table = state.get(name)
        if table is None or table.dim() != 2 or len(table) == 0:
            found = "is missing" if table is None else f"has the shape {list(table.shape)}, needed [rows, 256]"
            raise CheckpointError(f"{source}: the OIM table {name} {found}; give the released file unchanged.")
