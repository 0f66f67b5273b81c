"""One optimizer step: losses of one or several batches, gradients of all processes, clipping, the weights' average."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from psarm.config import TrainConfig
from psarm.data.loader import Batch
from psarm.model.person_search import PersonSearchModel
from psarm.training.faults import Diverged


class Losses(nn.Module):
    """`forward` is the model's losses: what Accelerate wraps for mixed precision and several processes."""

    def __init__(self, model: PersonSearchModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The unweighted losses."""
        return self.model.losses(images, targets)


class Stepper:
    """Takes optimizer steps.

    Args:
        recipe: with the learning rate for the effective batch.
        accelerator: precision and processes.
        model: that is trained.
        losses: its `Losses`, prepared.
        optimizer: of its parameters, prepared.
        average: of its weights, follows them; or None.
    """

    def __init__(
        self,
        recipe: TrainConfig,
        accelerator: Accelerator,
        model: PersonSearchModel,
        losses: nn.Module,
        optimizer: AcceleratedOptimizer,
        average: AveragedModel | None,
    ) -> None:
        self.recipe = recipe
        self.accelerator = accelerator
        self.model = model
        self.losses = losses
        self.optimizer = optimizer
        self.average = average

    def step(self, batches: Iterable[Batch], lr: float) -> tuple[dict[str, float], float]:
        """One step over `recipe.accumulate` batches.

        Returns the weighted losses, means over batches and processes, with their sum as `total`; and the norm of the
        gradient before clipping. Raises `Diverged` in every process where one of these is not finite; but fp16's loss
        scaler skips a step whose gradient is not finite, and lowers its scale, as long as there is scale to lower.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        found = []
        for number, batch in enumerate(batches, start=1):
            last = number == self.recipe.accumulate
            # Gradients travel between processes once a step, with the last batch.
            with nullcontext() if last else self.accelerator.no_sync(self.losses):
                found.append(self._gradients(batch))
        values = self._means(found)
        check_finite(values)
        norm = float(self.accelerator.clip_grad_norm_(self.losses.parameters(), self.recipe.clip_norm))
        scaler = self.accelerator.scaler
        if scaler is None:
            check_finite({"the gradient norm": norm})
        self.optimizer.step()
        if scaler is not None and self.optimizer.step_was_skipped:
            check_scale(scaler.get_scale(), norm)
        elif self.average is not None:
            self.average.update_parameters(self.model)
        return {"total": sum(values.values()), **values}, norm

    def _gradients(self, batch: Batch) -> dict[str, Tensor]:
        """Add the gradients of a batch; the weighted losses."""
        tensors = (batch.images, batch.targets)
        images, targets = send_to_device(tensors, self.accelerator.device, non_blocking=True, skip_keys="seed")
        unweighted = self.losses([image.float().div(255) for image in images], targets)
        losses = {name: self.recipe.loss_weights.of(name) * loss for name, loss in unweighted.items()}
        total = torch.stack(list(losses.values())).sum()
        self.accelerator.backward(total / self.recipe.accumulate)
        return {name: loss.detach() for name, loss in losses.items()}

    def _means(self, found: list[dict[str, Tensor]]) -> dict[str, float]:
        """Over batches and processes."""
        losses = torch.stack([torch.stack(list(losses.values())) for losses in found]).mean(0)
        means = self.accelerator.reduce(losses, "mean").tolist()
        return dict(zip(found[0], means, strict=True))


def check_finite(values: dict[str, float]) -> None:
    """Raise `Diverged` naming the values that are infinite or not numbers."""
    bad = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise Diverged(", ".join(bad))


def check_scale(scale: float, norm: float) -> None:
    """Raise `Diverged` where the loss `scale` of fp16 was lowered below 1, so that no overflow explains `norm`.

    Below that the scale would soon be 0, and the weights not numbers.
    """
    if scale < 1:
        raise Diverged(f"the gradient norm is {norm} in fp16 even at a loss scale of 1")
