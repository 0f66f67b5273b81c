"""The training state on disk: what `--resume` needs to go on as if nothing had happened.

`last.pt` holds plain values and tensors only, so it loads with `weights_only=True`. Random number generators are
not in it: every epoch reseeds them from (seed, epoch), and the learning rate is a function of the step.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from psarm.data.types import PersonSearchDataset
from psarm.errors import CheckpointError

SCHEMA = 2


@dataclass(frozen=True)
class TrainingState:
    """Everything of a run after `epoch` finished epochs."""

    epoch: int
    model: dict[str, Any]
    """The weights that are trained, not their average."""
    average: dict[str, Any]
    """Of the average that `train.ema` asks for; empty otherwise."""
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    """Loss scale of fp16 training; empty otherwise."""
    losses: dict[str, float]
    """Means of the last epoch."""
    validation: list[dict[str, Any]]
    """Epoch and metrics of every validation so far; empty where no frames are held out."""
    processes: int
    config: dict[str, Any]
    dataset: dict[str, Any]


def best_validation(validation: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The one with the highest mAP, of equals the one with the highest detection AP, then the latest; None of none."""
    return max(
        validation,
        key=lambda entry: (entry["search"]["mAP"], entry["detection"]["ap"], entry["epoch"]),
        default=None,
    )


def dataset_facts(dataset: PersonSearchDataset) -> dict[str, Any]:
    """What has to stay the same between the runs of one training: frames and identities, not where they lie."""
    return {
        "name": dataset.name,
        "train_frames": [frame.name for frame in dataset.train],
        "identities": list(dataset.train_labels),
    }


def state_bytes(state: TrainingState) -> memoryview:
    """The content of `last.pt`."""
    # In memory first: torch's own writer turns a full disk into a RuntimeError that hides the reason.
    buffer = io.BytesIO()
    torch.save({"schema": SCHEMA, **vars(state)}, buffer)
    return buffer.getbuffer()


def load_state(path: Path) -> TrainingState:
    """Read a `last.pt`, on the CPU; raises `CheckpointError` where it is not such a file."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever damaged bytes lead it into
        raise CheckpointError(
            f"{path} is not a training state ({type(error).__name__}); it may be damaged: start again with --overwrite."
        ) from error
    schema = content.pop("schema", None) if isinstance(content, dict) else None
    if isinstance(schema, int) and schema != SCHEMA:
        raise CheckpointError(
            f"{path} is a training state of another version of psarm (schema {schema}, this one has {SCHEMA}); finish "
            "the training with that version, or start again with --overwrite."
        )
    if schema is None or not _is_state(content):
        raise CheckpointError(f"{path} is not a training state of this version of psarm (schema {SCHEMA}).")
    return TrainingState(**content)


def _is_state(content: dict[Any, Any]) -> bool:
    """Whether `content` has the fields of a `TrainingState`, and in them what resuming compares."""
    if content.keys() != {field.name for field in fields(TrainingState)}:
        return False
    kinds = {"epoch": int, "processes": int, "validation": list}
    return (
        all(isinstance(value, kinds.get(name, dict)) for name, value in content.items())
        and all(isinstance(content["config"].get(name), dict) for name in ("model", "data", "train"))
        and content["dataset"].keys() == {"name", "train_frames", "identities"}
    )
