"""One training run: SGD over the model's losses, a checkpoint every epoch, exact resume (paper section 4.1).

`train` is the whole story; `TrainingRun` holds what lives from the first epoch to the last; a step is in step.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from psarm import console
from psarm.config import Config, to_dict
from psarm.data.loader import Batch
from psarm.data.types import PersonSearchDataset
from psarm.data.workers import plain_errors
from psarm.errors import CheckpointError, DataError, PsarmError
from psarm.evaluation.scoring import Metrics
from psarm.model.person_search import PersonSearchModel
from psarm.training import initial
from psarm.training.averaging import make_average
from psarm.training.build import make_loader, make_model, share_buffers
from psarm.training.changes import check_changes
from psarm.training.evaluate import evaluate
from psarm.training.faults import Diverged, ProcessFault, explained, training_out_of_memory
from psarm.training.final import agreed_checkpoint, evaluate_checkpoint
from psarm.training.report import LOG_FILES, Report, opening_line
from psarm.training.saving import (
    STATE_FILE,
    forget_best,
    put_best_right,
    remove_files,
    remove_unfinished,
    save_epoch,
)
from psarm.training.schedule import learning_rate, scaled_to_batch
from psarm.training.setup import (
    check_output,
    effective_batch,
    fit_to_dataset,
    make_accelerator,
    read_parts,
    use_deterministic_algorithms,
)
from psarm.training.state import TrainingState, best_validation, dataset_facts, load_state
from psarm.training.step import Losses, Stepper


@dataclass(frozen=True)
class TrainingResult:
    """What a finished training left behind."""

    checkpoint: Path
    """The weights to use, and evaluated: the best validated ones, or the last where no frames are held out."""
    epochs: int
    losses: dict[str, float]
    """Weighted means of the last epoch, with their sum as `total`."""
    validation: list[dict[str, Any]]
    """Epoch and metrics (fractions) of every validation; complete in the first process only."""
    metrics: Metrics | None
    """Fractions on the test split; None where `train.evaluate` is off, and in all processes but the first."""
    seconds: float
    """Of training, since the start or resume."""


def train(config: Config, resume: bool = False, overwrite: bool = False, allow_changes: bool = False) -> TrainingResult:
    """Train to the last epoch and evaluate; in every process that torchrun started.

    The output folder gets `last.pt`, `model.safetensors`, TensorBoard logs, with `data.validation` `best.safetensors`
    and with `train.evaluate` `metrics.json`. All processes have to see it.

    Args:
        config: the run; `model.num_identities` is replaced by the data set's number of training identities.
        resume: go on from the output folder's `last.pt`; the result equals that of a run never interrupted.
        overwrite: start again in a folder that holds a training.
        allow_changes: resume though settings differ from those of the run, and say which.

    Raises:
        UsageError: the output folder holds a training already, or there is nothing (or another run) to resume.
        DataError: the data set cannot be read, or has nothing to evaluate on.
        TrainingError: a loss or gradient is not finite, memory ran out, or another process of the training ended; the
            last checkpoint stays.
        OSError: the disk is full; the last checkpoint stays.
        KeyboardInterrupt: with a sentence where only the evaluation was left to do.
    """
    output = Path(config.train.output)
    check_output(output, resume, overwrite)
    if config.train.deterministic:
        use_deterministic_algorithms()
    accelerator = make_accelerator(config.train.amp)
    process, processes = accelerator.process_index, accelerator.num_processes
    dataset, training, validation = read_parts(config)
    config = fit_to_dataset(config, training, processes)
    out_of_memory = training_out_of_memory(config)
    with explained(out_of_memory, process, processes, common=PsarmError):
        run, changes = _begin(config, accelerator, training, validation, resume, allow_changes)
    with explained(out_of_memory, process, processes):
        if accelerator.is_main_process:
            _open(run, changes, overwrite, allow_changes)
        accelerator.wait_for_everyone()
        seconds = run.fit()
    epochs, means, history = run.epoch, run.means, run.history
    # The evaluation can use its memory. And it must be gone before the process group is: torch waits for Gloo's threads
    # when the group goes, and while its last owner is DistributedDataParallel it does so holding the interpreter's
    # lock, which one of these threads may need for its last work. Then the process hangs (pytorch issue 56297).
    del run
    accelerator.free_memory()
    checkpoint = agreed_checkpoint(output)
    try:
        metrics = evaluate_checkpoint(checkpoint, dataset, config, accelerator) if config.train.evaluate else None
    except (DataError, ProcessFault) as error:
        raise type(error)(f"{error} {checkpoint} is written; psarm train --eval-only evaluates it.") from error
    accelerator.end_training()
    return TrainingResult(checkpoint, epochs, means, history, metrics, seconds)


def _begin(
    config: Config,
    accelerator: Accelerator,
    training: PersonSearchDataset,
    validation: PersonSearchDataset | None,
    resume: bool,
    allow_changes: bool,
) -> tuple[TrainingRun, list[str]]:
    """The run, fresh or as it was saved, and what differs from that; the saved state is not kept beside it."""
    if not resume:
        return TrainingRun(config, accelerator, training, validation, None), []
    saved = load_state(Path(config.train.output) / STATE_FILE)
    changes = check_changes(saved, config, training, accelerator.num_processes, allow_changes)
    return TrainingRun(config, accelerator, training, validation, saved), changes


def _open(run: TrainingRun, changes: list[str], overwrite: bool, allow_changes: bool) -> None:
    """Say what begins, and remove what is not to stay."""
    if changes:
        console.err.print(f"Resuming after epoch {run.epoch} with other settings: {'; '.join(changes)}.")
    console.err.print(opening_line(run.config, run.trained, run.training, run.validation, run.accelerator))
    if run.epoch == run.recipe.epochs:
        left = "only the evaluation is left" if run.recipe.evaluate else "nothing is left to do"
        console.err.print(f"The training is finished: all {run.epoch} epochs were trained before; {left}.")
    remove_unfinished(run.output)
    if overwrite:
        remove_files(run.output)
        for path in run.output.glob(LOG_FILES):
            path.unlink()
    try:
        put_best_right(run.output, run.epoch, run.history)
    except CheckpointError as error:
        if not allow_changes:
            raise
        console.err.print(f"{error} That is done; the validations so far are forgotten.")
        forget_best(run.output)
        run.history.clear()


class TrainingRun:
    """Model, optimizer and data of one run, from `saved` or fresh.

    Args:
        config: fitted to `training`.
        accelerator: device, precision and processes.
        training: its training frames are trained on.
        validation: its gallery and queries tell the best epoch; None = no validation.
        saved: what to go on from.
    """

    def __init__(
        self,
        config: Config,
        accelerator: Accelerator,
        training: PersonSearchDataset,
        validation: PersonSearchDataset | None,
        saved: TrainingState | None,
    ) -> None:
        self.config = config
        self.accelerator = accelerator
        self.training, self.validation = training, validation
        self.output = Path(config.train.output)
        self.effective_batch = effective_batch(config, accelerator.num_processes)
        self.recipe = recipe = scaled_to_batch(config.train, self.effective_batch)
        if recipe.threads:
            torch.set_num_threads(recipe.threads)
        self.loader = make_loader(config, training, accelerator)
        self.steps = len(self.loader) // recipe.accumulate
        seed_epoch(recipe.seed, 0, 0)
        self.trained = make_model(config, accelerator, saved)
        optimizer = torch.optim.SGD(
            initial.parameters(self.trained), recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
        losses, self.optimizer = accelerator.prepare(Losses(self.trained), optimizer)
        self.average = make_average(self.trained, recipe.ema, saved.average if saved is not None else {})
        self.stepper = Stepper(recipe, accelerator, self.trained, losses, self.optimizer, self.average)
        self.epoch = 0
        self.means: dict[str, float] = {}
        self.history: list[dict[str, Any]] = []
        self._told: set[str] = set()
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
        self.history = list(saved.validation)

    @property
    def model(self) -> PersonSearchModel:
        """The one to use: with the average of the weights where `train.ema` asks for it."""
        return self.trained if self.average is None else cast(PersonSearchModel, self.average.module)

    def fit(self) -> float:
        """Train the epochs that are left, saving after each; returns the seconds it took."""
        main = self.accelerator.is_main_process
        done, epochs = self.epoch, self.recipe.epochs
        with Report(self.output, epochs, self.steps, done, self.effective_batch, main) as report:
            while self.epoch < epochs:
                self.means = self._run_epoch(report)
                self.epoch += 1
                metrics = self._validate()
                if main:
                    save_epoch(self.output, self._state(), self.model)
                self.accelerator.wait_for_everyone()
                report.epoch(self.epoch, self.means, self.optimizer.param_groups[0]["lr"])
                if metrics is not None:
                    report.validation(self.epoch, metrics, best_validation(self.history) is self.history[-1])
        return report.seconds

    def _run_epoch(self, report: Report) -> dict[str, float]:
        """Means of the weighted losses over one epoch."""
        self.stepper.losses.train()
        seed_epoch(self.recipe.seed, self.epoch, self.accelerator.process_index)
        self.loader.batch_sampler.set_epoch(self.epoch)
        batches = self._telling_skipped(report.loading(plain_errors(self.loader)))
        first = self.epoch * self.steps
        sums: dict[str, float] = {}
        for step in range(first, first + self.steps):
            lr = learning_rate(self.recipe, step, self.steps)
            try:
                losses, gradient_norm = self.stepper.step(islice(batches, self.recipe.accumulate), lr)
            except Diverged as error:
                raise self._diverged(step - first, error) from None
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value
            report.iteration(step, losses, lr, gradient_norm)
        return {name: value / self.steps for name, value in sums.items()}

    def _telling_skipped(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same, each frame that was skipped said once, by the process that met it."""
        for batch in batches:
            for sentence in batch.skipped:
                if sentence not in self._told:
                    self._told.add(sentence)
                    console.err.print(f"Skipped a training frame: {sentence}")
            yield batch

    def _diverged(self, step: int, error: Diverged) -> Diverged:
        kept = f"{self.output / STATE_FILE} holds epoch {self.epoch}" if self.epoch else "no epoch was finished"
        return Diverged(
            f"Training diverged in epoch {self.epoch + 1}, iteration {step + 1}: {error}; {kept}. "
            "Lower train.lr or train.clip_norm, or check the data with psarm data check."
        )

    def _validate(self) -> Metrics | None:
        """What a validation finds where this epoch is due, in the first process."""
        due = self.epoch % self.recipe.validate_every == 0 or self.epoch == self.recipe.epochs
        if self.validation is None or not due:
            return None
        accelerator = self.accelerator
        share_buffers(self.model, accelerator)
        metrics = evaluate(
            self.model,
            self.validation,
            workers=self.config.data.workers,
            process=accelerator.process_index,
            processes=accelerator.num_processes,
        )
        if metrics is not None:
            self.history.append({"epoch": self.epoch, **metrics})
        return metrics

    def _state(self) -> TrainingState:
        scaler = self.accelerator.scaler
        return TrainingState(
            epoch=self.epoch,
            model=self.trained.state_dict(),
            average=self.average.state_dict() if self.average is not None else {},
            optimizer=self.optimizer.state_dict(),
            scaler=scaler.state_dict() if scaler is not None else {},
            losses=self.means,
            validation=self.history,
            processes=self.accelerator.num_processes,
            config=to_dict(self.config),
            dataset=dataset_facts(self.training),
        )


def seed_epoch(seed: int, epoch: int, process: int) -> None:
    """Seed Python, NumPy and torch for one epoch of one process, so that an epoch never depends on those before it."""
    set_seed(int(np.random.SeedSequence([seed, epoch, process]).generate_state(1)[0]))
