"""What a fresh training starts from: random weights, an ImageNet backbone, or a checkpoint.

The recipe trains nothing of a stem that holds pretrained backbone weights, torchvision's or a file's; with a checkpoint
or random weights everything is trained.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlparse

from torch import Tensor, hub
from torchvision.models import get_model_weights

from psarm.config import GATED, ModelConfig
from psarm.errors import CheckpointError, ConfigError, TrainingError
from psarm.model.backbone import torchvision_name
from psarm.model.checkpoint import Checkpoint, checkpoint_of, load_state
from psarm.model.person_search import PersonSearchModel
from psarm.model.released import COUNTER, looks_released
from psarm.model.weights_file import WeightsFile, misfit, read_weights

IMAGENET = "imagenet"
# Which people the tables hold belongs to a data set, so a fresh training always begins with empty ones.
_TABLES = re.compile(r"roi_heads\.(further\.\d+\.)?reid_loss\.")
_CLASSIFIERS = ("fc.", "classifier.")  # of torchvision's ResNets and ConvNeXts


def initialise(model: PersonSearchModel, source: str) -> None:
    """Load the weights named by `source` (train.init) into a freshly built `model`; empty leaves it random.

    `source` is `imagenet` (torchvision's weights, from torch's cache or downloaded), a file with the state dict of
    torchvision's network, or a checkpoint; the content tells which a file is. The first two fill the backbone and every
    head's copy of its last stage, and stop training the stem.

    Raises `CheckpointError` where a file cannot be read, does not fit, or holds weights that would compute something
    else in `model`; `ConfigError` where the width has no ImageNet weights and `TrainingError` where those are neither
    cached nor downloadable.
    """
    if not source:
        return
    if source == IMAGENET:
        source = _imagenet_file(model)
    file = read_weights(source)
    if _is_checkpoint(file):
        _load_checkpoint(model, checkpoint_of(file, source), source)
    else:
        _load_backbone(model, file.state, source)
        model.backbone.freeze_stem()


def freeze_as_saved(model: PersonSearchModel, optimizer: Mapping[str, Any]) -> None:
    """Stop training the stem where the run that saved this `optimizer` state had stopped it; no file is read again."""
    trained = sum(len(group["params"]) for group in optimizer["param_groups"])
    if trained < len(parameters(model)):
        model.backbone.freeze_stem()


def parameters(model: PersonSearchModel) -> list[Tensor]:
    """What the optimizer trains."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _is_checkpoint(file: WeightsFile) -> bool:
    ours = "psarm" in file.about or any(name.startswith("roi_heads.") for name in file.state)
    return ours or looks_released(file.state)


def _load_checkpoint(model: PersonSearchModel, checkpoint: Checkpoint, source: str) -> None:
    ours, theirs = _meaning(model.config), _meaning(checkpoint.config)
    other = [key for key in theirs if theirs[key] != ours[key]]
    if other:
        differences = ", ".join(f"model.{key} is {ours[key]}, there {theirs[key]}" for key in other)
        overrides = " ".join(f"-o {shlex.quote(f'model.{key}={theirs[key]}')}" for key in other)
        raise CheckpointError(
            f"The weights of {source} would compute something else in this model ({differences}); give {overrides}."
        )
    tables = {name: value for name, value in model.state_dict().items() if _TABLES.match(name)}
    load_state(model, {**checkpoint.state, **tables}, source)


def _meaning(config: ModelConfig) -> dict[str, Any]:
    """Settings that change what the same weights compute, though every name and shape may fit.

    Sizes of images are not among them: a model takes pictures of any size.
    """
    height, width = config.roi_shape
    return {
        "variant": config.variant,
        "arm_layout": config.arm_layout if config.parts.mixing in GATED else "paper",
        "roi_size": height if height == width else [height, width],
        "anchor_sizes": list(config.anchor_sizes),
        "anchor_ratios": list(config.anchor_ratios),
    }


def _imagenet_file(model: PersonSearchModel) -> str:
    """The file in torch's cache, downloaded where it is not there yet."""
    config = model.config
    if config.width != 1:
        raise ConfigError(
            f"train.init is 'imagenet' with model.width {config.width}; ImageNet weights need width 1; "
            "-o train.init= trains from random weights."
        )
    url = get_model_weights(config.backbone)["IMAGENET1K_V1"].url
    path = Path(hub.get_dir(), "checkpoints", Path(urlparse(url).path).name)
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rpartition("-")[2], progress=False)
        except (URLError, OSError, RuntimeError) as error:  # RuntimeError: what came has another hash
            raise TrainingError(
                f"The ImageNet weights of {config.backbone} are neither in torch's cache nor downloadable ({error}); "
                f"fetch {url} into {path.parent}, or train with -o train.init= (random weights)."
            ) from error
    return str(path)


def _load_backbone(model: PersonSearchModel, weights: Mapping[str, Tensor], source: str) -> None:
    """Fill the backbone and every copy of its last stage; strict but for the classifier, which is left out by name."""
    config = model.config
    state = model.state_dict()
    names = {ours: name for ours in state if (name := torchvision_name(config.backbone, ours)) is not None}
    needed = {name: state[ours] for ours, name in names.items()}
    # Files from before BatchNorm counted its batches lack the counters, which nothing here reads.
    given = {name: value for name, value in needed.items() if name.endswith(COUNTER)}
    given |= {name: value for name, value in weights.items() if not name.startswith(_CLASSIFIERS)}
    if wrong := misfit(needed, given):
        width = "" if config.width == 1 else f" of width {config.width}"
        raise CheckpointError(
            f"{source} does not fit the backbone {config.backbone}{width}: parameters {wrong}; train.init takes a "
            "checkpoint, or the state dict of torchvision's network."
        )
    model.load_state_dict({**state, **{ours: given[name] for ours, name in names.items()}})
