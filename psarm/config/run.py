"""A training run: model, data and recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from psarm.config.model import ModelConfig
from psarm.config.values import check_values, require

Dataset = Literal["prw", "cuhk-sysu", "visits"]
DATASETS: tuple[str, ...] = get_args(Dataset)
"""Names of the data sets that psarm reads."""


@dataclass(frozen=True)
class DataConfig:
    """Which data set to read, and how."""

    dataset: Dataset = "prw"
    root: str = ""
    """Folder of the data set."""
    workers: int = 2
    """Processes that decode and resize images."""

    def __post_init__(self) -> None:
        check_values(self, "data")
        require(self.workers >= 0, "data.workers", self.workers, "0 or more")


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses; the defaults are the released recipe's."""

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
            require(getattr(self, name) > 0, f"train.{name}", getattr(self, name), "more than 0")
        for name in ("warmup_epochs", "seed", "threads"):
            require(getattr(self, name) >= 0, f"train.{name}", getattr(self, name), "0 or more")
        require(0 <= self.flip <= 1, "train.flip", self.flip, "between 0 and 1")


@dataclass(frozen=True)
class Config:
    """A whole training run: model, data and recipe."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
