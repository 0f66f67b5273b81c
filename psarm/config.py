"""Configuration: grouped dataclasses with documented fields, read from YAML and `key=value` overrides.

Importable without torch. Every check names the offending key.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from psarm.errors import ConfigError

Mixing = Literal[
    "arm", "relation_mixer", "spatially_attended", "channel_attended", "mlp_mixer", "transformer", "spatio_channel"
]
"""What mixes the cells of a RoI; `arm` is the relation mixer with spatio-channel attention."""


@dataclass(frozen=True)
class Variant:
    """What a model's heads are made of."""

    heads: Literal["nae", "seqnet", "cascaded"]
    """nae: one head detects and embeds; seqnet: a detection head, then a re-id head; cascaded: one more re-id head."""
    mixing: Mixing | None = None
    """What stands before res5 of every head."""


VARIANTS = {
    "nae": Variant("nae"),
    "nae_arm": Variant("nae", "arm"),
    "seqnet": Variant("seqnet"),
    "psarm": Variant("seqnet", "arm"),
    "cascaded_psarm": Variant("cascaded", "arm"),
    "seqnet_mlp_mixer": Variant("seqnet", "mlp_mixer"),
    "seqnet_transformer": Variant("seqnet", "transformer"),
    "seqnet_spatio_channel": Variant("seqnet", "spatio_channel"),
    "seqnet_channel_attended": Variant("seqnet", "channel_attended"),
    "seqnet_spatially_attended": Variant("seqnet", "spatially_attended"),
    "seqnet_relation_mixer": Variant("seqnet", "relation_mixer"),
}
"""The rows of the paper's Tables 1 and 2 by the name that `model.variant` takes."""
GATED = ("arm", "relation_mixer", "spatially_attended", "channel_attended")
"""Mixings with an attention gate; only these differ between the two layouts."""

Group = TypeVar("Group")
# Numbers that YAML 1.1 reads as text: it wants 1.0e-4 and 1.5e+3.
_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


@dataclass(frozen=True)
class ModelConfig:
    """Everything needed to build a model (and to rebuild it from a checkpoint).

    Defaults are the published PS-ARM (ResNet-50, 900x1500, 14x14 RoIs) with the paper's ARM layout.
    """

    variant: str = "psarm"
    """A name of `VARIANTS`. psarm: SeqNet plus the attention-aware relation mixer; seqnet: without it; …"""
    backbone: Literal["resnet18", "resnet50", "resnet101", "convnext_tiny", "convnext_base"] = "resnet50"
    width: float = 1.0
    """Channel multiplier of the backbone; 1 is torchvision's network."""
    arm_layout: Literal["paper", "released"] = "paper"
    """paper: gates see the feature map; released: gates see the scrambled map the released weights were trained on."""
    arm_reduction: int = 4
    """ARM works on C / arm_reduction channels."""
    arm_dropout: float = 0.5
    min_size: int = 900
    """Short side after resizing, pixels, unless the long side would pass `max_size`."""
    max_size: int = 1500
    anchor_sizes: tuple[int, ...] = (32, 64, 128, 256, 512)
    """Square root of the anchor areas, pixels."""
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height over width."""
    pre_nms_top_n_train: int = 12000
    pre_nms_top_n_test: int = 6000
    post_nms_top_n_train: int = 2000
    post_nms_top_n_test: int = 300
    rpn_nms_thresh: float = 0.7
    rpn_batch_size: int = 256
    """Anchors sampled an image for the RPN losses, half of them positive at most."""
    roi_size: int | tuple[int, ...] = 14
    """Cells of a RoI: a side, or [height, width] as in [24, 8]."""
    roi_batch_size: int = 128
    """RoIs sampled an image for each head's losses, half of them positive at most."""
    score_thresh: float = 0.5
    detection_nms_thresh: float = 0.4
    """NMS between the detection head and the re-id head."""
    final_nms_thresh: float = 0.5
    detections_per_image: int = 300
    embedding_dim: int = 256
    num_identities: int = 482
    """Rows of OIM's lookup table: labelled training identities."""
    queue_size: int = 500
    """Rows of OIM's circular queue of unlabelled people."""
    oim_momentum: float = 0.5
    oim_scalar: float = 30.0

    def __post_init__(self) -> None:
        check_values(self, "model")
        _require(self.variant in VARIANTS, "model.variant", self.variant, "one of " + ", ".join(VARIANTS))
        mixing = self.parts.mixing
        if self.arm_layout == "released" and mixing is not None and mixing not in GATED:
            raise ConfigError(
                f"model.arm_layout is 'released' with model.variant {self.variant!r}, whose mixing has no gate and "
                "only one layout; leave it at 'paper'."
            )
        rois = self.roi_size if isinstance(self.roi_size, tuple) else (self.roi_size,) * 2
        _require(
            len(rois) == 2 and min(rois) > 0, "model.roi_size", self.roi_size, "a side or [height, width], above 0"
        )
        if self.backbone.startswith("convnext"):
            _require(min(rois) > 1, "model.roi_size", self.roi_size, "sides of at least 2, which ConvNeXt halves")
        _require(self.width > 0, "model.width", self.width, "more than 0")
        _require(0 < self.min_size <= self.max_size, "model.min_size", self.min_size, "between 1 and model.max_size")
        _require(
            self.embedding_dim % 2 == 0 and self.embedding_dim > 0,
            "model.embedding_dim",
            self.embedding_dim,
            "an even number",
        )
        _require(
            bool(self.anchor_sizes) and min(self.anchor_sizes) > 0,
            "model.anchor_sizes",
            self.anchor_sizes,
            "sizes above 0",
        )
        _require(
            bool(self.anchor_ratios) and min(self.anchor_ratios) > 0,
            "model.anchor_ratios",
            self.anchor_ratios,
            "ratios above 0",
        )
        for name in (
            "roi_batch_size",
            "rpn_batch_size",
            "num_identities",
            "detections_per_image",
            "arm_reduction",
            "pre_nms_top_n_train",
            "pre_nms_top_n_test",
            "post_nms_top_n_train",
            "post_nms_top_n_test",
        ):
            _require(getattr(self, name) > 0, f"model.{name}", getattr(self, name), "more than 0")
        _require(self.queue_size >= 0, "model.queue_size", self.queue_size, "0 or more")
        for name in (
            "score_thresh",
            "detection_nms_thresh",
            "final_nms_thresh",
            "rpn_nms_thresh",
            "oim_momentum",
            "arm_dropout",
        ):
            _require(0 <= getattr(self, name) <= 1, f"model.{name}", getattr(self, name), "between 0 and 1")

    @property
    def parts(self) -> Variant:
        """What the variant's heads are made of."""
        return VARIANTS[self.variant]

    @property
    def roi_shape(self) -> tuple[int, int]:
        """Height and width of a RoI in cells."""
        if isinstance(self.roi_size, int):
            return self.roi_size, self.roi_size
        height, width = self.roi_size
        return height, width


@dataclass(frozen=True)
class DataConfig:
    """Which data set to read, and how."""

    dataset: Literal["prw", "cuhk-sysu", "visits"] = "prw"
    root: str = ""
    """Folder of the data set."""
    workers: int = 2
    """Processes that decode and resize images."""

    def __post_init__(self) -> None:
        check_values(self, "data")
        _require(self.workers >= 0, "data.workers", self.workers, "0 or more")


@dataclass(frozen=True)
class LossWeights:
    """Weights of the seven losses; the defaults are the released recipe's."""

    rpn_cls: float = 1.0
    rpn_reg: float = 1.0
    detection_cls: float = 1.0
    detection_reg: float = 10.0
    reid_cls: float = 1.0
    reid_reg: float = 1.0
    oim: float = 1.0

    def __post_init__(self) -> None:
        check_values(self, "train.loss_weights")

    def of(self, loss: str) -> float:
        """The weight of a loss; a further re-id head's (`oim_2`) are weighted as the first's."""
        return float(getattr(self, loss.removesuffix("_2")))


@dataclass(frozen=True)
class TrainConfig:
    """The training recipe; the defaults are PS-ARM's (paper section 4.1)."""

    output: str = "runs/psarm"
    """Folder for checkpoints and TensorBoard logs."""
    epochs: int = 12
    batch_size: int = 3
    lr: float = 0.003
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup_epochs: float = 1.0
    """Linear warm-up from lr/1000, in epochs."""
    lr_steps: tuple[int, ...] = (8,)
    """Epochs after which the learning rate is multiplied by `lr_gamma`."""
    lr_gamma: float = 0.1
    clip_norm: float = 10.0
    amp: Literal["no", "fp16", "bf16"] = "no"
    flip: float = 0.5
    """Probability of a horizontal flip."""
    seed: int = 0
    threads: int = 0
    """CPU threads of torch; 0 leaves torch's own choice."""
    init: str = ""
    """Weights to start from: a psarm checkpoint; 'imagenet' (torchvision's, from torch's cache or downloaded) or a file
    with the state dict of torchvision's network, both of which leave the stem untrained; or empty for random."""
    evaluate: bool = True
    """Evaluate on the test split after the last epoch."""
    loss_weights: LossWeights = field(default_factory=LossWeights)

    def __post_init__(self) -> None:
        check_values(self, "train")
        for name in ("epochs", "batch_size", "lr", "clip_norm"):
            _require(getattr(self, name) > 0, f"train.{name}", getattr(self, name), "more than 0")
        for name in ("warmup_epochs", "seed", "threads"):
            _require(getattr(self, name) >= 0, f"train.{name}", getattr(self, name), "0 or more")
        _require(0 <= self.flip <= 1, "train.flip", self.flip, "between 0 and 1")


@dataclass(frozen=True)
class Config:
    """A whole training run: model, data and recipe."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


def load_config(path: str | Path, overrides: typing.Sequence[str] = ()) -> Config:
    """Read a YAML file and apply `group.key=value` overrides; raises `ConfigError` naming the file or override.

    The group `about` is for readers of presets (`psarm.presets`) and ignored here.
    """
    import yaml

    tree = read_groups(path)
    tree.pop("about", None)
    for override in overrides:
        try:
            _apply_override(tree, override, yaml.safe_load)
        except yaml.YAMLError as error:
            raise ConfigError(f"Override {override!r} has a value that is not valid YAML; quote it.") from error
    return from_dict(Config, tree, str(path))


def read_groups(path: str | Path) -> dict[str, Any]:
    """The groups of a configuration file, `about` among them, not checked yet."""
    import yaml

    path = Path(path)
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"There is no configuration file {path}; configs/ of a checkout holds presets.") from error
    except OSError as error:
        raise ConfigError(f"Cannot read the configuration file {path}: {error.strerror}.") from error
    except (UnicodeDecodeError, yaml.reader.ReaderError) as error:
        raise ConfigError(f"{path} is not a text file; a YAML file in UTF-8 is needed.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ConfigError(f"{path} is not valid YAML{where}.") from error
    if tree is None or tree == {}:
        raise ConfigError(
            f"{path} is empty; it needs the groups {', '.join(typing.get_type_hints(Config))} (see configs/)."
        )
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{path} holds a {type(tree).__name__}; a mapping with the groups model, data and train is needed."
        )
    return tree


def from_dict(cls: type[Group], values: Any, where: str) -> Group:
    """Build a configuration dataclass from plain values, strictly; `where` starts the key path in messages."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: got {values!r}, needed a mapping.")
    hints: dict[str, Any] = typing.get_type_hints(cls)
    unknown = [key for key in values if key not in hints]
    if unknown:
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; known keys are {', '.join(sorted(hints))}.")
    made = {}
    for key, value in values.items():
        kind = hints[key]
        made[key] = _value(kind, value, f"{where}: {key}")
    return cls(**made)


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration dataclass as plain values (tuples become lists), the inverse of `from_dict`."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, tuple) else value

    return {key: plain(value) for key, value in dataclasses.asdict(config).items()}


def check_values(config: Any, group: str) -> None:
    """Raise `ConfigError` where a field's value does not have the annotated type."""
    for name, kind in typing.get_type_hints(type(config)).items():
        value = getattr(config, name)
        if not dataclasses.is_dataclass(kind) and not _fits(kind, value):
            raise ConfigError(f"{group}.{name} is {value!r}; needed {_describe(kind)}.")


def _value(kind: Any, value: Any, where: str) -> Any:
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return from_dict(kind, value, where)
    return _plain(kind, value)


def _plain(kind: Any, value: Any) -> Any:
    if isinstance(kind, types.UnionType):
        lists = [option for option in get_args(kind) if get_origin(option) is tuple]
        return _plain(lists[0], value) if lists else value
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_plain(get_args(kind)[0], item) for item in value)
    if kind is float and isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    return float(value) if kind is float and isinstance(value, int) and not isinstance(value, bool) else value


def _fits(kind: Any, value: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_fits(get_args(kind)[0], item) for item in value)
    if isinstance(kind, types.UnionType):
        return any(_fits(option, value) for option in get_args(kind))
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is kind


def _describe(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        return f"a list of {get_args(kind)[0].__name__}"
    if isinstance(kind, types.UnionType):
        return " or ".join(map(_describe, get_args(kind)))
    return f"a value of type {getattr(kind, '__name__', kind)}"


def _apply_override(tree: dict[str, Any], override: str, parse: typing.Callable[[str], Any]) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"Override {override!r} is not of the form group.key=value, such as train.epochs=4.")
    value = parse(text)
    _check_override(override, key.split("."), value)
    *groups, last = key.split(".")
    place: Any = tree
    for group in groups:
        place = place.setdefault(group, {})
        if not isinstance(place, dict):  # the file is wrong, not the override: `from_dict` says so
            return
    place[last] = value


def _check_override(override: str, parts: list[str], value: Any) -> None:
    """Raise `ConfigError` unless `parts` lead to a key, or to a group that `value` holds keys of."""
    kind: Any = Config
    for depth, part in enumerate(parts):
        if not dataclasses.is_dataclass(kind):
            raise ConfigError(f"Override {override!r}: {'.'.join(parts[:depth])} is a value, not a group.")
        hints = typing.get_type_hints(kind)
        if part not in hints:
            raise ConfigError(f"Override {override!r}: {_unknown(parts, depth, list(hints))}")
        kind = hints[part]
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            keys = ", ".join(typing.get_type_hints(kind))
            raise ConfigError(f"Override {override!r}: {'.'.join(parts)} is a group; give one of its keys: {keys}.")
        for name, inner in value.items():
            _check_override(override, [*parts, str(name)], inner)


def _unknown(parts: list[str], depth: int, known: list[str]) -> str:
    """What is wrong with `parts[depth]`, which is not among the `known` names there, and what may be meant."""
    group = ".".join(parts[:depth])
    wrong = f"{group} has no key {parts[depth]!r}" if group else f"there is no group or key {parts[depth]!r}"
    meant = [path for path in _key_paths(Config) if path.rpartition(".")[2] == parts[-1]]
    if len(meant) == 1:
        return f"{wrong}; did you mean {meant[0]}?"
    return f"{wrong}; {'known keys' if group else 'the groups'} are {', '.join(known)}."


def _key_paths(cls: Any, before: str = "") -> typing.Iterator[str]:
    """Dotted names of all keys below a configuration dataclass."""
    for name, kind in typing.get_type_hints(cls).items():
        if dataclasses.is_dataclass(kind):
            yield from _key_paths(kind, f"{before}{name}.")
        else:
            yield before + name


def _require(holds: bool, key: str, value: Any, needed: str) -> None:
    if not holds:
        raise ConfigError(f"{key} is {value!r}; needed {needed}.")
