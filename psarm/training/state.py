"""The training state on disk: what `--resume` needs to go on as if nothing had happened.

`last.pt` holds plain values and tensors only, so it loads with `weights_only=True`. Random number generators are
not in it: every epoch reseeds them from (seed, epoch), and the learning rate is a function of the iteration.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from psarm.config import Config, to_dict
from psarm.data.types import PersonSearchDataset
from psarm.errors import CheckpointError, UsageError
from psarm.files import atomic_path

STATE_FILE = "last.pt"
MODEL_FILE = "model.safetensors"
METRICS_FILE = "metrics.json"
SCHEMA = 1


@dataclass(frozen=True)
class TrainingState:
    """Everything of a run after `epoch` finished epochs."""

    epoch: int
    model: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    """Loss scale of fp16 training; empty otherwise."""
    losses: dict[str, float]
    """Means of the last epoch."""
    config: dict[str, Any]
    dataset: dict[str, Any]


def dataset_facts(dataset: PersonSearchDataset) -> dict[str, Any]:
    """What has to stay the same between the runs of one training: frames and identities, not where they lie."""
    return {
        "name": dataset.name,
        "train_frames": [frame.name for frame in dataset.train],
        "identities": list(dataset.train_labels),
    }


def save_state(path: Path, state: TrainingState) -> None:
    """Write `state` to `path` atomically; on a full disk the old file stays (OSError)."""
    # In memory first: torch's own writer turns a full disk into a RuntimeError that hides the reason.
    buffer = io.BytesIO()
    torch.save({"schema": SCHEMA, **vars(state)}, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_state(path: Path) -> TrainingState:
    """Read what `save_state` wrote, on the CPU; raises `CheckpointError` where it is not such a file."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever damaged bytes lead it into
        raise CheckpointError(
            f"{path} is not a training state ({type(error).__name__}); it may be damaged: start again with --overwrite."
        ) from error
    if not isinstance(content, dict) or content.pop("schema", None) != SCHEMA or not _is_state(content):
        raise CheckpointError(f"{path} is not a training state of this version of psarm (schema {SCHEMA}).")
    return TrainingState(**content)


def _is_state(content: dict[Any, Any]) -> bool:
    """Whether `content` has the fields of a `TrainingState`, and in them what resuming compares."""
    if content.keys() != {field.name for field in fields(TrainingState)}:
        return False
    groups = [content[name] for name in content if name != "epoch"]
    return (
        isinstance(content["epoch"], int)
        and all(isinstance(group, dict) for group in groups)
        and all(isinstance(content["config"].get(name), dict) for name in ("model", "train"))
        and content["dataset"].keys() == {"name", "train_frames", "identities"}
    )


def check_same_run(saved: TrainingState, config: Config, dataset: PersonSearchDataset) -> None:
    """Raise `UsageError` naming every difference that makes `saved` another run than `config` on `dataset`."""
    now = to_dict(config)
    changes = differences(saved.config["model"], now["model"], "model")
    changes += differences({"init": saved.config["train"]["init"]}, {"init": now["train"]["init"]}, "train")
    facts = dataset_facts(dataset)
    if saved.dataset["name"] != facts["name"]:
        changes.append(f"data set: {saved.dataset['name']} → {facts['name']}")
    for key in ("train_frames", "identities"):
        old, new = saved.dataset[key], facts[key]
        if old != new:
            changes.append(f"{key.replace('_', ' ')} of the data set: {len(old)} → {len(new)}, {_distinct(old, new)}")
    if changes:
        raise UsageError(
            f"Cannot resume: the run was started with other settings ({'; '.join(changes)}). "
            "Use the same ones, another --output, or --overwrite to start again."
        )


def differences(old: dict[str, Any], new: dict[str, Any], group: str) -> list[str]:
    """`group.key: old → new` for every leaf that differs."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, f"{group}.{key}")
        elif before != after:
            found.append(f"{group}.{key}: {before} → {after}")
    return found


def _distinct(old: list[Any], new: list[Any]) -> str:
    for value in old:
        if value not in set(new):
            return f"{value} is gone"
    for value in new:
        if value not in set(old):
            return f"{value} is new"
    return "in another order"
