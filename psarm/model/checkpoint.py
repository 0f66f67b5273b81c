"""Saving and loading models: our safetensors files, training states, and the released `.pth` files.

Our checkpoint is one safetensors file whose metadata key `psarm` holds JSON: the model configuration and what it was
trained on. Loading never runs code from the file (weights_only) and is strict about names and shapes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import OutOfMemoryError, Tensor

from psarm import __version__
from psarm.config import ModelConfig, from_dict, to_dict
from psarm.errors import CheckpointError, ConfigError, UsageError
from psarm.files import atomic_path
from psarm.model.builder import build_model
from psarm.model.person_search import PersonSearchModel
from psarm.model.released import looks_released, read_released
from psarm.model.weights_file import WeightsFile, first_sentence, misfit, read_weights

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds."""

    config: ModelConfig
    state: dict[str, Tensor]
    dataset: dict[str, Any] | None
    """Name, frames and identities of the training data, where known."""
    epoch: int | None = None
    """After which it was saved, where a training of ours did."""


def load_model(path: str | Path, device: str = "cpu") -> PersonSearchModel:
    """Load a checkpoint of ours or a released SeqNet / PS-ARM `.pth`; the model comes back in eval mode.

    Raises CheckpointError when the file is missing, damaged, holds code, or belongs to another architecture, and
    UsageError when this machine's torch cannot use `device`. Where its memory runs out, torch's own error comes.
    """
    checkpoint = read_checkpoint(path)
    model = build_model(checkpoint.config)
    load_state(model, checkpoint.state, str(path))
    try:
        return model.eval().to(device)
    except OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError) as error:  # torch has no error of its own for a device that is not there
        raise UsageError(f"Device {device!r} cannot be used ({first_sentence(error)}); use 'cpu'.") from error


def save_model(
    model: PersonSearchModel, path: str | Path, dataset: dict[str, Any] | None = None, half: bool = False
) -> None:
    """Write a model as one safetensors file, atomically; `half` stores float16 (loading gives float32 again)."""
    state = model_state(model)
    if half:
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    save_checkpoint(Checkpoint(model.config, state, dataset), path)


def model_state(model: PersonSearchModel) -> dict[str, Tensor]:
    """The model's tensors as a checkpoint takes them."""
    return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}


def save_checkpoint(checkpoint: Checkpoint, path: str | Path) -> None:
    """Write a checkpoint as one safetensors file, atomically; its tensors are on the CPU and contiguous."""
    with atomic_path(path) as temporary:
        # Not save_file, which turns a full disk into a SafetensorError.
        temporary.write_bytes(checkpoint_bytes(checkpoint))


def checkpoint_bytes(checkpoint: Checkpoint) -> bytes:
    """The content of a checkpoint's file; its tensors are on the CPU and contiguous."""
    about = {
        "format": FORMAT,
        "psarm_version": __version__,
        "model": to_dict(checkpoint.config),
        "dataset": checkpoint.dataset,
    }
    if checkpoint.epoch is not None:
        about["epoch"] = checkpoint.epoch
    return save(checkpoint.state, metadata={"psarm": json.dumps(about)})


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint file of any known kind without building the model; tensors come back as float32."""
    return checkpoint_of(read_weights(path), path)


def checkpoint_of(file: WeightsFile, path: str | Path) -> Checkpoint:
    """What a file read from `path` is a checkpoint of; CheckpointError where it is no model's."""
    if file.kind == "safetensors":
        return _ours(file, path)
    if looks_released(file.state):
        released = read_released(file.state, str(path))
        return Checkpoint(released.config, released.state, None)
    config = file.about.get("config")
    if isinstance(config, dict) and config.get("model") is not None:  # a training state of ours
        return Checkpoint(_config(config["model"], path), file.state, file.about.get("dataset"))
    raise CheckpointError(
        f"{path} holds a model of another architecture (first parameter: {next(iter(file.state))}); psarm loads "
        "its own checkpoints and the released SeqNet and PS-ARM files."
    )


def load_state(model: PersonSearchModel, state: Mapping[str, Tensor], source: str) -> None:
    """Load strictly by name and shape; a checkpoint of another architecture is one clear CheckpointError."""
    if wrong := misfit(model.state_dict(), state):
        raise CheckpointError(
            f"{source} does not fit {model.config.variant} with {model.config.backbone}: parameters {wrong}; use a "
            "checkpoint of this architecture."
        )
    model.load_state_dict(dict(state), strict=True)


def _ours(file: WeightsFile, path: str | Path) -> Checkpoint:
    about = file.about.get("psarm")
    if about is None:
        raise CheckpointError(
            f"{path} is a safetensors file without psarm's metadata; give one written by psarm train."
        )
    try:
        values = json.loads(about)
        version, config, dataset, epoch = values["format"], values["model"], values.get("dataset"), values.get("epoch")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} has metadata that psarm cannot read ({error}); give one written by psarm train."
        ) from error
    if version != FORMAT:
        raise CheckpointError(f"{path} has checkpoint format {version}, this psarm reads {FORMAT}; upgrade psarm.")
    return Checkpoint(_config(config, path), file.state, dataset, epoch)


def _config(values: Any, path: str | Path) -> ModelConfig:
    try:
        return from_dict(ModelConfig, values, f"{path}: model")
    except ConfigError as error:
        raise CheckpointError(f"The checkpoint's configuration cannot be used: {error}") from error
