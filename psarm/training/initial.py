"""What a fresh training starts from: random weights, torchvision's ImageNet backbone, or a checkpoint."""

from __future__ import annotations

from urllib.error import URLError

from torch import Tensor, hub
from torchvision.models import get_model, get_model_weights

from psarm.errors import ConfigError, TrainingError
from psarm.model.checkpoint import load_state, read_checkpoint
from psarm.model.person_search import PersonSearchModel

IMAGENET = "imagenet"
# Which people the tables hold belongs to a data set, so a fresh training always begins with empty ones.
TABLES = "roi_heads.reid_loss."


def initialise(model: PersonSearchModel, source: str) -> None:
    """Load the weights named by `source` (train.init) into a freshly built `model`; empty leaves it random.

    Raises `CheckpointError` where a checkpoint does not fit, `ConfigError` where the backbone has no ImageNet weights
    and `TrainingError` where those are neither cached nor downloadable.
    """
    if source == IMAGENET:
        _load_imagenet(model)
    elif source:
        tables = {name: value for name, value in model.state_dict().items() if name.startswith(TABLES)}
        load_state(model, {**read_checkpoint(source).state, **tables}, source)


def freeze(model: PersonSearchModel, source: str) -> None:
    """Stop training what the recipe keeps fixed: the stem, where it holds ImageNet weights."""
    if source == IMAGENET:
        model.backbone.freeze_stem()


def _load_imagenet(model: PersonSearchModel) -> None:
    config = model.config
    if config.width != 1:
        raise ConfigError(f"train.init is 'imagenet' with model.width {config.width}; ImageNet weights need width 1.")
    name = config.backbone
    weights = get_model_weights(name)["IMAGENET1K_V1"]
    try:
        pretrained = get_model(name, weights=weights, progress=False).state_dict()
    except (URLError, OSError) as error:
        raise TrainingError(
            f"The ImageNet weights of {name} are neither in torch's cache nor downloadable ({error}); fetch "
            f"{weights.url} into {hub.get_dir()}/checkpoints, or train with -o train.init= (random weights)."
        ) from error
    state = model.state_dict()
    for key, value in pretrained.items():
        if not key.startswith("fc."):  # the ImageNet classifier
            state.update(dict.fromkeys(_names(key), value))
    load_state(model, state, f"torchvision's {name}")


def _names(key: str) -> list[str]:
    """Where torchvision's parameter goes: the backbone, or both heads' own copy of res5."""
    if key.startswith("layer4."):
        return [f"roi_heads.{head}.{key}" for head in ("box_head", "reid_head")]
    return [f"backbone.{key}"]


def parameters(model: PersonSearchModel) -> list[Tensor]:
    """What the optimizer trains."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
