"""The files of a training: written together after an epoch, removed before another one begins, and which to use."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from psarm.errors import CheckpointError
from psarm.files import write_together
from psarm.model.checkpoint import Checkpoint, checkpoint_bytes, model_state, read_checkpoint
from psarm.model.person_search import PersonSearchModel
from psarm.training.state import TrainingState, best_validation, state_bytes

STATE_FILE = "last.pt"
MODEL_FILE = "model.safetensors"
BEST_FILE = "best.safetensors"
METRICS_FILE = "metrics.json"
FILES = (STATE_FILE, MODEL_FILE, BEST_FILE, METRICS_FILE)


def save_epoch(output: Path, state: TrainingState, model: PersonSearchModel) -> None:
    """Write what an epoch leaves: the weights to use, the state, and the best weights where this epoch has them.

    All of them stay what they were where one cannot be written (OSError). The evaluation of older weights is removed.
    Only a kill -9 between two renames separates them. The state comes after the weights: that epoch is trained again.
    The best weights come after the state, so that those of before are there until it is saved which are the best;
    `put_best_right` does what is left.
    """
    about = state.dataset
    counts = {"name": about["name"], "train_frames": len(about["train_frames"]), "identities": len(about["identities"])}
    weights = checkpoint_bytes(Checkpoint(model.config, model_state(model), counts, state.epoch))
    contents: dict[Path, bytes | memoryview] = {
        output / MODEL_FILE: weights,
        output / STATE_FILE: state_bytes(state),
    }
    best = best_validation(state.validation)
    if best is not None and best["epoch"] == state.epoch:
        contents[output / BEST_FILE] = weights
    write_together(contents, obsolete=[output / METRICS_FILE])


def put_best_right(output: Path, epoch: int, validation: list[dict[str, Any]]) -> None:
    """See that `best.safetensors` is of the best epoch in `validation`, after `epoch` finished epochs.

    A training killed while it saved may have left the best weights only as the last ones: they are put in place.
    Raises `CheckpointError` where the file is of another epoch, or missing.
    """
    best = best_validation(validation)
    if best is None or _is_of_epoch(output / BEST_FILE, best["epoch"]):
        return
    if best["epoch"] == epoch and _is_of_epoch(output / MODEL_FILE, epoch):
        write_together({output / BEST_FILE: (output / MODEL_FILE).read_bytes()})
        return
    raise CheckpointError(
        f"{output / BEST_FILE} is not of epoch {best['epoch']}, which was the best of this training; put that file "
        "back, or give --allow-changes to choose the best of the epochs to come."
    )


def _is_of_epoch(path: Path, epoch: int) -> bool:
    """Whether it may be: files of earlier versions do not tell."""
    return path.exists() and read_checkpoint(path).epoch in (epoch, None)


def chosen_checkpoint(output: Path) -> Path:
    """The weights to use of a training: the best validated ones, or the last where no frames were held out."""
    best = output / BEST_FILE
    return best if best.exists() else output / MODEL_FILE


def forget_best(output: Path) -> None:
    """Remove the best weights: it is not known of which epoch they are."""
    (output / BEST_FILE).unlink(missing_ok=True)


def held_files(output: Path) -> list[str]:
    """Names of what a training has left in `output`."""
    return [name for name in FILES if (output / name).exists()]


def remove_files(output: Path) -> None:
    """Remove what an earlier training has left, so that none of it is taken for the next one's."""
    for name in FILES:
        (output / name).unlink(missing_ok=True)


def remove_unfinished(output: Path, names: Iterable[str] = FILES) -> None:
    """Remove what a process that was killed while it wrote has left: temporary files under these names."""
    for name in names:
        for path in output.glob(f".{name}.*.tmp"):
            path.unlink(missing_ok=True)
