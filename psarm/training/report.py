"""What a person sees of a training: a progress bar, a line an epoch, and TensorBoard scalars."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import torch
from accelerate import Accelerator
from rich.console import Group
from rich.live import Live
from rich.progress import Progress, TaskID
from rich.text import Text
from torch.utils.tensorboard import SummaryWriter

from psarm import console
from psarm.config import Config
from psarm.data.types import PersonSearchDataset
from psarm.evaluation.scoring import Metrics
from psarm.model.person_search import PersonSearchModel
from psarm.training.schedule import scaled_to_batch
from psarm.training.setup import effective_batch

T = TypeVar("T")

LOG_FOLDER = "tensorboard"
LOG_FILES = f"{LOG_FOLDER}/events.out.tfevents.*"


class Report:
    """Shows a run of `epochs` epochs of `per_epoch` steps, of which `done` epochs were finished before.

    A context manager. Nothing is shown or written where `active` is false (all processes but the first).

    Args:
        output: folder of the run; the logs go to its `tensorboard`.
        epochs: of the whole training.
        per_epoch: optimizer steps an epoch.
        done: epochs finished before.
        images: of one step, all processes together.
        active: whether to show and write anything.
    """

    def __init__(
        self, output: Path, epochs: int, per_epoch: int, done: int, images: int = 1, active: bool = True
    ) -> None:
        self.epochs = epochs
        self.per_epoch = per_epoch
        self.images = images
        self.active = active
        self._first_step = done * per_epoch
        self._start = self._epoch_start = time.monotonic()
        self._waited = self._trained = 0.0  # seconds of this epoch: for data, and altogether up to the last step
        self._bar: Progress = console.progress()
        self._task: TaskID = self._bar.add_task("training", total=epochs * per_epoch, completed=self._first_step)
        self._losses = Text(no_wrap=True, overflow="ellipsis")
        self._live = Live(Group(self._bar, self._losses), console=console.err)
        self._writer = SummaryWriter(str(output / LOG_FOLDER), purge_step=self._first_step) if active else None

    def __enter__(self) -> Report:
        if self.active and console.err.is_terminal:
            self._live.start()
        self._start = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        if self._writer is not None:
            self._writer.close()

    @property
    def seconds(self) -> float:
        """Since the training began or was resumed."""
        return time.monotonic() - self._start

    def loading(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches of an epoch, which begins here; takes the time that each one is waited for."""
        self._waited = self._trained = 0.0
        self._epoch_start = asked = time.monotonic()
        for batch in batches:
            self._waited += time.monotonic() - asked
            yield batch
            asked = time.monotonic()

    def iteration(self, step: int, losses: dict[str, float], lr: float, gradient_norm: float) -> None:
        """After optimizer step `step` (from 0); `losses` are weighted and hold their sum as `total`."""
        self._trained = time.monotonic() - self._epoch_start
        epoch = step // self.per_epoch + 1
        self._bar.update(self._task, advance=1, description=f"epoch {epoch}/{self.epochs}")
        self._losses.plain = f"{_in_words(losses)}  {self._cost}"
        if self._writer is not None:
            for name, value in losses.items():
                self._writer.add_scalar(f"loss/{name}", value, step)
            self._writer.add_scalar("lr", lr, step)
            self._writer.add_scalar("gradient_norm", gradient_norm, step)

    def validation(self, epoch: int, metrics: Metrics, best: bool) -> None:
        """After a validation, in the first process; `best` where no epoch before was better."""
        found = {**metrics["search"], **metrics["detection"]}
        if self._writer is not None:
            for name, value in found.items():
                self._writer.add_scalar(f"validation/{name}", value, epoch)
        search = f"mAP {100 * found['mAP']:.1f} %  top-1 {100 * found['top1']:.1f} %"
        marked = "  (best so far)" if best else ""
        console.err.print(f"validation after epoch {epoch}  {search}  detection AP {100 * found['ap']:.1f} %{marked}")

    def epoch(self, epoch: int, losses: dict[str, float], lr: float) -> None:
        """After epoch number `epoch` (from 1), with the means of its losses."""
        rate = self.per_epoch / self._trained
        done = epoch * self.per_epoch - self._first_step
        left = (self.epochs - epoch) * self.per_epoch * self.seconds / done
        if self._writer is not None:
            for name, value in losses.items():
                self._writer.add_scalar(f"epoch_loss/{name}", value, epoch)
            self._writer.add_scalar("speed/images_per_second", rate * self.images, epoch)
            self._writer.add_scalar("speed/data_wait", self._waited / self._trained, epoch)
            self._writer.add_scalar("speed/peak_memory_gib", peak_memory(), epoch)
            self._writer.flush()
        if self.active:
            console.err.print(
                f"epoch {epoch}/{self.epochs}  {_in_words(losses)}  lr {lr:.2g}  {rate:.2f} it/s  "
                f"{rate * self.images:.1f} images/s  {self._cost}  eta {duration(left)}"
            )

    @property
    def _cost(self) -> str:
        return f"data wait {100 * self._waited / self._trained:.0f} %  peak {peak_memory():.1f} GiB"


def opening_line(
    config: Config,
    model: PersonSearchModel,
    training: PersonSearchDataset,
    validation: PersonSearchDataset | None,
    accelerator: Accelerator,
) -> str:
    """What is trained on what, where, in which batches and how fast."""
    recipe, processes = config.train, accelerator.num_processes
    parameters = sum(parameter.numel() for parameter in model.parameters())
    held_out = ""
    if validation is not None:
        frames = len(validation.gallery)
        share = f"{frames / (frames + len(training.train)):.0%} for data.validation {config.data.validation:g}"
        held_out = f" ({frames} more held out for validation, {share}, queries: {len(validation.queries)})"
    device = "cpu" if accelerator.device.type == "cpu" else str(accelerator.device)  # Accelerate numbers CPUs too
    precision = "" if recipe.amp == "no" else f" in {recipe.amp}"
    factors = [str(recipe.batch_size)]
    factors += [f"{recipe.accumulate} batches"] * (recipe.accumulate > 1)
    factors += [f"{processes} processes"] * (processes > 1)
    product = f" = {' x '.join(factors)}" if len(factors) > 1 else ""
    batch = effective_batch(config, processes)
    lr = scaled_to_batch(recipe, batch).lr
    scaling = f" = {recipe.lr:g} x {batch}/{recipe.lr_batch}" if recipe.lr_batch else ""
    return (
        f"{config.model.variant} on {config.model.backbone} ({parameters / 1e6:.1f} M parameters), "
        f"{len(training.train)} frames with {config.model.num_identities} identities{held_out}, "
        f"{device}{precision}, effective batch {batch}{product}, lr {lr:g}{scaling}"
    )


def peak_memory() -> float:
    """GiB: the most that tensors took on the GPU so far, or this process altogether where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}"


def _in_words(losses: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
