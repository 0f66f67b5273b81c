"""What a person sees of a training: a progress bar, a line an epoch, and TensorBoard scalars."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType

from rich.console import Group
from rich.live import Live
from rich.progress import Progress, TaskID
from rich.text import Text
from torch.utils.tensorboard import SummaryWriter

from psarm import console

LOG_FOLDER = "tensorboard"
LOG_FILES = f"{LOG_FOLDER}/events.out.tfevents.*"


class Report:
    """Shows a run of `epochs` epochs of `per_epoch` iterations, of which `done` epochs were finished before.

    A context manager. Nothing is shown or written where `active` is false (all processes but the first).
    """

    def __init__(self, output: Path, epochs: int, per_epoch: int, done: int, active: bool = True) -> None:
        self.epochs = epochs
        self.per_epoch = per_epoch
        self.active = active
        self._start_iteration = done * per_epoch
        self._start = self._epoch_start = time.monotonic()
        self._bar: Progress = console.progress()
        self._task: TaskID = self._bar.add_task("training", total=epochs * per_epoch, completed=self._start_iteration)
        self._losses = Text(no_wrap=True, overflow="ellipsis")
        self._live = Live(Group(self._bar, self._losses), console=console.err)
        self._writer = SummaryWriter(str(output / LOG_FOLDER), purge_step=self._start_iteration) if active else None

    def __enter__(self) -> Report:
        if self.active and console.err.is_terminal:
            self._live.start()
        self._start = self._epoch_start = time.monotonic()
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

    def iteration(self, iteration: int, losses: dict[str, float], lr: float, gradient_norm: float) -> None:
        """After one step; `losses` are weighted and hold their sum as `total`."""
        epoch = iteration // self.per_epoch + 1
        self._bar.update(self._task, advance=1, description=f"epoch {epoch}/{self.epochs}")
        self._losses.plain = _in_words(losses)
        if self._writer is not None:
            for name, value in losses.items():
                self._writer.add_scalar(f"loss/{name}", value, iteration)
            self._writer.add_scalar("lr", lr, iteration)
            self._writer.add_scalar("gradient_norm", gradient_norm, iteration)

    def epoch(self, epoch: int, losses: dict[str, float], lr: float) -> None:
        """After epoch number `epoch` (from 1), with the means of its losses."""
        now = time.monotonic()
        rate = self.per_epoch / (now - self._epoch_start)
        done = epoch * self.per_epoch - self._start_iteration
        left = (self.epochs - epoch) * self.per_epoch * (now - self._start) / done
        self._epoch_start = now
        if self._writer is not None:
            for name, value in losses.items():
                self._writer.add_scalar(f"epoch_loss/{name}", value, epoch)
            self._writer.flush()
        if self.active:
            console.err.print(
                f"epoch {epoch}/{self.epochs}  {_in_words(losses)}  lr {lr:.2g}  {rate:.2f} it/s  eta {duration(left)}"
            )


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}"


def _in_words(losses: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
