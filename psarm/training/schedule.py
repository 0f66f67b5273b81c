"""The learning rate as a pure function of the iteration, so that resuming has no schedule to restore."""

from __future__ import annotations

from psarm.config import TrainConfig

WARMUP_START = 1e-3
"""The warm-up begins at this fraction of the learning rate."""


def learning_rate(recipe: TrainConfig, iteration: int, per_epoch: int) -> float:
    """The learning rate of `iteration` (from 0): linear warm-up, then steps down after the epochs of `lr_steps`.

    `per_epoch` is the number of iterations an epoch.
    """
    passed = sum(iteration >= step * per_epoch for step in recipe.lr_steps)
    lr = recipe.lr * recipe.lr_gamma**passed
    warmup = recipe.warmup_epochs * per_epoch
    if iteration >= warmup:
        return lr
    progress = iteration / warmup
    return lr * (WARMUP_START * (1 - progress) + progress)
