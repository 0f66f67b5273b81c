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
    """Format of the data set: PRW's, CUHK-SYSU's, or what `psarm data convert` writes (visits)."""
    root: str = ""
    """Folder of the data set."""
    workers: int = 2
    """Processes that decode and resize images, beside every training process."""
    group_by_shape: bool = True
    """Make batches of frames that come out at about the same shape, so that little is padded."""
    bad_images: Literal["fail", "skip"] = "fail"
    """What to do about a training image that cannot be decoded: stop, or name it and train on another frame."""
    validation: float = 0.0
    """Share of the training frames to hold out, with everybody in them chosen by identity; `best.safetensors` is then
    the epoch with the best mAP on them."""

    def __post_init__(self) -> None:
        check_values(self, "data")
        require(self.workers >= 0, "data.workers", self.workers, "0 or more")
        require(0 <= self.validation < 1, "data.validation", self.validation, "0 or more and less than 1")


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
    """Passes over the training frames."""
    batch_size: int = 3
    """Images a process takes at a time. The effective batch is batch_size x accumulate x processes."""
    accumulate: int = 1
    """Batches whose gradients are added up before each step: a large effective batch on a small GPU."""
    lr: float = 0.003
    """Learning rate of SGD, after the warm-up."""
    lr_batch: int = 0
    """The effective batch that `lr` is meant for: with another one, lr is scaled linearly. 0 takes lr as it is."""
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 5e-4
    """Of SGD, on every trained parameter."""
    warmup_epochs: float = 1.0
    """Linear warm-up from lr/1000, in epochs."""
    lr_steps: tuple[int, ...] = (8,)
    """Epochs after which the learning rate is multiplied by `lr_gamma`."""
    lr_gamma: float = 0.1
    """What the learning rate is multiplied by at each of `lr_steps`."""
    clip_norm: float = 10.0
    """Gradients with a larger norm, all taken together, are scaled down to it."""
    ema: float = 0.0
    """Decay of the moving average of the weights, by step (0.999); the checkpoint then holds the average. 0 is off."""
    amp: Literal["no", "fp16", "bf16"] = "no"
    """Mixed precision; fp16 needs a GPU."""
    sync_batchnorm: bool = True
    """With several processes, take the statistics of BatchNorms over all of them."""
    checkpoint_activations: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, more time."""
    deterministic: bool = False
    """Only algorithms that give the same bits in every run, also on a GPU; slower there."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    seed: int = 0
    """Of everything random: initial weights, order and flips of frames, sampling, dropout."""
    threads: int = 0
    """CPU threads of torch; 0 leaves torch's own choice."""
    init: str = ""
    """Weights to start from: a psarm checkpoint; 'imagenet' (torchvision's, from torch's cache or downloaded) or a file
    with the state dict of torchvision's network, both of which leave the stem untrained; or empty for random."""
    validate_every: int = 1
    """Epochs from one validation to the next, where `data.validation` holds frames out; the last epoch always is."""
    evaluate: bool = True
    """Evaluate on the test split after the last epoch."""
    loss_weights: LossWeights = field(default_factory=LossWeights)

    def __post_init__(self) -> None:
        check_values(self, "train")
        for name in ("epochs", "batch_size", "accumulate", "lr", "clip_norm", "validate_every"):
            require(getattr(self, name) > 0, f"train.{name}", getattr(self, name), "more than 0")
        for name in ("lr_batch", "warmup_epochs", "seed", "threads"):
            require(getattr(self, name) >= 0, f"train.{name}", getattr(self, name), "0 or more")
        require(0 <= self.flip <= 1, "train.flip", self.flip, "between 0 and 1")
        require(0 <= self.ema < 1, "train.ema", self.ema, "0 or more and less than 1")


@dataclass(frozen=True)
class Config:
    """A whole training run: model, data and recipe."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
