"""The learning rate as a pure function of the step, so that resuming has no schedule to restore."""

from __future__ import annotations

from dataclasses import replace

from psarm.config import TrainConfig

WARMUP_START = 1e-3
"""The warm-up begins at this fraction of the learning rate."""


def scaled_to_batch(recipe: TrainConfig, effective_batch: int) -> TrainConfig:
    """`recipe` with the learning rate for `effective_batch` images a step: linear from `lr_batch`, where that is set.

    Goyal et al., "Accurate, Large Minibatch SGD" (2017), section 2.1.
    """
    if recipe.lr_batch == 0:
        return recipe
    return replace(recipe, lr=recipe.lr * (effective_batch / recipe.lr_batch))


def learning_rate(recipe: TrainConfig, step: int, per_epoch: int) -> float:
    """The learning rate of optimizer step `step` (from 0): linear warm-up, then down after the epochs of `lr_steps`.

    `per_epoch` is the number of steps an epoch.
    """
    passed = sum(step >= epochs * per_epoch for epochs in recipe.lr_steps)
    lr = recipe.lr * recipe.lr_gamma**passed
    warmup = recipe.warmup_epochs * per_epoch
    if step >= warmup:
        return lr
    progress = step / warmup
    return lr * (WARMUP_START * (1 - progress) + progress)
