"""One training run: SGD over the model's losses, a checkpoint every epoch, exact resume (paper section 4.1)."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import send_to_device, set_seed
from torch import Tensor, nn

from psarm import console
from psarm.config import Config, to_dict
from psarm.data.loader import TrainingFrames, training_loader
from psarm.data.types import PersonSearchDataset
from psarm.data.workers import plain_errors
from psarm.errors import TrainingError
from psarm.evaluation.protocol import SearchProtocol
from psarm.evaluation.scoring import Metrics
from psarm.files import write_json
from psarm.model.builder import build_model
from psarm.model.checkpoint import save_model
from psarm.model.person_search import PersonSearchModel
from psarm.training import initial
from psarm.training.evaluate import evaluate
from psarm.training.report import LOG_FILES, Report
from psarm.training.schedule import learning_rate
from psarm.training.setup import check_output, fit_to_dataset, make_accelerator, read_dataset
from psarm.training.state import (
    METRICS_FILE,
    MODEL_FILE,
    STATE_FILE,
    TrainingState,
    check_same_run,
    dataset_facts,
    differences,
    load_state,
    save_state,
)


@dataclass(frozen=True)
class TrainingResult:
    """What a finished training left behind."""

    checkpoint: Path
    epochs: int
    losses: dict[str, float]
    """Weighted means of the last epoch, with their sum as `total`."""
    metrics: Metrics | None
    """Fractions on the test split; None where `train.evaluate` is off."""
    seconds: float
    """Of training, since the start or resume."""


class Losses(nn.Module):
    """`forward` is the model's losses: what Accelerate wraps for mixed precision and several processes."""

    def __init__(self, model: PersonSearchModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The unweighted losses."""
        return self.model.losses(images, targets)


def train(config: Config, resume: bool = False, overwrite: bool = False) -> TrainingResult:
    """Train to the last epoch and evaluate.

    The output folder gets `last.pt`, `model.safetensors`, TensorBoard logs and (with `train.evaluate`) `metrics.json`.

    Args:
        config: the run; `model.num_identities` is replaced by the data set's number of training identities.
        resume: go on from the output folder's `last.pt`; the result equals that of a run never interrupted.
        overwrite: start again in a folder that holds a training.

    Raises:
        UsageError: the output folder holds a training already, or there is nothing (or another run) to resume.
        DataError: the data set cannot be read, or has nothing to evaluate on.
        TrainingError: a loss or gradient is not finite; the last checkpoint stays.
        OSError: the disk is full; the last checkpoint stays.
        KeyboardInterrupt: with a sentence where only the evaluation was left to do.
    """
    output = Path(config.train.output)
    check_output(output, resume, overwrite)
    dataset = read_dataset(config.data)
    config = fit_to_dataset(config, dataset)
    if config.train.evaluate:
        SearchProtocol.from_dataset(dataset)  # a test split that cannot be scored is better known now than at the end
    saved = load_state(output / STATE_FILE) if resume else None
    if saved is not None:
        check_same_run(saved, config, dataset)
        _tell_changes(saved, config)
    run = TrainingRun(config, dataset, saved)
    if run.accelerator.is_main_process:
        console.err.print(run.describe())
    if overwrite:
        for path in (output / STATE_FILE, output / MODEL_FILE, output / METRICS_FILE, *output.glob(LOG_FILES)):
            path.unlink(missing_ok=True)
    seconds = run.fit()
    metrics = None
    if config.train.evaluate and run.accelerator.is_main_process:
        try:
            metrics = evaluate(run.model, dataset, workers=config.data.workers)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_how_to_evaluate(config)) from None
        write_json(output / METRICS_FILE, metrics)
    return TrainingResult(output / MODEL_FILE, run.epoch, run.means, metrics, seconds)


def _how_to_evaluate(config: Config) -> str:
    checkpoint = Path(config.train.output) / MODEL_FILE
    data = ["--dataset", config.data.dataset, "--data-root", config.data.root]
    command = ["psarm", "bench", "--checkpoint", str(checkpoint), *data]
    return (
        f"Training is complete: {checkpoint} is written; only the evaluation was left ({shlex.join(command)} makes it)."
    )


def _tell_changes(saved: TrainingState, config: Config) -> None:
    """Other changes than those `check_same_run` refuses are taken as meant, but said."""
    changes = differences(saved.config["train"], to_dict(config)["train"], "train")
    changes = [change for change in changes if not change.startswith(("train.output:", "train.threads:"))]
    if changes:
        console.err.print(f"Resuming after epoch {saved.epoch} with other settings: {'; '.join(changes)}.")


class TrainingRun:
    """Model, optimizer and data of one run, from `saved` or fresh."""

    def __init__(self, config: Config, dataset: PersonSearchDataset, saved: TrainingState | None) -> None:
        self.config = config
        self.recipe = recipe = config.train
        self.dataset = dataset
        self.output = Path(recipe.output)
        if recipe.threads:
            torch.set_num_threads(recipe.threads)
        self.accelerator = make_accelerator(recipe.amp)
        self.epoch = 0
        self.means: dict[str, float] = {}
        seed_epoch(recipe.seed, 0, 0)
        self.model = build_model(config.model)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # 15 % faster on CPUs
        if saved is None:
            initial.initialise(self.model, recipe.init)
        else:
            initial.freeze_as_saved(self.model, saved.optimizer)
        frames = TrainingFrames(
            dataset.train,
            dataset.train_labels,
            config.model.min_size,
            config.model.max_size,
            recipe.flip,
            recipe.seed,
            config.data.bad_images,
        )
        grouped = config.data.group_by_shape
        self.loader = training_loader(frames, recipe.batch_size, config.data.workers, group_by_shape=grouped)
        optimizer = torch.optim.SGD(
            initial.parameters(self.model), recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
        if saved is not None:
            self.model.load_state_dict(saved.model)
        self.losses, self.optimizer = self.accelerator.prepare(Losses(self.model), optimizer)
        if saved is not None:
            self._restore(saved)

    def _restore(self, saved: TrainingState) -> None:
        self.optimizer.load_state_dict(saved.optimizer)
        for group in self.optimizer.param_groups:  # the state brings its own; what is configured now counts
            group.update(momentum=self.recipe.momentum, weight_decay=self.recipe.weight_decay)
        if self.accelerator.scaler is not None and saved.scaler:
            self.accelerator.scaler.load_state_dict(saved.scaler)
        self.epoch = saved.epoch
        self.means = saved.losses

    def describe(self) -> str:
        """One line: what is trained on what, where."""
        model = self.config.model
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        precision = "" if self.recipe.amp == "no" else f" in {self.recipe.amp}"
        return (
            f"{model.variant} on {model.backbone} ({parameters / 1e6:.1f} M parameters), "
            f"{len(self.dataset.train)} frames with {model.num_identities} identities, "
            f"{self.accelerator.device}{precision}"
        )

    def fit(self) -> float:
        """Train the epochs that are left, saving after each; returns the seconds it took."""
        main = self.accelerator.is_main_process
        with Report(self.output, self.recipe.epochs, len(self.loader), self.epoch, main) as report:
            while self.epoch < self.recipe.epochs:
                self.means = self._run_epoch(report)
                self.epoch += 1
                if main:
                    self._save()
                self.accelerator.wait_for_everyone()
                report.epoch(self.epoch, self.means, self.optimizer.param_groups[0]["lr"])
        return report.seconds

    def _run_epoch(self, report: Report) -> dict[str, float]:
        """Means of the weighted losses over one epoch."""
        self.losses.train()
        seed_epoch(self.recipe.seed, self.epoch, self.accelerator.process_index)
        self.loader.batch_sampler.set_epoch(self.epoch)
        sums: dict[str, float] = {}
        first = self.epoch * len(self.loader)
        for iteration, batch in enumerate(plain_errors(self.loader), start=first):
            tensors = (batch.images, batch.targets)
            images, targets = send_to_device(tensors, self.accelerator.device, non_blocking=True, skip_keys="seed")
            lr = learning_rate(self.recipe, iteration, len(self.loader))
            losses, gradient_norm = self._step(images, targets, lr, iteration - first)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value
            report.iteration(iteration, losses, lr, gradient_norm)
        return {name: value / len(self.loader) for name, value in sums.items()}

    def _step(
        self, images: list[Tensor], targets: list[dict[str, Tensor]], lr: float, iteration: int
    ) -> tuple[dict[str, float], float]:
        """One optimizer step; the weighted losses with their sum as `total`, and the gradient norm before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        weights = self.recipe.loss_weights
        unweighted = self.losses([image.float().div(255) for image in images], targets)
        losses = {name: weights.of(name) * loss for name, loss in unweighted.items()}
        total = torch.stack(list(losses.values())).sum()
        values = dict(zip(losses, torch.stack(list(losses.values())).tolist(), strict=True))
        self._check_finite(values, iteration)
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(total)
        norm = float(self.accelerator.clip_grad_norm_(self.losses.parameters(), self.recipe.clip_norm))
        if self.accelerator.scaler is None:  # an fp16 loss scaler skips such a step and lowers its scale by itself
            self._check_finite({"the gradient norm": norm}, iteration)
        self.optimizer.step()
        return {"total": sum(values.values()), **values}, norm

    def _check_finite(self, values: dict[str, float], iteration: int) -> None:
        bad = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
        if bad:
            kept = f"{self.output / STATE_FILE} holds epoch {self.epoch}" if self.epoch else "no epoch was finished"
            raise TrainingError(
                f"Training diverged in epoch {self.epoch + 1}, iteration {iteration + 1}: {', '.join(bad)}; {kept}. "
                "Lower train.lr or train.clip_norm, or check the data with psarm data check."
            )

    def _save(self) -> None:
        facts = dataset_facts(self.dataset)
        scaler = self.accelerator.scaler
        state = TrainingState(
            epoch=self.epoch,
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            scaler=scaler.state_dict() if scaler is not None else {},
            losses=self.means,
            config=to_dict(self.config),
            dataset=facts,
        )
        about = {
            "name": facts["name"],
            "train_frames": len(facts["train_frames"]),
            "identities": len(facts["identities"]),
        }
        save_model(self.model, self.output / MODEL_FILE, about)
        save_state(self.output / STATE_FILE, state)


def seed_epoch(seed: int, epoch: int, process: int) -> None:
    """Seed Python, NumPy and torch for one epoch of one process, so that an epoch never depends on those before it."""
    set_seed(int(np.random.SeedSequence([seed, epoch, process]).generate_state(1)[0]))
